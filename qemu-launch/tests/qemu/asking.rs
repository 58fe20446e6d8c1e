//! Asking QEMU for its version and for what it supports.

use std::time::Instant;

use qemu_launch::discover::{AskError, Qemu};

use test_support::write_program;

#[test]
fn version_machines_and_cpus() {
    let qemu = Qemu::find("qemu-system-arm").unwrap();
    assert!(qemu.path().is_absolute());
    let version = qemu.version().unwrap();
    assert!(version.major >= 7, "{version:?}");
    let machines = qemu.machines().unwrap();
    let board = machines
        .iter()
        .find(|machine| machine.name == "lm3s6965evb")
        .unwrap();
    assert!(
        board.description.contains("Stellaris LM3S6965EVB"),
        "{board:?}"
    );
    let cpus = qemu.cpus().unwrap();
    assert!(
        cpus.iter().any(|cpu| cpu == "cortex-m3") && cpus.len() > 10,
        "{cpus:?}"
    );
}

#[test]
fn answers_are_remembered_until_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("qemu-system-arm");
    let asked = folder.path().join("asked");
    let write = |version: &str| {
        let script = format!(
            "#!/bin/sh\necho >> '{}'\necho 'QEMU emulator version {version}'\n",
            asked.display()
        );
        write_program(&program, script, 0o755);
    };
    let times = || std::fs::metadata(&asked).map_or(0, |file| file.len());
    write("1.2.3");
    let qemu = Qemu::find(&program).unwrap();
    assert_eq!(qemu.version().unwrap().micro, 3);
    assert_eq!((qemu.version().unwrap().micro, times()), (3, 1));
    write("1.2.34");
    assert_eq!((qemu.version().unwrap().micro, times()), (34, 2));
}

#[test]
fn a_program_that_is_no_qemu() {
    let start = Instant::now();
    let error = Qemu::find("/bin/true").unwrap().version().unwrap_err();
    assert!(matches!(error, AskError::NotQemu { .. }), "{error:?}");
    let error = Qemu::find("/bin/false").unwrap().version().unwrap_err();
    assert!(
        matches!(&error, AskError::Failed { exit, .. } if exit.code() == Some(1)),
        "{error:?}"
    );
    assert!(
        start.elapsed().as_secs() < 10,
        "nobody waited for a deadline"
    );
}
