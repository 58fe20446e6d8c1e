//! Forks that fail, or that nobody waits for: nothing is left of them, and the parent goes on.

use std::time::Duration;

use qemu_controller::qemu_launch::{Backend, Drive};
use qemu_controller::{
    Endpoint, QemuConfig, Session, SessionEnd, SnapshotError, StartError, StateError,
};
use rustix::process::Signal;

use super::{Named, next_tick};
use crate::snapshots::check_put_back;
use crate::support::{Held, chain, config, counts, exists, start, until};
use test_support::drop_after;

#[tokio::test]
async fn dropped_after_any_number_of_polls() {
    let parent = Named::start(|config| config).await;
    let mut ready = 0;
    for polls in 0..8 {
        ready += usize::from(drop_after(polls, parent.session.fork(3)).await);
        drop_after(polls, parent.session.save_state()).await;
        parent.check_alone().await;
        check_put_back(&parent.session).await;
    }
    assert!(ready < 8);
    let state = parent.session.save_state().await.unwrap();
    for polls in 0..40 {
        let config = parent.config();
        drop_after(polls, Session::start_from(config, &state)).await;
    }
    parent.check_alone().await;
    let forks = parent.session.fork(2).await.unwrap();
    assert!(counts(&forks[1]).await && counts(&parent.session).await);
}

#[tokio::test]
async fn the_parent_is_killed_meanwhile() {
    let parent = Named::start(|config| config).await;
    let qemu = Held::of(parent.session.pid().unwrap());
    qemu.signal(Signal::STOP).await;
    let (forks, ()) = tokio::join!(parent.session.fork(2), async {
        tokio::task::yield_now().await;
        qemu.signal(Signal::KILL).await;
    });
    let error = forks.unwrap_err();
    let StateError::Save(saved) = &error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(saved.ended(), Some(SessionEnd::Exited(_))),
        "{error:?}"
    );
    until("no QEMU", || parent.qemus().is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_parent_hears_nothing() {
    let parent = start("tick").await;
    let qemu = Held::of(parent.pid().unwrap());
    qemu.signal(Signal::STOP).await;
    let error = parent
        .with_deadline(Duration::from_millis(50))
        .fork(1)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no answer to snapshot-save within 50ms"),
        "{error}"
    );
    qemu.signal(Signal::CONT).await;
    // What was begun is finished first.
    let forks = parent.fork(1).await.unwrap();
    check_put_back(&parent).await;
    assert!(counts(&parent).await && counts(&forks[0]).await);
}

#[tokio::test]
async fn a_fork_that_is_stopped_runs_into_its_deadline() {
    let parent = Named::start(|config| config.start_deadline(Duration::from_secs(10))).await;
    let own = parent.session.pid().unwrap();
    let (forks, fork) = tokio::join!(parent.session.fork(1), async {
        let fork = until("the fork", || {
            parent.qemus().into_iter().find(|&pid| pid != own)
        })
        .await;
        Held::of(fork).signal(Signal::STOP).await;
        fork
    });
    let error = forks.unwrap_err();
    let StateError::Fork {
        number: 1,
        count: 1,
        error: cause,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(
        matches!(**cause, StartError::Deadline { .. }),
        "{}",
        chain(&error)
    );
    assert!(!exists(fork) || parent.qemus() == [own]);
    parent.check_alone().await;
    assert!(counts(&parent.session).await);
}

#[tokio::test]
async fn disks_that_the_guest_writes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, [0; 65536]).unwrap();
    let with = |drive: Drive| config("tick").with_spec(|spec| spec.drive(drive));
    let parent = Session::start(with(Drive::raw("none", &disk).property("id", "flash")))
        .await
        .unwrap();
    let error = parent.fork(1).await.unwrap_err();
    let StateError::Disks { disks } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(disks, &["flash"]);
    assert!(counts(&parent).await);
    parent.stop().await.unwrap();
    let parent = Session::start(with(Drive::raw("sd", &disk))).await.unwrap();
    let error = parent.fork(1).await.unwrap_err();
    assert!(
        matches!(
            &error,
            StateError::Save(SnapshotError::CardWithMedium { .. })
        ),
        "{error:?}"
    );
    assert!(counts(&parent).await);
    parent.stop().await.unwrap();
    let read_only = Drive::raw("none", &disk)
        .property("id", "rom")
        .property("readonly", "on");
    let parent = Session::start(with(read_only)).await.unwrap();
    assert!(counts(&parent.fork(1).await.unwrap()[0]).await);
}

#[tokio::test]
async fn a_file_that_both_would_write_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uart1");
    let to_file = |config: QemuConfig| {
        config.with_spec(|spec| {
            spec.serial(Backend::File {
                path: path.clone(),
                append: false,
            })
        })
    };
    let parent = Session::start(to_file(config("tick")).gdb(Endpoint::free_port()))
        .await
        .unwrap();
    let error = parent.fork(1).await.unwrap_err();
    assert!(matches!(error, StateError::Conflict(_)), "{error:?}");
    assert!(chain(&error).contains("uart1"), "{}", chain(&error));
    assert!(next_tick(&parent).await > 0);
}
