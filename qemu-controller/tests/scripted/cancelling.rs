//! Each operation, dropped after each number of polls: the session stays in step.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use qemu_controller::Session;

use crate::peer::connected;

type Operation = fn(&Session) -> Pin<Box<dyn Future<Output = ()> + '_>>;

const OPERATIONS: [(&str, Operation); 9] = [
    ("query_status", |session| {
        Box::pin(async { drop(session.query_status().await) })
    }),
    ("query_cpus", |session| {
        Box::pin(async { drop(session.query_cpus().await) })
    }),
    ("pause", |session| Box::pin(async { drop(session.pause().await) })),
    ("resume", |session| {
        Box::pin(async { drop(session.resume().await) })
    }),
    ("reset", |session| Box::pin(async { drop(session.reset().await) })),
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
    let mut dropped = 0;
    for (name, operation) in OPERATIONS {
        for polls in 0..8 {
            let (session, peer) = connected().await;
            let served = tokio::spawn(peer.serve());
            // More often than there are places: what was given up must give its place back.
            for _ in 0..20 {
                let mut future = operation(&session);
                let mut left = polls;
                let finished = poll_fn(|cx| {
                    if left == 0 {
                        return Poll::Ready(false);
                    }
                    left -= 1;
                    future.as_mut().poll(cx).map(|()| true)
                });
                dropped += usize::from(!finished.await);
            }
            let version: serde_json::Value = session
                .execute("query-version", &())
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"))
                .parse()
                .unwrap();
            assert_eq!(version["qemu"]["major"], 7, "{name} after {polls} polls");
            drop(session);
            served.await.unwrap();
        }
    }
    assert!(
        dropped > OPERATIONS.len() * 20,
        "only {dropped} were dropped before their end"
    );
}
