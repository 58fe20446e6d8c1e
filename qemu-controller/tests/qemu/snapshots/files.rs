//! A file that the user names: it outlives the session, and a later one loads from it what fits.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use qemu_controller::{AfterLoad, QemuConfig, Session, SnapshotError};

use super::check_put_back;
use crate::support::{chain, config, counter, counts};

async fn start(path: &Path) -> Session {
    with(config("tick"), path).await
}

async fn with(config: QemuConfig, path: &Path) -> Session {
    Session::start(config.snapshot_file(path)).await.unwrap()
}

#[tokio::test]
async fn a_later_session_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    // Whatever a name can hold.
    let path = folder.path().join("json:{\"a\": 'b',,c=d}\n-é.qcow2");
    let session = start(&path).await;
    assert_eq!(session.list_snapshots().await.unwrap(), []);
    assert!(matches!(
        session.load_snapshot("boot").await,
        Err(SnapshotError::Missing { .. })
    ));
    assert!(!path.exists(), "nothing is made before the first save");
    assert!(counts(&session).await);
    session.pause().await.unwrap();
    let saved = counter(&session).await;
    session.save_snapshot("boot").await.unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);

    // One session at a time.
    let other = start(&path).await;
    let error = other.load_snapshot("boot").await.unwrap_err();
    assert!(chain(&error).contains("lock"), "{}", chain(&error));
    other.stop().await.unwrap();

    session.stop().await.unwrap();
    let session = Session::start(config("tick").wait_for_gdb(true).snapshot_file(&path))
        .await
        .unwrap();
    let list = session.list_snapshots().await.unwrap();
    assert_eq!((list.len(), list[0].running), (1, Some(false)));
    let taken_with = list[0].taken_with.clone().unwrap();
    assert_eq!(
        (taken_with.machine.as_str(), taken_with.cpu.as_str()),
        ("lm3s6965evb", "cortex-m3")
    );
    assert_eq!(taken_with.firmware.len(), 32);
    session.load_snapshot("boot").await.unwrap();
    assert_eq!(counter(&session).await, saved);
    session
        .load_snapshot("boot")
        .then(AfterLoad::Running)
        .await
        .unwrap();
    assert!(counts(&session).await);
    session.save_snapshot("boot").overwrite().await.unwrap();
    assert_eq!(session.list_snapshots().await.unwrap().len(), 1);
    check_put_back(&session).await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let session = start(&path).await;
    session.save_snapshot("boot").await.unwrap();
    session.stop().await.unwrap();

    let elsewhere = with(config("tick").machine("lm3s811evb"), &path).await;
    let error = elsewhere
        .load_snapshot("boot")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("was taken with machine lm3s6965evb and not lm3s811evb"),
        "{error}"
    );
    assert!(elsewhere.query_status().await.unwrap().running);
    elsewhere.stop().await.unwrap();

    let session = with(config("wfi"), &path).await;
    let error = session.load_snapshot("boot").await.unwrap_err();
    let SnapshotError::OtherMachine { mismatches, .. } = &error else {
        panic!("{error:?}")
    };
    let what: Vec<_> = mismatches.iter().map(|mismatch| mismatch.what).collect();
    assert_eq!(what, ["firmware"], "{error}");
    // The memory is all there is of the firmware: asked to, it goes on.
    session.load_snapshot("boot").unchecked().await.unwrap();
    assert!(counts(&session).await);
}

#[tokio::test]
async fn what_something_else_saved_is_loaded_only_unchecked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let session = start(&path).await;
    session.save_snapshot("ours").await.unwrap();
    // With the SD card in it: QEMU would abort when it restores that.
    let said = session
        .human_monitor_command("savevm theirs")
        .await
        .unwrap();
    assert_eq!(said, "");
    let list = session.list_snapshots().await.unwrap();
    assert_eq!(list[1].name, "theirs");
    assert_eq!((list[1].running, &list[1].taken_with), (None, &None));
    let error = session.load_snapshot("theirs").await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::UnknownOrigin { .. }),
        "{error:?}"
    );
    let error = session
        .load_snapshot("theirs")
        .unchecked()
        .await
        .unwrap_err();
    assert!(matches!(error, SnapshotError::Job { .. }), "{error:?}");
    check_put_back(&session).await;
    session.load_snapshot("ours").await.unwrap();
    assert!(counts(&session).await);
    session.delete_snapshot("theirs").await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_something_else_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let backed = qcow2(|header| header[15] = 104);
    let elsewhere = qcow2(|header| header[79] = 4);
    for (contents, why) in [
        (b"notes".to_vec(), "no qcow2"),
        (Vec::new(), "no qcow2"),
        (b"QFI\xfb".to_vec(), "no qcow2"),
        (backed, "backing file"),
        (elsewhere, "in another file"),
    ] {
        std::fs::write(&path, &contents).unwrap();
        let session = start(&path).await;
        for verb in [
            session.save_snapshot("boot").await,
            session.load_snapshot("boot").await,
        ] {
            let error = verb.unwrap_err();
            assert!(
                matches!(error, SnapshotError::File { .. }) && chain(&error).contains(why),
                "{}",
                chain(&error)
            );
        }
        assert!(counts(&session).await);
        assert_eq!(std::fs::read(&path).unwrap(), contents);
    }
    for (path, why) in [
        (folder.path().to_owned(), "no regular file"),
        (folder.path().join("absent/file"), "No such file"),
    ] {
        let session = start(&path).await;
        let error = session.save_snapshot("boot").await.unwrap_err();
        assert!(
            matches!(error, SnapshotError::File { .. }) && chain(&error).contains(why),
            "{}",
            chain(&error)
        );
        check_put_back(&session).await;
    }
}

/// The header of an empty qcow2 image, changed.
fn qcow2(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    change(&mut header);
    header
}
