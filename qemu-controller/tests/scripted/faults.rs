//! Each fault in each phase: who waits gets the right error, and what can go on goes on.

use std::io::ErrorKind;
use std::sync::Arc;

use qemu_controller::{CommandError, Session, SessionEnd, StartError, StopError};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::peer::{DEADLINE, GREETING, Peer, connected};

/// What the peer does instead of what it should.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Eof,
    Reset,
    BrokenStream,
    Stall,
    Garbage,
    Oversize,
    StaleId,
    WrongId,
    Flood,
}

const FAULTS: [Fault; 9] = [
    Fault::Eof,
    Fault::Reset,
    Fault::BrokenStream,
    Fault::Stall,
    Fault::Garbage,
    Fault::Oversize,
    Fault::StaleId,
    Fault::WrongId,
    Fault::Flood,
];

/// What the session is at when it happens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Greeting,
    /// Together with the greeting, before anything was sent.
    Greeted,
    Capabilities,
    /// Together with the answer to `qmp_capabilities`.
    Negotiated,
    FirstStatus,
    Idle,
    InFlight,
    Pipeline,
    OutOfBand,
    Abandoned,
    Event,
    Effect,
    Stopping,
    MidMessage,
}

const BEFORE_READY: [Phase; 5] = [
    Phase::Greeting,
    Phase::Greeted,
    Phase::Capabilities,
    Phase::Negotiated,
    Phase::FirstStatus,
];

const WHEN_READY: [Phase; 9] = [
    Phase::Idle,
    Phase::InFlight,
    Phase::Pipeline,
    Phase::OutOfBand,
    Phase::Abandoned,
    Phase::Event,
    Phase::Effect,
    Phase::Stopping,
    Phase::MidMessage,
];

/// How a fault ends.
#[derive(Debug, PartialEq)]
enum Outcome {
    GoesOn,
    Deadline,
    Closed,
    Io,
    Protocol,
}

impl Outcome {
    fn of(fault: Fault, phase: Phase) -> Self {
        match fault {
            // The stream ended inside a message.
            Fault::Eof | Fault::Reset if phase == Phase::MidMessage => Self::Protocol,
            Fault::Eof | Fault::Reset => Self::Closed,
            Fault::BrokenStream if phase == Phase::MidMessage => Self::Protocol,
            Fault::BrokenStream => Self::Io,
            Fault::Stall => Self::Deadline,
            Fault::Garbage | Fault::Oversize => Self::Protocol,
            // The peer goes on, reads `quit`, and closes the stream.
            Fault::StaleId | Fault::WrongId | Fault::Flood if phase == Phase::Stopping => {
                Self::Closed
            }
            Fault::StaleId | Fault::WrongId | Fault::Flood => Self::GoesOn,
        }
    }

    fn of_end(ended: &SessionEnd) -> Self {
        match ended {
            SessionEnd::Closed => Self::Closed,
            SessionEnd::Io(_) => Self::Io,
            SessionEnd::Protocol(_) => Self::Protocol,
            other => panic!("unexpected end: {other}"),
        }
    }

    fn of_command<T>(result: &Result<T, CommandError>) -> Self {
        match result {
            Ok(_) => Self::GoesOn,
            Err(CommandError::Deadline { .. } | CommandError::NoEvent { .. }) => Self::Deadline,
            Err(CommandError::Ended { ended, .. }) => Self::of_end(ended),
            Err(other) => panic!("unexpected error: {other}"),
        }
    }
}

/// Commits the fault; gives the peer back if it still has a stream.
async fn commit(mut peer: Peer, fault: Fault) -> Option<Peer> {
    match fault {
        Fault::Eof => peer.close(None),
        Fault::Reset => peer.close(Some(ErrorKind::ConnectionReset)),
        Fault::BrokenStream => peer.close(Some(ErrorKind::TimedOut)),
        Fault::Stall => return Some(peer),
        Fault::Garbage => {
            peer.say("'this is not JSON'").await;
            return Some(peer);
        }
        Fault::Oversize => {
            peer.say("{\"event\": \"").await;
            let text = "x".repeat(64 * 1024);
            for _ in 0..161 {
                peer.say(&text).await;
            }
            return Some(peer);
        }
        Fault::StaleId => {
            peer.say(json!({ "return": { "stale": true }, "id": "00000000-1" }).to_string())
                .await;
            return Some(peer);
        }
        Fault::WrongId => {
            for id in [json!(1), json!(null), json!({}), json!("something else")] {
                peer.say(
                    json!({ "error": { "class": "GenericError", "desc": "?" }, "id": id })
                        .to_string(),
                )
                .await;
            }
            return Some(peer);
        }
        Fault::Flood => {
            for number in 0..5000 {
                peer.event("NOTHING_MUCH", json!({ "number": number }))
                    .await;
            }
            return Some(peer);
        }
    }
    None
}

/// Whatever is still to be said and done by a peer that goes on.
fn recover(peer: Option<Peer>, phase: Phase) {
    if let Some(mut peer) = peer {
        tokio::spawn(async move {
            match phase {
                Phase::Greeting => {
                    peer.say(GREETING).await;
                }
                Phase::Event => peer.event("AT_LAST", json!({})).await,
                Phase::Effect => {
                    peer.event("RESET", json!({ "guest": false })).await;
                }
                _ => {}
            }
            peer.serve().await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_session_is_ready() {
    for phase in BEFORE_READY {
        for fault in FAULTS {
            let (mut peer, session) = Peer::new();
            let session = tokio::spawn(session);
            if phase != Phase::Greeting {
                peer.say(GREETING).await;
            }
            if matches!(
                phase,
                Phase::Capabilities | Phase::Negotiated | Phase::FirstStatus
            ) {
                peer.hear().await;
            }
            if matches!(phase, Phase::Negotiated | Phase::FirstStatus) {
                peer.answer().await;
            }
            if phase == Phase::FirstStatus {
                peer.hear().await;
            }
            let peer = commit(peer, fault).await;
            let expected = Outcome::of(fault, phase);
            // A stalled peer stays so until the deadline; time is paused and jumps there.
            let stalled = if fault == Fault::Stall {
                peer
            } else {
                recover(peer, phase);
                None
            };
            let outcome = match session.await.unwrap() {
                Ok(session) => Outcome::of_command(&session.query_status().await),
                Err(StartError::Deadline { .. }) => Outcome::Deadline,
                Err(StartError::Ended { end, .. }) => Outcome::of_end(&end),
                Err(other) => panic!("{phase:?}, {fault:?}: {other}"),
            };
            assert_eq!(outcome, expected, "{phase:?}, {fault:?}");
            drop(stalled);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_session_is_ready() {
    for phase in WHEN_READY {
        for fault in FAULTS {
            let (session, mut peer) = connected().await;
            let mut events = session.events();
            let waiter = enter(phase, &session, &mut peer).await;
            let peer = commit(peer, fault).await;
            let expected = Outcome::of(fault, phase);
            let peer = if fault == Fault::Stall {
                peer
            } else {
                if phase == Phase::MidMessage && expected == Outcome::GoesOn {
                    // What came inside a message cannot have been a message of its own.
                    continue;
                }
                recover(peer, phase);
                None
            };
            let outcome = waiter.await.unwrap();
            assert_eq!(outcome, expected, "{phase:?}, {fault:?}");
            after(phase, &session, expected, peer).await;
            if session_is_over(&session).await {
                while events.next().await.is_some() {}
            }
        }
    }
}

/// Brings a session to a phase; the task ends with what became of whoever waits in it.
async fn enter(phase: Phase, session: &Session, peer: &mut Peer) -> JoinHandle<Outcome> {
    let held = session.clone();
    match phase {
        Phase::Idle => tokio::spawn(async move { Outcome::of_command(&held.query_status().await) }),
        Phase::InFlight | Phase::MidMessage => {
            let waiter =
                tokio::spawn(async move { Outcome::of_command(&held.query_status().await) });
            peer.hear().await;
            if phase == Phase::MidMessage {
                peer.say(r#"{"return": {"status": "#).await;
            }
            waiter
        }
        Phase::Pipeline => {
            // Eight go out, four wait for a place: all share one fate.
            let calls: Vec<_> = (0..12)
                .map(|_| {
                    let session = session.clone();
                    tokio::spawn(async move { Outcome::of_command(&session.query_status().await) })
                })
                .collect();
            peer.hear_until(8).await;
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                for call in calls {
                    outcomes.push(call.await.unwrap());
                }
                outcomes.dedup();
                assert_eq!(outcomes.len(), 1, "{outcomes:?}");
                outcomes.remove(0)
            })
        }
        Phase::OutOfBand => {
            let waiter =
                tokio::spawn(
                    async move { Outcome::of_command(&held.execute_oob("x-oob", &()).await) },
                );
            assert!(peer.hear().await.oob);
            waiter
        }
        Phase::Abandoned => {
            let call = tokio::spawn({
                let session = session.clone();
                async move { session.query_status().await }
            });
            peer.hear().await;
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
            tokio::spawn(async move { Outcome::of_command(&held.query_status().await) })
        }
        Phase::Event => {
            let event = held.wait_for_event("AT_LAST", |event| event.name == "AT_LAST");
            tokio::spawn(async move { Outcome::of_command(&event.await) })
        }
        Phase::Effect => {
            let waiter = tokio::spawn(async move { Outcome::of_command(&held.reset().await) });
            let command = peer.hear().await;
            peer.unanswered.clear();
            peer.reply(&command, json!({})).await;
            waiter
        }
        Phase::Stopping => {
            let waiter = tokio::spawn(async move {
                match held.stop().await {
                    // A stream that ends is how `quit` is answered.
                    Ok(_) => match held.ended().await {
                        SessionEnd::Closed => Outcome::Closed,
                        other => Outcome::of_end(&other),
                    },
                    Err(StopError::Unheeded(error)) => {
                        Outcome::of_command::<()>(&Err(Arc::into_inner(error).unwrap()))
                    }
                    Err(other) => panic!("{other}"),
                }
            });
            assert_eq!(peer.hear().await.name, "quit");
            waiter
        }
        _ => unreachable!("not ready"),
    }
}

/// The session answers afterwards if it should, and says how it ended if not.
async fn after(phase: Phase, session: &Session, outcome: Outcome, stalled: Option<Peer>) {
    match outcome {
        Outcome::GoesOn => assert!(session.query_status().await.unwrap().running),
        Outcome::Deadline => {
            // The late answers are swallowed, and the session is in step.
            let quits = phase == Phase::Stopping;
            if phase == Phase::MidMessage {
                return;
            }
            recover(stalled, Phase::Idle);
            let status = session.query_status().await;
            assert_eq!(status.is_err(), quits, "{status:?}");
        }
        ended => {
            assert_eq!(Outcome::of_command(&session.query_status().await), ended);
            assert_eq!(Outcome::of_end(&session.ended().await), ended);
        }
    }
}

async fn session_is_over(session: &Session) -> bool {
    tokio::time::timeout(DEADLINE, session.ended())
        .await
        .is_ok()
}

/// QEMU is well and says nothing of it, so nobody else would.
#[tokio::test(start_paused = true)]
async fn a_write_that_fails_here_ends_the_session_with_the_reason() {
    let (session, peer) = connected().await;
    peer.fail_writes(ErrorKind::OutOfMemory);
    let error = session.query_status().await.unwrap_err();
    let CommandError::Ended {
        ended: SessionEnd::Io(reason),
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(reason.kind(), ErrorKind::OutOfMemory);
    assert!(matches!(session.ended().await, SessionEnd::Io(_)));
    drop(peer);
}
