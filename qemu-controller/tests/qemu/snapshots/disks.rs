//! Disks: all that the guest can write are part of it, and one that cannot be is named.

use qemu_controller::{Session, SnapshotError};
use qemu_launch::{Blockdev, Drive, MachineSpec};

use super::{check_put_back, disk};
use crate::support::{config, counts};

/// Writes a pattern to a drive, as the guest would, or looks whether it is there: what that finds
/// QEMU prints on its stdout, at its end.
async fn pattern(session: &Session, verb: &str, value: u8) {
    let line = format!("qemu-io disk \"{verb} -P {value} 0 4096\"");
    session.human_monitor_command(&line).await.unwrap();
}

#[tokio::test]
async fn memory_and_disks_are_restored_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "qcow2").await;
    let with = |spec: MachineSpec| spec.drive(Drive::qcow2("none", &path).property("id", "disk"));
    let session = Session::start(config("tick").with_spec(with))
        .await
        .unwrap();
    for value in [1, 2] {
        pattern(&session, "write", value).await;
        session
            .save_snapshot(&format!("with-{value}"))
            .await
            .unwrap();
    }
    pattern(&session, "write", 3).await;
    for value in [1, 2, 1] {
        session
            .load_snapshot(&format!("with-{value}"))
            .await
            .unwrap();
        pattern(&session, "read", value).await;
        pattern(&session, "read", 3).await;
    }
    // In the disk too, and gone from there with the snapshot.
    let in_disk = async || {
        session
            .human_monitor_command("info block -v disk")
            .await
            .unwrap()
    };
    assert!(in_disk().await.contains("with-1") && in_disk().await.contains("with-2"));
    session.delete_snapshot("with-1").await.unwrap();
    assert!(!in_disk().await.contains("with-1") && in_disk().await.contains("with-2"));
    assert!(counts(&session).await);
    check_put_back(&session).await;
    session.stop().await.unwrap();
    let printed = session.process().unwrap().stdout_tail().to_string_lossy();
    let reads: Vec<_> = printed
        .split_inclusive("read 4096/4096")
        .filter(|part| part.contains("read"))
        .collect();
    let found: Vec<_> = reads
        .iter()
        .map(|read| !read.contains("verification failed"))
        .collect();
    assert_eq!(found, [true, false, true, false, true, false], "{printed}");
}

#[tokio::test]
async fn a_disk_that_cannot_is_named_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::write(&path, vec![0; 65536]).unwrap();
    let raw = || Drive::raw("none", &path).property("id", "data");
    let session = Session::start(config("tick").with_spec(|spec| spec.drive(raw())))
        .await
        .unwrap();
    let mut events = session.events();
    let error = session.save_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::Disk { disk, format, .. } if disk == "data" && format == "raw"),
        "{error:?}"
    );
    session.stop().await.unwrap();
    while let Some(event) = events.next().await {
        assert_eq!(event.unwrap().name, "SHUTDOWN");
    }

    // Where the guest cannot write it, or what it writes is thrown away, it is no part of the
    // state.
    let read_only = Session::start(
        config("tick").with_spec(|spec| spec.drive(raw().property("readonly", "on"))),
    );
    let node = Session::start(
        config("tick").with_spec(|spec| spec.blockdev(Blockdev::raw("node", &path))),
    );
    let discarded = Session::start(
        config("tick").with_spec(|spec| spec.drive(raw().property("snapshot", "on"))),
    );
    for session in [
        read_only.await.unwrap(),
        node.await.unwrap(),
        discarded.await.unwrap(),
    ] {
        session.save_snapshot("boot").await.unwrap();
        session.load_snapshot("boot").await.unwrap();
        assert!(counts(&session).await);
    }
}

/// A disk keeps its part of a snapshot when the session's own image is gone: that is in nobody's
/// way.
#[tokio::test]
async fn a_later_session_saves_under_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "qcow2").await;
    for _ in 0..3 {
        let drive = Drive::qcow2("none", &path).property("id", "disk");
        let session = Session::start(config("tick").with_spec(|spec| spec.drive(drive)))
            .await
            .unwrap();
        session.save_snapshot("boot").await.unwrap();
        session.save_snapshot("boot").overwrite().await.unwrap();
        session.load_snapshot("boot").await.unwrap();
        assert!(counts(&session).await);
        session.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_was_added_since_the_last_save_takes_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path(), "qcow2").await;
    let session = Session::start(config("tick")).await.unwrap();
    session.save_snapshot("without").await.unwrap();
    let line = format!(
        "drive_add 0 if=none,id=disk,format=qcow2,file={}",
        path.display()
    );
    assert_eq!(
        session.human_monitor_command(&line).await.unwrap(),
        "OK\r\n"
    );
    for value in [1, 2] {
        pattern(&session, "write", value).await;
        session.save_snapshot("with").overwrite().await.unwrap();
    }
    let in_disk = session
        .human_monitor_command("info block -v disk")
        .await
        .unwrap();
    assert!(
        in_disk.contains("with;") && !in_disk.contains("without;"),
        "{in_disk}"
    );
    let names: Vec<_> = session
        .list_snapshots()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["without", "with"]);
    session.load_snapshot("with").await.unwrap();
    assert!(counts(&session).await);
    check_put_back(&session).await;
}
