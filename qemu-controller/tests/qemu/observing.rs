//! What can be known of a session beside its answers: run state, transcript, QEMU's whole typed
//! API.

use qemu_controller::{Events, MissedEvents, RunState, Session};
use qmp_proto::transcript::{Speaker, lines, server_bytes};
use qmp_proto::{Codec, Limits, ServerMessage};

use crate::support::{config, start};
use test_support::Collected;

#[tokio::test]
async fn the_run_state_follows() {
    let session = Session::start(config("tick").wait_for_gdb(true))
        .await
        .unwrap();
    let mut state = session.watch_run_state();
    assert_eq!(*state.borrow_and_update(), RunState::Prelaunch);
    session.resume().await.unwrap();
    assert_eq!(*state.borrow_and_update(), RunState::Running);
    session.pause().await.unwrap();
    assert_eq!(*state.borrow_and_update(), RunState::Paused);
    session.reset().await.unwrap();
    assert_eq!(*state.borrow_and_update(), RunState::Prelaunch);
    session.stop().await.unwrap();
    assert_eq!(*state.borrow_and_update(), RunState::Shutdown);
    assert!(state.changed().await.is_err());
}

#[tokio::test]
async fn the_transcript_has_the_whole_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.qmp");
    let session = Session::start(config("tick").qmp_transcript(&path))
        .await
        .unwrap();
    session.pause().await.unwrap();
    session.stop().await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let sent: Vec<_> = lines(&text)
        .map(Result::unwrap)
        .filter(|line| line.speaker == Speaker::Client)
        .map(|line| line.text)
        .collect();
    let expected = [
        "qmp_capabilities",
        "query-status",
        "query-chardev",
        "cont",
        "stop",
        "quit",
    ];
    for (command, line) in expected.iter().zip(&sent) {
        assert!(
            line.contains(&format!("\"execute\":\"{command}\"")),
            "{line}"
        );
    }
    assert_eq!(sent.len(), 6, "{text}");

    let mut codec = Codec::new(Limits::default());
    codec.feed(&server_bytes(&text).unwrap());
    let mut events = Vec::new();
    while let Some(message) = codec.next_message().unwrap() {
        if let ServerMessage::Event(event) = message {
            events.push(event.name);
        }
    }
    assert_eq!(events, ["RESUME", "STOP", "SHUTDOWN"]);
}

/// How many events come until the guest stops, those that were missed included; and how many those
/// are.
async fn count_until_stopped(events: &mut Events) -> (u64, u64) {
    let (mut count, mut missed) = (0, 0);
    loop {
        match events.next().await.unwrap() {
            Ok(event) if event.name == "STOP" => return (count + missed, missed),
            Ok(_) => count += 1,
            Err(MissedEvents(more)) => missed += more,
        }
    }
}

#[tokio::test]
async fn an_event_flood_that_is_read_late_slows_nobody() {
    let session = Session::start(config("reset-request").wait_for_gdb(true))
        .await
        .unwrap();
    let (mut late, mut quick, never) = (session.events(), session.events(), session.events());
    session.resume().await.unwrap();
    let mut seen = 0;
    while seen < 3000 {
        seen += quick
            .next()
            .await
            .unwrap()
            .map_or_else(|MissedEvents(missed)| missed, |_| 1);
        if seen % 100 == 0 {
            assert!(session.query_status().await.unwrap().running);
        }
    }
    session.pause().await.unwrap();
    let (rest, _) = count_until_stopped(&mut quick).await;
    let (total, missed) = count_until_stopped(&mut late).await;
    assert_eq!(total, seen + rest, "every event was seen or counted");
    // All of them fit into what waits for a subscriber, unless this test was held up for seconds.
    assert!(missed == 0 || total > 20_000, "{missed} of {total}");
    session.stop().await.unwrap();
    drop(never);
}

#[cfg(feature = "qapi")]
#[tokio::test]
async fn typed_commands_of_the_crate_qapi_qmp() {
    use qemu_controller::qapi_qmp;
    let session = start("tick").await;
    assert!(
        session
            .qapi(&qapi_qmp::query_status {})
            .await
            .unwrap()
            .running
    );
    assert_eq!(
        session.qapi(&qapi_qmp::query_target {}).await.unwrap().arch,
        qapi_qmp::SysEmuTarget::arm
    );
    session.qapi(&qapi_qmp::stop {}).await.unwrap();
    assert!(!session.query_status().await.unwrap().running);
}

#[tokio::test]
async fn a_start_and_a_stop_are_traced() {
    let (collected, _guard) = Collected::begin();
    let session = start("tick").await;
    let pid = format!("pid={}", session.pid().unwrap());
    let argv = collected.line_with(&["INFO", "QEMU started", &pid, "argv="]);
    assert!(argv.contains("-kernel"), "{argv}");
    collected.line_with(&["INFO", "session ready", &pid, "took="]);
    session.stop().await.unwrap();
    collected.line_with(&["DEBUG", &pid, "name=\"quit\"", "sent"]);
    collected.line_with(&["DEBUG", &pid, "event=SHUTDOWN"]);
    collected.line_with(&["INFO", &pid, "session ended", "ended="]);
}
