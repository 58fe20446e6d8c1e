//! Events: all of them, in order with the replies, to everybody; a slow subscriber learns what it missed.

use qemu_controller::{CommandError, Missed, RunState};
use serde_json::json;

use crate::peer::connected;

#[tokio::test(start_paused = true)]
async fn every_subscriber_sees_everything_from_its_first_moment() {
    let (session, mut peer) = connected().await;
    let mut early = session.events();
    peer.event("ONE", json!({})).await;
    assert_eq!(early.next().await.unwrap().unwrap().name, "ONE");
    let mut late = session.events();
    peer.event("TWO", json!({})).await;
    for events in [&mut early, &mut late] {
        assert_eq!(events.next().await.unwrap().unwrap().name, "TWO");
    }
    peer.close(None);
    for mut events in [early, late, session.events()] {
        assert!(events.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_learns_how_many_it_missed_and_slows_nobody() {
    let (session, mut peer) = connected().await;
    let mut slow = session.events();
    let mut quick = session.events();
    let reader = tokio::spawn(async move {
        for number in 0..3000 {
            let event = quick.next().await.unwrap().unwrap();
            assert_eq!(event.data.unwrap().as_str(), format!("{{\"number\":{number}}}"));
        }
    });
    for number in 0..3000 {
        peer.event("NUMBERED", json!({ "number": number })).await;
    }
    reader.await.unwrap();
    let Err(Missed(missed)) = slow.next().await.unwrap() else { panic!("it was slow") };
    let mut left = 0;
    while missed + left < 3000 {
        slow.next().await.unwrap().unwrap();
        left += 1;
    }
    assert_eq!(missed + left, 3000);
}

#[tokio::test(start_paused = true)]
async fn a_wait_begins_with_the_call_and_not_with_the_first_poll() {
    let (session, mut peer) = connected().await;
    let wanted = session.wait_for_event("WANTED", |event| event.name == "WANTED");
    peer.event("OTHER", json!({})).await;
    peer.event("WANTED", json!({ "it": 1 })).await;
    let served = tokio::spawn(peer.serve());
    session.query_status().await.unwrap();
    assert_eq!(wanted.await.unwrap().data.unwrap().as_str(), r#"{"it":1}"#);
    drop(session);
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_run_state_is_known_without_asking() {
    let (session, mut peer) = connected().await;
    let mut state = session.watch_run_state();
    assert_eq!(*state.borrow_and_update(), RunState::Running, "from the first query-status");
    for (name, data, expected) in [
        ("STOP", json!({}), RunState::Paused),
        ("RESET", json!({ "guest": false, "reason": "host-qmp-system-reset" }), RunState::Prelaunch),
        ("RESUME", json!({}), RunState::Running),
    ] {
        peer.event(name, data).await;
        state.changed().await.unwrap();
        assert_eq!(*state.borrow_and_update(), expected);
    }
    // An answer corrects what no event told.
    let asked = tokio::spawn({
        let session = session.clone();
        async move { session.query_status().await }
    });
    let command = peer.hear().await;
    peer.say(json!({ "return": { "status": "debug", "running": false }, "id": command.id }).to_string())
        .await;
    asked.await.unwrap().unwrap();
    assert_eq!(*state.borrow_and_update(), RunState::Debug);
    peer.close(None);
    assert!(state.changed().await.is_err());
    assert!(session.watch_run_state().changed().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_does_not_come_is_said_as_such() {
    let (session, mut peer) = connected().await;
    let error = session.wait_for_event("WANTED", |_| false).await.unwrap_err();
    assert_eq!(error.to_string(), "no event WANTED within 5s");
    // Too fast for one who is not polled meanwhile.
    let late = session.wait_for_event("WANTED", |event| event.name == "WANTED");
    for number in 0..2000 {
        peer.event("OTHER", json!({ "number": number })).await;
    }
    let error = late.await.unwrap_err();
    assert!(matches!(error, CommandError::NoEvent { missed: 900..2000, .. }), "{error}");
    assert!(error.to_string().contains("came too fast"), "{error}");
}
