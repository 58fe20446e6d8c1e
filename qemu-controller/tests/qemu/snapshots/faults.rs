//! The disk full, a damaged file, and a machine that was shut down: the guest as it was, and
//! nothing earlier lost.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use qemu_controller::{AfterLoad, Endpoint, RunState, Session, SnapshotError};
use qemu_launch::{Action, Monitor};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::{check_put_back, overwriting_fails};
use crate::support::{DEADLINE, config, counter, counts};
use crate::trap::BeforeEach;
use test_support::write_program;

/// A QEMU that gets an error when it writes past its limit, where by default it would be killed.
fn qemu_that_heeds_limits(folder: &Path) -> PathBuf {
    let path = folder.join("qemu");
    let qemu = std::env::var("QEMU_SYSTEM_ARM").unwrap_or_else(|_| "qemu-system-arm".to_owned());
    write_program(
        &path,
        format!("#!/bin/sh\ntrap '' XFSZ\nexec '{qemu}' \"$@\"\n"),
        0o755,
    );
    path
}

/// From now on QEMU can write no file beyond this size.
fn limit(session: &Session, bytes: Option<u64>) {
    limit_process(session.pid().unwrap(), bytes);
}

fn limit_process(pid: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(pid as i32).unwrap();
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(pid), Resource::Fsize, limit).unwrap();
}

#[tokio::test]
async fn the_disk_full_during_a_save() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let config = config("tick")
        .qemu(qemu_that_heeds_limits(folder.path()))
        .snapshot_file(&path);
    let session = Session::start(config.clone()).await.unwrap();
    session.pause().await.unwrap();
    session.save_snapshot("first").await.unwrap();
    let first = counter(&session).await;
    let full = path.metadata().unwrap().len();
    let mut failed = 0;
    // From one that takes nothing more to one where it is only the last bytes that are missing.
    for more in (0..400).step_by(16) {
        limit(&session, Some(full + more * 1024));
        session.resume().await.unwrap();
        if !overwriting_fails(&session, first).await {
            break;
        }
        failed += 1;
    }
    assert!(failed > 3, "{failed} saves failed");
    // With room again all is well, in this session and in the next.
    limit(&session, None);
    session.resume().await.unwrap();
    session.save_snapshot("second").await.unwrap();
    session.stop().await.unwrap();
    let session = Session::start(config).await.unwrap();
    for name in ["second", "first", "second"] {
        session.load_snapshot(name).await.unwrap();
        assert!(counts(&session).await);
    }
}

#[tokio::test]
async fn a_full_disk_at_the_first_save() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let config = config("tick")
        .qemu(qemu_that_heeds_limits(folder.path()))
        .snapshot_file(&path);
    let session = Session::start(config).await.unwrap();
    for bytes in [0, 1000, 100_000, 300_000] {
        limit(&session, Some(bytes));
        let error = session.save_snapshot("boot").await.unwrap_err();
        let is_save = |command| command == "snapshot-save";
        assert!(
            matches!(error, SnapshotError::Job { command, .. } if is_save(command)),
            "{bytes}: {error:?}"
        );
        assert_eq!(session.list_snapshots().await.unwrap(), []);
        check_put_back(&session).await;
        assert!(counts(&session).await, "{bytes}: the guest goes on");
    }
    limit(&session, None);
    session.save_snapshot("boot").await.unwrap();
    session.load_snapshot("boot").await.unwrap();
    assert!(counts(&session).await);
}

/// That it is still there is no failure, and it is asked what there is.
#[tokio::test]
async fn what_was_replaced_cannot_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (full, told): (Arc<Mutex<Option<u32>>>, Arc<Mutex<String>>) = Default::default();
    let (pid, all) = (Arc::clone(&full), Arc::clone(&told));
    let transcript = BeforeEach(move |command: &str| {
        all.lock().unwrap().push_str(command);
        if command.contains("\"snapshot-delete\"")
            && let Some(pid) = pid.lock().unwrap().take()
        {
            limit_process(pid, Some(0));
        }
    });
    let config = config("tick").qemu(qemu_that_heeds_limits(folder.path()));
    let session = Session::start(config.qmp_transcript_to(transcript))
        .await
        .unwrap();
    for name in ["boot", "other"] {
        session.save_snapshot(name).await.unwrap();
    }
    *full.lock().unwrap() = session.pid();
    session.save_snapshot("boot").overwrite().await.unwrap();
    limit(&session, None);
    assert!(full.lock().unwrap().is_none(), "it came to the deletion");
    let asked = || std::mem::take(&mut *told.lock().unwrap()).contains("\"query-block\"");
    asked();
    session.load_snapshot("boot").await.unwrap();
    assert!(asked(), "who knows what there is");
    assert!(counts(&session).await);
    let names = async || {
        let list = session.list_snapshots().await.unwrap();
        list.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["other", "boot"]);
    check_put_back(&session).await;
    // What was replaced is deleted with it, and does not come back.
    session.delete_snapshot("boot").await.unwrap();
    assert_eq!(names().await, ["other"]);
    check_put_back(&session).await;
}

/// The places in a file where a text is.
fn places(bytes: &[u8], text: &[u8]) -> Vec<usize> {
    (0..bytes.len() - text.len())
        .filter(|&at| bytes[at..].starts_with(text))
        .collect()
}

#[tokio::test]
async fn a_damaged_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshots.qcow2");
    let config = config("tick").snapshot_file(&path);
    let session = Session::start(config.clone()).await.unwrap();
    for name in ["first", "second"] {
        session.save_snapshot(name).await.unwrap();
    }
    session.stop().await.unwrap();
    let sound = std::fs::read(&path).unwrap();
    // Where a machine's state begins, and the name of one of its parts.
    let states = places(&sound, b"QEVM");
    let part = *places(&sound, b"stellaris_gptm")
        .iter()
        .find(|&&at| at > states[1])
        .unwrap();
    assert_eq!(states.len(), 2);
    for (place, error_has) in [(states[1], "-22"), (part, "-22")] {
        let mut damaged = sound.clone();
        damaged[place..][..4].copy_from_slice(b"\xff\0\xff\0");
        std::fs::write(&path, damaged).unwrap();
        let session = Session::start(config.clone()).await.unwrap();
        assert!(counts(&session).await);
        let error = session.load_snapshot("second").await.unwrap_err();
        let jobs = matches!(&error, SnapshotError::Job { command: "snapshot-load", error } if error.contains(error_has));
        assert!(jobs, "{place}: {error:?}");
        assert!(session.query_status().await.unwrap().running, "as before");
        check_put_back(&session).await;
        session.load_snapshot("first").await.unwrap();
        assert!(counts(&session).await, "the other one is sound");
    }
    // The image's own tables: QEMU refuses it, or the snapshots; the guest is none the worse.
    for place in [48, 56, 60] {
        let mut damaged = sound.clone();
        damaged[place..place + 4].copy_from_slice(&[0xff; 4]);
        std::fs::write(&path, &damaged).unwrap();
        let session = Session::start(config.clone()).await.unwrap();
        let error = session.load_snapshot("second").await.unwrap_err();
        assert!(
            matches!(error, SnapshotError::Command(_)),
            "{place}: {error:?}"
        );
        assert!(counts(&session).await);
        assert_eq!(
            std::fs::read(&path).unwrap(),
            damaged,
            "it is left as it is"
        );
    }
}

/// A case may have ended with a machine that is shut down and stays.
#[tokio::test]
async fn a_machine_that_was_shut_down_is_brought_back() {
    let stay = Action::new().shutdown_on_reboot().pause_on_shutdown();
    let session = Session::start(config("tick").with_spec(|spec| spec.action(stay)))
        .await
        .unwrap();
    session.save_snapshot("boot").await.unwrap();
    for (then, reboot) in [
        (AfterLoad::Running, "shutdown"),
        (AfterLoad::AsSaved, "shutdown"),
        (AfterLoad::AsSaved, "reset"),
    ] {
        // What a reset does is still what the configuration says.
        session.reset().await.unwrap();
        assert_eq!(
            session.query_status().await.unwrap().status,
            RunState::Shutdown
        );
        session
            .execute("set-action", &json!({ "reboot": reboot }))
            .await
            .unwrap();
        session.load_snapshot("boot").then(then).await.unwrap();
        assert!(counts(&session).await, "{then:?}, {reboot}");
        check_put_back(&session).await;
    }
}

/// Has another client of this QEMU say something, and waits for this run state, all before it
/// returns.
fn by_another_client(path: &Path, said: &str, status: &str) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut answered = |command: &str| {
        writeln!(stream, r#"{{"execute": "{command}"}}"#).unwrap();
        answers.find(|line| line.contains("\"return\"")).unwrap()
    };
    for command in ["qmp_capabilities", said] {
        answered(command);
    }
    while !answered("query-status").contains(&format!("\"{status}\"")) {}
}

/// What it is loaded for holds, though the look said that it ran.
#[tokio::test]
async fn a_guest_that_stops_right_before_a_load() {
    let folder = tempfile::tempdir().unwrap();
    for (said, status) in [("stop", "paused"), ("system_reset", "shutdown")] {
        for without_output in [false, true] {
            let path = folder.path().join("second.sock");
            let (second, at) = (
                path.clone(),
                ["\"snapshot-load", "\"stop\""][usize::from(without_output)],
            );
            let mut done = false;
            let transcript = BeforeEach(move |command: &str| {
                if !done && command.contains(at) {
                    by_another_client(&second, said, status);
                    done = true;
                }
            });
            let stay = Action::new().shutdown_on_reboot().pause_on_shutdown();
            let monitor = Monitor::Qmp(Endpoint::Socket(path));
            let config = config("tick").with_spec(|spec| spec.action(stay).monitor(monitor));
            let session = Session::start(config.qmp_transcript_to(transcript))
                .await
                .unwrap();
            session.save_snapshot("boot").await.unwrap();
            if without_output {
                session
                    .with_fresh_state("boot", async |_| ())
                    .await
                    .unwrap();
            } else {
                session.load_snapshot("boot").await.unwrap();
            }
            assert!(counts(&session).await, "{said}, {without_output}");
            check_put_back(&session).await;
            session.stop().await.unwrap();
        }
    }
}
