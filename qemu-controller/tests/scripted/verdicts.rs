//! The verdict on a run as events and the stream's end tell it, without a process to ask.

use std::future::IntoFuture as _;
use std::io::ErrorKind;
use std::time::Duration;

use qemu_controller::{Session, Verdict};
use serde_json::json;

use crate::peer::{DEADLINE, Peer, connected};

/// How long the run may take; time is paused.
const RUN: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn what_shutdown_says_is_the_verdict() {
    for (reason, guest, name, code) in [
        ("guest-reset", true, "reset", 120),
        ("guest-shutdown", true, "shut-down", 0),
        ("guest-panic", true, "panicked", 121),
        ("host-qmp-quit", false, "interrupted", 143),
        ("host-qmp-system-reset", false, "interrupted", 143),
        ("host-signal", false, "interrupted", 143),
        ("host-ui", false, "interrupted", 143),
        ("host-error", false, "lost", 125),
    ] {
        let (session, mut peer) = connected().await;
        peer.event("SHUTDOWN", json!({ "guest": guest, "reason": reason }))
            .await;
        peer.close(None);
        let verdict = session.wait().await;
        assert_eq!(
            (verdict.name(), verdict.exit_code()),
            (name, code),
            "{reason}: {verdict}"
        );
        assert_eq!(verdict.success(), code == 0);
        // Whoever asks later gets the same, also with a deadline.
        assert_eq!(session.run_to_end(RUN).await.name(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_says_nothing_is_lost() {
    for fault in [None, Some(ErrorKind::TimedOut)] {
        let (session, peer) = connected().await;
        peer.close(fault);
        let verdict = session.wait().await;
        assert!(matches!(verdict, Verdict::Lost(_)), "{verdict}");
    }
    let (session, _peer) = connected().await;
    session.detach().unwrap();
    assert!(matches!(session.wait().await, Verdict::Lost(_)));
}

#[tokio::test(start_paused = true)]
async fn what_this_session_asked_for_is_no_interruption() {
    let (session, mut peer) = connected().await;
    let ended = async {
        assert_eq!(peer.hear().await.name, "quit");
        peer.event(
            "SHUTDOWN",
            json!({ "guest": false, "reason": "host-qmp-quit" }),
        )
        .await;
        peer.close(None);
    };
    let (verdict, stopped, ()) = tokio::join!(session.wait(), session.stop(), ended);
    stopped.unwrap();
    assert!(matches!(verdict, Verdict::Stopped), "{verdict}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_stays_after_its_shutdown_has_ended() {
    let (session, mut peer) = connected().await;
    let shutdown = async {
        peer.event(
            "SHUTDOWN",
            json!({ "guest": true, "reason": "guest-shutdown" }),
        )
        .await;
        let asked = peer.hear().await;
        peer.reply(&asked, json!({ "status": "shutdown", "running": false }))
            .await;
    };
    let (verdict, ()) = tokio::join!(session.wait(), shutdown);
    assert!(matches!(verdict, Verdict::ShutDown), "{verdict}");
}

/// No event comes to a session that joins a machine which is stopped already.
#[tokio::test(start_paused = true)]
async fn a_guest_that_stood_before_the_session_came() {
    for (status, name) in [("shutdown", "shut-down"), ("guest-panicked", "panicked")] {
        let (session, mut peer) = connected().await;
        let stands = async {
            for _ in 0..2 {
                let asked = peer.hear().await;
                let status = json!({ "status": status, "running": false });
                peer.reply(&asked, status).await;
            }
        };
        let wait = async {
            session.query_status().await.unwrap();
            session.wait().await
        };
        let (verdict, ()) = tokio::join!(wait, stands);
        assert_eq!(verdict.name(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_stays_in_a_qemu_that_is_held_up() {
    let (session, mut peer) = connected().await;
    let shutdown = async {
        peer.event(
            "SHUTDOWN",
            json!({ "guest": true, "reason": "guest-shutdown" }),
        )
        .await;
        let asked = peer.hear().await;
        tokio::time::sleep(10 * DEADLINE).await;
        peer.reply(&asked, json!({ "status": "shutdown", "running": false }))
            .await;
    };
    let verdict = async {
        tokio::time::timeout(RUN, session.wait())
            .await
            .expect("the run is over")
    };
    let (verdict, ()) = tokio::join!(verdict, shutdown);
    assert!(matches!(verdict, Verdict::ShutDown), "{verdict}");
}

/// Answers for a guest whose state is asked of `status`, with the time since it began; one that is
/// shut down can not be continued.
async fn guest(mut peer: Peer, mut status: impl FnMut(Duration) -> &'static str) {
    let began = tokio::time::Instant::now();
    let mut now = "running";
    while let Some(asked) = peer.hear_or_end().await {
        let mut answer = match asked.name.as_str() {
            "query-status" => {
                now = status(began.elapsed());
                json!({ "return": { "status": now, "running": now == "running" } })
            }
            "cont" if now == "shutdown" => {
                json!({ "error": { "class": "GenericError", "desc": "Resetting the Virtual Machine is required" } })
            }
            "human-monitor-command" => json!({ "return": "R15=00000100" }),
            _ => json!({ "return": {} }),
        };
        answer["id"] = asked.id;
        peer.say(answer.to_string()).await;
    }
}

/// Between the look's questions, and before the first of them.
#[tokio::test(start_paused = true)]
async fn a_guest_that_comes_to_its_end_while_it_is_looked_at() {
    for asked_before_its_end in [0, 1] {
        let (session, peer) = connected().await;
        let mut asked = 0;
        let peer = tokio::spawn(guest(peer, move |since| {
            asked += u32::from(since >= RUN);
            if asked > asked_before_its_end {
                "shutdown"
            } else {
                "running"
            }
        }));
        let verdict = session.run_to_end(RUN).await;
        assert!(
            matches!(verdict, Verdict::ShutDown),
            "after {asked_before_its_end}: {verdict}"
        );
        peer.abort();
    }
}

/// The processor that panics only asks for the stop, and answers may come before it.
#[tokio::test(start_paused = true)]
async fn a_guest_that_panicked_and_is_still_called_running() {
    let (session, mut peer) = connected().await;
    let panics = async {
        peer.event("GUEST_PANICKED", json!({ "action": "pause" }))
            .await;
        for status in ["running", "guest-panicked"] {
            let asked = peer.hear().await;
            let status = json!({ "status": status, "running": status == "running" });
            peer.reply(&asked, status).await;
            peer.event("STOP", json!({})).await;
        }
    };
    let verdict = async {
        tokio::time::timeout(RUN, session.wait())
            .await
            .expect("the run is over")
    };
    let (verdict, ()) = tokio::join!(verdict, panics);
    assert_eq!(verdict.name(), "panicked");
}

/// What the peer answers while the run goes on, and what is then said of it.
async fn timed_out(session: &Session) -> String {
    let since = tokio::time::Instant::now();
    let verdict = session.run_to_end(RUN).await;
    assert!(
        since.elapsed() < RUN + Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    assert_eq!((verdict.name(), verdict.exit_code()), ("timed-out", 124));
    verdict.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_a_verdict_also_where_nobody_answers() {
    let (session, _peer) = connected().await;
    let said = timed_out(&session).await;
    assert_eq!(
        said,
        "the run was not over after 60s: QEMU does not answer its monitor"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_during_another_operation() {
    let (session, mut peer) = connected().await;
    let patient = session.with_deadline(2 * RUN);
    let mut save = patient.save_snapshot("boot").into_future();
    tokio::select! {
        _ = &mut save => panic!("nobody has answered"),
        // It has its turn from here on.
        command = peer.hear() => assert_ne!(command.name, "cont"),
    }
    let said = timed_out(&session).await;
    assert!(
        said.ends_with(
            "another transaction of the session was not done, so the guest was not looked at"
        ),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_tells_what_it_can() {
    let (session, mut peer) = connected().await;
    for _ in 0..2 {
        peer.event("RESET", json!({ "guest": true, "reason": "guest-reset" }))
            .await;
    }
    let peer = tokio::spawn(peer.serve());
    let said = timed_out(&session).await;
    assert_eq!(
        said,
        "the run was not over after 60s: the guest is running; it reset itself 2 times"
    );
    peer.abort();
}

/// Dropped anywhere, it leaves a session in step.
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped() {
    let (session, peer) = connected().await;
    let peer = tokio::spawn(peer.serve());
    for millis in [0, 1, 59_999, 60_000, 60_001] {
        let _ = tokio::time::timeout(Duration::from_millis(millis), session.run_to_end(RUN)).await;
        session.query_status().await.unwrap();
    }
    peer.abort();
}
