//! Futures of saves and loads that are dropped after any number of polls: what was begun is
//! finished, nothing is left half-way.

use std::future::IntoFuture as _;
use std::time::Duration;

use qemu_controller::{CommandError, Session, SnapshotError, WaitPhase};
use rustix::process::Signal;

use super::check_put_back;
use crate::support::{Held, config, counts, start};
use test_support::drop_after;

#[tokio::test]
async fn the_session_stays_in_step() {
    let session = start("tick").await;
    session.save_snapshot("kept").await.unwrap();
    let (mut saved, mut finished) = (0, 0);
    for polls in 0..6 {
        for turn in 0..5 {
            let name = format!("{polls}-{turn}");
            finished +=
                usize::from(drop_after(polls, session.save_snapshot(&name).into_future()).await);
            // The next transaction waits for the one that was dropped.
            let list = session.list_snapshots().await.unwrap();
            let begun = list.iter().any(|snapshot| snapshot.name == name);
            assert_eq!(begun, polls > 0, "{name}");
            saved += usize::from(begun);
            assert!(session.query_status().await.unwrap().running);
            finished +=
                usize::from(drop_after(polls, session.load_snapshot("kept").into_future()).await);
            finished += usize::from(drop_after(polls, session.delete_snapshot(&name)).await);
            drop_after(polls, session.list_snapshots()).await;
            check_put_back(&session).await;
        }
    }
    assert!(
        saved == 25 && finished < 75,
        "{saved} saved, {finished} futures were ready before they were dropped"
    );
    let list = session.list_snapshots().await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    session.load_snapshot("kept").await.unwrap();
    assert!(counts(&session).await);
}

/// At its deadline the caller gets an error; when QEMU comes back, what was begun is finished.
#[tokio::test]
async fn a_qemu_that_hears_nothing_for_a_while() {
    let session = start("tick").await;
    session.save_snapshot("first").await.unwrap();
    let qemu = Held::of(session.pid().unwrap());
    qemu.signal(Signal::STOP).await;
    let hasty = session.with_deadline(Duration::from_millis(50));
    for (name, expected) in [("second", WaitPhase::Sent), ("third", WaitPhase::Queued)] {
        let error = hasty.save_snapshot(name).await.unwrap_err();
        let late = matches!(&error, SnapshotError::Command(CommandError::Deadline { phase, .. }) if *phase == expected);
        assert!(late, "{name}: {error:?}");
    }
    qemu.signal(Signal::CONT).await;
    let names: Vec<_> = session
        .list_snapshots()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["first", "second"]);
    check_put_back(&session).await;
    assert!(counts(&session).await);
}

/// QEMU ends with the last handle, in the middle of a save too.
#[tokio::test]
async fn the_last_handle_dropped_in_the_middle() {
    for polls in 1..4 {
        let session = Session::start(config("tick")).await.unwrap();
        let qemu = Held::of(session.pid().unwrap());
        drop_after(polls, session.save_snapshot("boot").into_future()).await;
        drop(session);
        qemu.reaped().await;
    }
}

/// The runtime that drove the session is gone, and with it what was to finish a transaction.
#[test]
fn from_another_runtime() {
    let first = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let second = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let session = first.block_on(start("tick"));
    second.block_on(async {
        session.save_snapshot("boot").await.unwrap();
        session.load_snapshot("boot").await.unwrap();
    });
    drop(first);
    let error = second
        .block_on(session.load_snapshot("boot").into_future())
        .unwrap_err();
    assert!(
        matches!(
            error.ended(),
            Some(qemu_controller::SessionEnd::RuntimeGone)
        ),
        "{error:?}"
    );
}
