//! Events: all of them, in order with the replies, to everybody; a slow subscriber learns what it
//! missed.

use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::net::UnixStream;

use qemu_controller::{CommandError, EVENT_BACKLOG_BYTES, MissedEvents, RunState, Session};
use serde_json::{Value, json};

use crate::peer::{DEADLINE, GREETING, connected};

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

/// More than can wait for one subscriber.
const TOO_MANY: u64 = 300;

/// One of so many that are too many.
fn large(number: u64) -> Value {
    json!({ "number": number, "padding": "x".repeat(2 * EVENT_BACKLOG_BYTES / TOO_MANY as usize) })
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_learns_how_many_it_missed_and_slows_nobody() {
    let (session, mut peer) = connected().await;
    let mut slow = session.events();
    let mut quick = session.events();
    let reader = tokio::spawn(async move {
        for number in 0..TOO_MANY {
            let event = quick.next().await.unwrap().unwrap();
            assert_eq!(event.parse_data::<Value>().unwrap()["number"], number);
        }
    });
    for number in 0..TOO_MANY {
        peer.event("NUMBERED", large(number)).await;
    }
    reader.await.unwrap();
    let Err(MissedEvents(missed)) = slow.next().await.unwrap() else {
        panic!("it was slow")
    };
    for number in missed..TOO_MANY {
        let event = slow.next().await.unwrap().unwrap();
        assert_eq!(event.parse_data::<Value>().unwrap()["number"], number);
    }
}

/// Sends so many events as fast as the socket takes them, and then the answer to the first command.
fn flood(stream: UnixStream, count: usize) {
    (&stream).write_all(GREETING.as_bytes()).unwrap();
    let mut heard =
        serde_json::Deserializer::from_reader(BufReader::new(stream.try_clone().unwrap()))
            .into_iter::<Value>();
    for result in [json!({}), json!({ "status": "running", "running": true })] {
        let command = heard.next().unwrap().unwrap();
        let answer = json!({ "return": result, "id": command["id"] });
        (&stream).write_all(answer.to_string().as_bytes()).unwrap();
    }
    let command = heard.next().unwrap().unwrap();
    let mut writer = BufWriter::with_capacity(128 * 1024, &stream);
    for number in 0..count {
        write!(writer, r#"{{"event": "NUMBERED", "data": {number}}}"#).unwrap();
    }
    write!(writer, "{}", json!({ "return": {}, "id": command["id"] })).unwrap();
    writer.flush().unwrap();
}

/// One thread for the driver and the subscriber, which is the task that `block_on` itself runs or
/// another one.
#[test]
fn who_keeps_up_misses_nothing_in_a_flood() {
    const COUNT: usize = 200_000;
    for spawned in [false, true] {
        let (client, server) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || flood(server, COUNT));
        client.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(client).unwrap();
            let session = Session::attach_stream(stream, DEADLINE)
                .await
                .unwrap()
                .with_deadline(10 * DEADLINE);
            let mut events = session.events();
            let reader = async move {
                for number in 0..COUNT {
                    let event = events.next().await.unwrap().unwrap();
                    assert_eq!(event.parse_data::<usize>().unwrap(), number);
                }
                events
            };
            let asking = tokio::spawn({
                let session = session.clone();
                async move { session.execute("flood", &()).await }
            });
            let mut events = if spawned {
                tokio::spawn(reader).await.unwrap()
            } else {
                reader.await
            };
            asking.await.unwrap().unwrap();
            drop(session);
            assert!(events.next().await.is_none());
        });
        server.join().unwrap();
    }
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
    assert_eq!(
        *state.borrow_and_update(),
        RunState::Running,
        "from the first query-status"
    );
    for (name, data, expected) in [
        ("STOP", json!({}), RunState::Paused),
        (
            "RESET",
            json!({ "guest": false, "reason": "host-qmp-system-reset" }),
            RunState::Prelaunch,
        ),
        ("RESUME", json!({}), RunState::Running),
    ] {
        peer.event(name, data).await;
        state.changed().await.unwrap();
        assert_eq!(*state.borrow_and_update(), expected);
    }
    // An answer corrects what no event said.
    let asked = tokio::spawn({
        let session = session.clone();
        async move { session.query_status().await }
    });
    let command = peer.hear().await;
    peer.reply(&command, json!({ "status": "debug", "running": false }))
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
    let error = session
        .wait_for_event("WANTED", |_| false)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no event WANTED within 5s");
    // Too fast for one who is not polled meanwhile.
    let late = session.wait_for_event("WANTED", |event| event.name == "WANTED");
    for number in 0..TOO_MANY {
        peer.event("OTHER", large(number)).await;
    }
    let error = late.await.unwrap_err();
    assert!(
        matches!(
            error,
            CommandError::NoEvent {
                missed: 1..TOO_MANY,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("came too fast"), "{error}");
}
