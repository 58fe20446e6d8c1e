//! A session that has ended: each call says how, at once; and what the end must not wait for.

use std::io::ErrorKind;

use qemu_controller::{CommandError, GdbError, Session, SessionEnd, StopError};

use crate::peer::connected;

/// Each call on a session that has ended, in each way, says how, at once.
#[tokio::test(start_paused = true)]
async fn every_call_after_every_end() {
    for end in ["eof", "broken stream", "garbage"] {
        let (session, mut peer) = connected().await;
        match end {
            "eof" => peer.close(None),
            "broken stream" => peer.close(Some(ErrorKind::TimedOut)),
            _ => peer.say("'this is not JSON'").await,
        }
        let ended = session.ended().await;
        check_every_call(&session, &ended).await;
        // Nobody knows whether QEMU still runs: a relay may have gone, and not QEMU.
        let error = session.stop().await.unwrap_err();
        assert!(of_the_end(&error, &ended), "{end}: {error}");
    }
    let (session, _peer) = connected().await;
    session.detach().unwrap();
    assert!(matches!(session.ended().await, SessionEnd::Released));
    let released = session.query_status().await.unwrap_err();
    assert!(
        matches!(released.ended(), Some(SessionEnd::Released)),
        "{released}"
    );
    let error = session.stop().await.unwrap_err();
    assert!(of_the_end(&error, &SessionEnd::Released), "{error}");
}

fn of_the_end(error: &StopError, ended: &SessionEnd) -> bool {
    let StopError::Unheeded(error) = error else {
        return false;
    };
    error.ended().map(ToString::to_string) == Some(ended.to_string())
}

/// QEMU runs on, and was not even asked.
#[tokio::test(start_paused = true)]
async fn a_stop_that_waits_for_its_place_when_the_session_is_released() {
    let (session, mut peer) = connected().await;
    for _ in 0..8 {
        let session = session.clone();
        tokio::spawn(async move { session.query_cpus().await });
    }
    peer.hear_until(8).await;
    let stop = tokio::spawn({
        let session = session.clone();
        async move { session.stop().await }
    });
    tokio::task::yield_now().await;
    session.detach().unwrap();
    let error = stop.await.unwrap().unwrap_err();
    assert!(of_the_end(&error, &SessionEnd::Released), "{error}");
    assert!(peer.hear_or_end().await.is_none());
}

async fn check_every_call(session: &Session, ended: &SessionEnd) {
    let since = tokio::time::Instant::now();
    check(ended, session.query_status().await);
    check(ended, session.query_cpus().await);
    check(ended, session.pause().await);
    check(ended, session.resume().await);
    check(ended, session.reset().await);
    check(ended, session.powerdown().await);
    check(ended, session.human_monitor_command("info").await);
    check(ended, session.execute("anything", &()).await);
    check(ended, session.execute_oob("anything", &()).await);
    check(ended, session.wait_for_event("ANY", |_| true).await);
    for gdb in [session.check_gdb().await, session.probe_gdb().await] {
        let Err(GdbError::Command(error)) = gdb else {
            panic!("{gdb:?}")
        };
        check::<()>(ended, Err(error));
    }
    assert!(session.events().next().await.is_none());
    assert!(session.watch_run_state().changed().await.is_err());
    assert!(
        since.elapsed().is_zero(),
        "a call waited for a session that has ended"
    );
}

/// The call failed, and by the session's own end.
fn check<T>(ended: &SessionEnd, result: Result<T, CommandError>) {
    let Err(CommandError::Ended { ended: told, .. }) = result else {
        panic!("it did not say that the session has ended")
    };
    assert_eq!(told.to_string(), ended.to_string());
}

/// A relay may keep the stream open after QEMU has gone: stop does not wait for it for ever.
#[tokio::test(start_paused = true)]
async fn a_stream_that_stays_open_after_quit() {
    let (session, mut peer) = connected().await;
    let stop = tokio::spawn({
        let session = session.clone();
        async move { session.stop().await }
    });
    assert_eq!(peer.hear().await.name, "quit");
    peer.answer().await;
    let error = stop.await.unwrap().unwrap_err();
    assert!(matches!(error, StopError::Unheeded(_)), "{error}");
}

/// What is handed between tasks can be.
#[test]
fn handles_and_futures_are_send_and_sync() {
    fn send_and_sync<T: Send + Sync>() {}
    fn send<T: Send>(_: fn(&'static Session) -> T) {}
    send_and_sync::<Session>();
    send_and_sync::<qemu_controller::Serial>();
    send_and_sync::<CommandError>();
    send_and_sync::<qemu_controller::StartError>();
    send::<_>(|session| session.query_status());
    send::<_>(|session| session.reset());
    send::<_>(|session| session.stop());
    send::<_>(|session| session.ended());
    send::<_>(|session| session.probe_gdb());
}
