//! Names, lists, overwriting, run states: what the verbs say and leave behind.

use qemu_controller::{AfterLoad, RunState, Session, SnapshotError};

use super::{check_put_back, disk};
use crate::support::{chain, config, counter, counts, start};

#[tokio::test]
async fn a_bare_elf_on_the_default_board() {
    let session = start("tick").await;
    assert_eq!(session.list_snapshots().await.unwrap(), []);
    assert!(counts(&session).await);
    session.save_snapshot("boot").await.unwrap();
    assert!(session.query_status().await.unwrap().running);
    session
        .load_snapshot("boot")
        .then(AfterLoad::Paused)
        .await
        .unwrap();
    let saved = counter(&session).await;
    session
        .load_snapshot("boot")
        .then(AfterLoad::AsSaved)
        .await
        .unwrap();
    assert!(counts(&session).await);
    session
        .load_snapshot("boot")
        .then(AfterLoad::Paused)
        .await
        .unwrap();
    assert_eq!(counter(&session).await, saved);
    let list = session.list_snapshots().await.unwrap();
    assert_eq!(
        (list.len(), list[0].name.as_str(), list[0].running),
        (1, "boot", Some(true))
    );
    assert!(
        list[0].state_bytes > 64 * 1024 && list[0].taken_with.is_none(),
        "{list:?}"
    );
    session.delete_snapshot("boot").await.unwrap();
    assert_eq!(session.list_snapshots().await.unwrap(), []);
    check_put_back(&session).await;
}

#[tokio::test]
async fn names_are_checked_and_told() {
    let session = start("tick").await;
    for name in ["", "a b", "json:{}", "a,b=c", "-\n", "n\0", "ä"] {
        let verbs = [
            session.save_snapshot(name).await.map(drop),
            session.load_snapshot(name).await.map(drop),
            session.delete_snapshot(name).await,
        ];
        assert!(
            verbs
                .iter()
                .all(|verb| matches!(verb, Err(SnapshotError::Name(_)))),
            "{name:?}: {verbs:?}"
        );
    }
    for error in [
        session.load_snapshot("x").await.map(drop),
        session.delete_snapshot("x").await,
    ] {
        assert_eq!(
            error.unwrap_err().to_string(),
            "there is no snapshot \"x\"; there is none at all"
        );
    }
    session.save_snapshot("b").await.unwrap();
    session.save_snapshot("a").await.unwrap();
    for error in [
        session.load_snapshot("x").await.map(drop),
        session.delete_snapshot("x").await,
    ] {
        assert_eq!(
            error.unwrap_err().to_string(),
            "there is no snapshot \"x\"; there are: b, a"
        );
    }
}

#[tokio::test]
async fn a_name_is_saved_over_only_on_demand() {
    let session = start("tick").await;
    session.pause().await.unwrap();
    session.save_snapshot("boot").await.unwrap();
    let first = counter(&session).await;
    session.resume().await.unwrap();
    assert!(counts(&session).await);
    session.pause().await.unwrap();
    let error = session.save_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::Exists { name } if name == "boot"),
        "{error:?}"
    );
    let second = counter(&session).await;
    session.load_snapshot("boot").await.unwrap();
    assert_eq!(counter(&session).await, first);
    session.resume().await.unwrap();
    assert!(counts(&session).await);
    session.pause().await.unwrap();
    let third = counter(&session).await;
    assert!(first < third && first < second);
    for _ in 0..3 {
        session.save_snapshot("boot").overwrite().await.unwrap();
    }
    assert_eq!(session.list_snapshots().await.unwrap().len(), 1);
    session.reset().await.unwrap();
    session.load_snapshot("boot").await.unwrap();
    assert_eq!(counter(&session).await, third);
    session.delete_snapshot("boot").await.unwrap();
    assert_eq!(session.list_snapshots().await.unwrap(), []);
}

#[tokio::test]
async fn the_run_state_is_the_one_that_was_asked_for() {
    let session = Session::start(config("tick").wait_for_gdb(true))
        .await
        .unwrap();
    session.save_snapshot("waiting").await.unwrap();
    assert_eq!(
        session.query_status().await.unwrap().status,
        RunState::Prelaunch
    );
    session.load_snapshot("waiting").await.unwrap();
    assert!(!session.query_status().await.unwrap().running);
    session.resume().await.unwrap();
    session.save_snapshot("running").await.unwrap();
    for (before, name, then, after) in [
        (true, "waiting", AfterLoad::AsBefore, true),
        (true, "waiting", AfterLoad::AsSaved, false),
        (false, "waiting", AfterLoad::Running, true),
        (true, "running", AfterLoad::Paused, false),
        (false, "running", AfterLoad::AsBefore, false),
        (false, "running", AfterLoad::AsSaved, true),
    ] {
        if before {
            session.resume().await
        } else {
            session.pause().await
        }
        .unwrap();
        session.load_snapshot(name).then(then).await.unwrap();
        let status = session.query_status().await.unwrap();
        assert_eq!(status.running, after, "{name}, {then:?}: {status:?}");
        assert_eq!(*session.watch_run_state().borrow(), status.status);
    }
}

#[tokio::test]
async fn each_case_begins_in_the_same_state() {
    let session = start("tick").await;
    let serial = session.serial(0).unwrap();
    serial
        .expect_within("boot", crate::support::DEADLINE)
        .await
        .unwrap();
    let mut seen = Vec::new();
    for case in ["a", "b", "c"] {
        let case = async |session: &Session| {
            let status = session.query_status().await.unwrap();
            let serial = session.serial(0).unwrap();
            serial.write(case.as_bytes()).await.unwrap();
            serial
                .expect_within(case, crate::support::DEADLINE)
                .await
                .unwrap();
            session.pause().await.unwrap();
            status.running
        };
        seen.push(session.with_fresh_state("booted", case).await.unwrap());
    }
    assert_eq!(seen, [true; 3]);
    session
        .load_snapshot("booted")
        .then(AfterLoad::Paused)
        .await
        .unwrap();
    check_put_back(&session).await;
}

#[tokio::test]
async fn two_saves_at_once() {
    let session = start("tick").await;
    let same = tokio::join!(session.save_snapshot("same"), session.save_snapshot("same"));
    assert!(
        matches!(same, (Ok(_), Err(SnapshotError::Exists { .. }))),
        "{same:?}"
    );
    let saves: Vec<_> = (0..6)
        .map(|number| {
            let session = session.clone();
            tokio::spawn(async move { session.save_snapshot(&format!("save-{number}")).await })
        })
        .collect();
    for save in saves {
        save.await.unwrap().unwrap();
    }
    assert_eq!(session.list_snapshots().await.unwrap().len(), 7);
    check_put_back(&session).await;
}

#[tokio::test]
async fn a_medium_in_the_sd_card_forbids_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("card.img");
    std::fs::write(&path, vec![0x5a; 1 << 20]).unwrap();
    let drive = qemu_launch::Drive::raw("sd", &path);
    let session = Session::start(config("tick").with_spec(|spec| spec.drive(drive)))
        .await
        .unwrap();
    for verb in [
        session.save_snapshot("boot").await,
        session.load_snapshot("boot").await,
    ] {
        let error = verb.unwrap_err();
        assert!(
            matches!(&error, SnapshotError::CardWithMedium { drive } if !drive.is_empty()),
            "{error:?}"
        );
        assert!(error.to_string().contains("eject"), "{}", chain(&error));
    }
    assert!(counts(&session).await, "the guest runs on");
    check_put_back(&session).await;

    // Taken out, it forbids nothing; put in again, the load is refused.
    session.human_monitor_command("eject -f sd0").await.unwrap();
    session.save_snapshot("boot").await.unwrap();
    session.load_snapshot("boot").await.unwrap();
    session
        .human_monitor_command(&format!("change sd0 {}", path.display()))
        .await
        .unwrap();
    let error = session.load_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::CardWithMedium { .. }),
        "{error:?}"
    );
    assert!(counts(&session).await);

    // With one that can hold snapshots, what there is can be listed and deleted all the same.
    let medium = disk(folder.path(), "qcow2").await;
    session
        .human_monitor_command(&format!("change sd0 {}", medium.display()))
        .await
        .unwrap();
    let error = session.load_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::CardWithMedium { .. }),
        "{error:?}"
    );
    assert_eq!(session.list_snapshots().await.unwrap().len(), 1);
    session.delete_snapshot("boot").await.unwrap();
    assert_eq!(session.list_snapshots().await.unwrap(), []);
}
