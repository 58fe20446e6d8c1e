//! Each operation, dropped after each number of polls: the session stays in step.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use qemu_controller::Session;

use crate::peer::{GREETING, Peer, connected};
use test_support::drop_after;

type Operation = fn(&Session) -> Pin<Box<dyn Future<Output = ()> + '_>>;

const OPERATIONS: [(&str, Operation); 9] = [
    ("query_status", |session| {
        Box::pin(async { drop(session.query_status().await) })
    }),
    ("query_cpus", |session| {
        Box::pin(async { drop(session.query_cpus().await) })
    }),
    ("pause", |session| {
        Box::pin(async { drop(session.pause().await) })
    }),
    ("resume", |session| {
        Box::pin(async { drop(session.resume().await) })
    }),
    ("reset", |session| {
        Box::pin(async { drop(session.reset().await) })
    }),
    ("human_monitor_command", |session| {
        Box::pin(async { drop(session.human_monitor_command("info").await) })
    }),
    ("execute", |session| {
        Box::pin(async { drop(session.execute("anything", &()).await) })
    }),
    ("execute_oob", |session| {
        Box::pin(async { drop(session.execute_oob("anything", &()).await) })
    }),
    ("wait_for_event", |session| {
        Box::pin(async { drop(session.wait_for_event("STOP", |_| true).await) })
    }),
];

#[tokio::test(start_paused = true)]
async fn any_future_after_any_number_of_polls() {
    for (name, operation) in OPERATIONS {
        for polls in 0..8 {
            let (session, peer) = connected().await;
            let served = tokio::spawn(peer.serve());
            // More often than there are places: what was given up must give its place back.
            let mut dropped = 0;
            for _ in 0..20 {
                dropped += usize::from(!drop_after(polls, operation(&session)).await);
            }
            // All need an answer that is not there yet at the first poll.
            assert!(
                polls > 1 || dropped == 20,
                "{name}: {dropped} of 20 were dropped after {polls} polls"
            );
            check_in_step(&session, name, polls).await;
            drop(session);
            served.await.unwrap();
        }
    }
}

/// Those that wait for a place, because eight others are unanswered.
#[tokio::test(start_paused = true)]
async fn a_queued_future_after_any_number_of_polls() {
    for (name, operation) in OPERATIONS {
        for polls in 0..4 {
            let (session, mut peer) = connected().await;
            let held: Vec<_> = (0..8)
                .map(|_| {
                    let session = session.clone();
                    tokio::spawn(async move { session.query_cpus().await })
                })
                .collect();
            peer.hear_until(8).await;
            for _ in 0..20 {
                let mut future = operation(&session);
                for _ in 0..polls {
                    let polled = future
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()));
                    assert!(polled.is_pending(), "{name} went ahead of eight others");
                }
            }
            let served = tokio::spawn(peer.serve());
            for call in held {
                call.await.unwrap().unwrap();
            }
            check_in_step(&session, name, polls).await;
            drop(session);
            served.await.unwrap();
        }
    }
}

/// A session that is dropped while it begins closes its stream, and nothing panics.
#[tokio::test(start_paused = true)]
async fn the_beginning_after_any_number_of_polls() {
    for polls in 0..8 {
        let (mut peer, session) = Peer::new();
        let served = tokio::spawn(async move {
            peer.say(GREETING).await;
            peer.serve().await;
        });
        drop_after(polls, session).await;
        served.await.unwrap();
    }
}

async fn check_in_step(session: &Session, name: &str, polls: usize) {
    let version = session
        .execute("query-version", &())
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let version: serde_json::Value = version.parse().unwrap();
    assert_eq!(version["qemu"]["major"], 7, "{name} after {polls} polls");
}
