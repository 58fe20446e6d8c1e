//! Futures that are dropped after any number of polls leave the session in step.

use std::time::Duration;

use qemu_controller::{CommandError, WaitPhase};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::start;
use test_support::drop_after;

#[tokio::test]
async fn the_session_stays_in_step() {
    let session = start("tick").await;
    for polls in 0..6 {
        for _ in 0..20 {
            drop_after(polls, session.query_status()).await;
            drop_after(polls, session.query_cpus()).await;
            drop_after(polls, session.pause()).await;
            drop_after(polls, session.resume()).await;
            drop_after(polls, session.reset()).await;
        }
        assert_eq!(session.query_cpus().await.unwrap().len(), 1);
        let version: serde_json::Value = session
            .execute("query-version", &())
            .await
            .unwrap()
            .parse()
            .unwrap();
        assert!(version["qemu"].is_object());
    }
    session.resume().await.unwrap();
    assert!(session.query_status().await.unwrap().running);
}

#[tokio::test]
async fn a_qemu_that_hears_nothing_runs_into_each_deadline_and_is_in_step_afterwards() {
    let session = start("tick").await;
    let pid = Pid::from_raw(session.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let hasty = session.with_deadline(Duration::from_millis(20));
    for number in 0..12 {
        let error = hasty.query_status().await.unwrap_err();
        // Eight are with QEMU; the others wait for a place.
        let expected = if number < 8 {
            WaitPhase::Sent
        } else {
            WaitPhase::Queued
        };
        assert!(
            matches!(error, CommandError::Deadline { phase, .. } if phase == expected),
            "{number}: {error}"
        );
    }
    kill_process(pid, Signal::CONT).unwrap();
    assert!(session.query_status().await.unwrap().running);
    assert_eq!(session.query_cpus().await.unwrap().len(), 1);
}
