//! Each way in which a run ends has its exit status and its words.

use rustix::process::{Pid, Signal, kill_process};

use std::time::Instant;

use crate::support::{Call, DEADLINE};

#[test]
fn the_firmware_s_status_is_the_program_s() {
    let said = Call::image("semihosting-exit", []).ends_with(7);
    assert_eq!(said.stdout, "hello by semihosting\n");
    assert_eq!(
        said.stderr,
        "qemu-controller: the firmware exited with status 7\n"
    );
}

#[test]
fn a_reset_ends_the_run_unless_it_may_reboot() {
    let said = Call::image("reset-request", []).ends_with(120);
    assert_eq!(said.stdout, "boot\n");
    assert!(said.stderr.contains("asked for a reset"), "{}", said.stderr);

    let mut running = Call::image("reset-request", ["--reboot"]).start();
    running.prints("boot\nboot\nboot\n");
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
}

#[test]
fn a_lockup_comes_with_its_registers() {
    let said = Call::image("lockup", []).ends_with(134);
    assert_eq!(said.stdout, "boot\n");
    assert!(
        said.stderr.contains("locked up") && said.stderr.contains("R15="),
        "{}",
        said.stderr
    );
}

#[test]
fn a_timeout_says_where_the_firmware_was() {
    let words = ["--timeout", "5s", "--on-fault", "continue"];
    let said = Call::image("hardfault-loop", words).ends_with(124);
    assert_eq!(said.stdout, "boot\nhard fault\n");
    assert!(said.stderr.contains("not over after 5s"), "{}", said.stderr);
    assert!(
        said.stderr.contains("hard_fault") && said.stderr.contains("HardFault"),
        "{}",
        said.stderr
    );
    let why = "\n    UsageFault: an undefined instruction (UNDEFINSTR), in faulty\n";
    assert!(said.stderr.contains(why), "{}", said.stderr);
}

#[test]
fn what_is_expected_ends_the_run_well() {
    for option in ["--expect=tick 3", "--expect-regex=tick [3-9]"] {
        let said = Call::image("tick", [option, "--timeout", "60s"]).ends_with(0);
        assert!(
            said.stdout.starts_with("boot\ntick 1\ntick 2\ntick 3"),
            "{}",
            said.stdout
        );
        assert_eq!(said.stderr, "");
    }
    // Also by semihosting, and as the last words of a firmware that fails.
    Call::image("semihosting-exit", ["--expect", "semihosting\n"]).ends_with(0);
}

#[test]
fn what_is_expected_and_does_not_come_is_a_failure() {
    let said = Call::image("semihosting-exit", ["--expect", "never"]).ends_with(7);
    assert!(
        said.stderr.contains("what was expected did not come"),
        "{}",
        said.stderr
    );
    let said = Call::image("wfi", ["--expect", "never", "--timeout", "500ms"]).ends_with(124);
    assert!(
        said.stderr.contains("what was expected did not come"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_qemu_that_is_ended_by_others_is_no_success() {
    for (signal, status) in [(Signal::KILL, 137), (Signal::TERM, 143)] {
        let mut running = Call::image("tick", []).start();
        running.prints("tick 1");
        let qemu = Pid::from_raw(running.qemu().cast_signed()).unwrap();
        kill_process(qemu, signal).unwrap();
        let output = running.end();
        assert_eq!(output.status.code(), Some(status));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("from outside"),
            "{output:?}"
        );
    }
}

#[test]
fn deterministic_time_runs_a_firmware_faster_than_its_clock() {
    // Ten seconds of the firmware's time; the deadline is of real time.
    Call::image(
        "tick",
        [
            "--deterministic",
            "--expect",
            "tick 50\n",
            "--timeout",
            "60s",
        ],
    )
    .ends_with(0);
}

/// A program that takes QEMU's place.
fn wrapper(folder: &tempfile::TempDir, script: &str) -> String {
    let path = folder.path().join("qemu-system-arm");
    test_support::write_program(&path, format!("#!/bin/sh\n{script}\n"), 0o755);
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_timeout_counts_while_qemu_starts() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = wrapper(&folder, "exec sleep 60");
    let said = Call::image("wfi", ["--qemu", &qemu, "--timeout", "500ms"]).ends_with(124);
    let words = "the run was not over after 500ms: QEMU was still starting";
    assert!(said.stderr.contains(words), "{}", said.stderr);
}

#[test]
fn a_child_of_qemu_that_holds_its_pipes_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    // In a session of its own, so that it is not ended with QEMU.
    let qemu = wrapper(&folder, "setsid sleep 50 &\nexec qemu-system-arm \"$@\"");
    let since = Instant::now();
    let said = Call::image("semihosting-exit", ["--qemu", &qemu]).ends_with(7);
    assert_eq!(said.stdout, "hello by semihosting\n");
    assert!(since.elapsed() < DEADLINE / 2, "{:?}", since.elapsed());
}

#[test]
fn a_program_that_prints_and_ends_in_qemu_s_place_is_no_success() {
    Call::image("wfi", ["--qemu", "/bin/echo"]).ends_with(125);
}

/// Run with a QEMU that says this and ends.
fn refused_by_qemu(words: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let qemu = wrapper(&folder, &format!("echo \"{words}\" >&2; exit 1"));
    let said = Call::image("wfi", ["--qemu", &qemu]).ends_with(125);
    said.stderr
}

#[test]
fn a_qemu_without_a_sandbox_is_refused_with_the_way_out() {
    let said = refused_by_qemu("qemu-system-arm: -sandbox: There is no option group 'sandbox'");
    assert!(said.contains("--semihosting=full"), "{said}");
    let words = "qemu-system-arm: could not load kernel '/home/me/sandbox/a.elf'";
    let said = refused_by_qemu(words);
    assert!(!said.contains("no sandbox"), "{said}");
    assert!(said.contains("could not load"), "{said}");
}

#[test]
fn a_board_whose_sound_has_nowhere_to_go_is_refused_with_the_way_out() {
    let said = refused_by_qemu("qemu-system-arm: no default audio driver available");
    assert!(said.contains("-- -audio none"), "{said}");
}

#[test]
fn a_board_without_opensbi_is_refused_with_the_way_out() {
    for (words, is_opensbi) in [
        (
            r#"Unable to load the RISC-V firmware \"opensbi-riscv32-generic-fw_dynamic.bin\""#,
            true,
        ),
        (
            r#"Unable to find the RISC-V BIOS \"opensbi-riscv32-generic-fw_dynamic.bin\""#,
            true,
        ),
        (r#"Unable to find the RISC-V BIOS \"mine.bin\""#, false),
    ] {
        let said = refused_by_qemu(&format!("qemu-system-riscv32: {words}"));
        let is_told = said.contains("--bios none starts without it");
        assert_eq!(is_told, is_opensbi, "{said}");
    }
}
