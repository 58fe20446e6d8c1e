//! `--semihosting`: what the firmware reaches of this machine.

use std::path::Path;

use crate::support::{Call, Said, image};

/// Runs the image that asks for a command, in a folder of its own: the status, stderr, and whether
/// the command ran.
fn run(words: &[&str]) -> (Option<i32>, String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let firmware = image("semihosting-system");
    let words = words.iter().map(Path::new).chain([&*firmware]);
    let output = Call::new(words).folder(folder.path()).output();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let ran = folder.path().join("guest-was-here").exists();
    (output.status.code(), stderr, ran)
}

#[test]
fn a_command_runs_only_where_all_is_allowed() {
    let (status, stderr, ran) = run(&[]);
    assert!(!ran);
    match status {
        // QEMU 7.2 is ended by its sandbox, 10.0 goes on.
        Some(125) => assert!(stderr.contains("--semihosting=full"), "{stderr}"),
        status => assert_eq!(status, Some(3), "{stderr}"),
    }
    let (status, stderr, ran) = run(&["--semihosting=full"]);
    assert!(status == Some(0) && ran, "{stderr}");
}

#[test]
fn without_semihosting_its_call_is_a_fault() {
    let words = ["--semihosting", "off"];
    let said = Call::image("semihosting-exit", words).ends_with(139);
    assert_eq!(said.stdout, "");
    let why = "HardFault: a semihosting call, and semihosting is off (BKPT 0xab), in reset";
    assert!(said.stderr.contains(why), "{}", said.stderr);
}

/// The firmware's words come after its name.
#[test]
fn words_of_a_test_harness_are_the_firmware_s() {
    for words in [
        &["--nocapture"][..],
        &["--bench"],
        &["--list", "--format", "terse"],
    ] {
        let firmware = image("semihosting-exit");
        let words = [&*firmware].into_iter().chain(words.iter().map(Path::new));
        let said = Call::new(words).ends_with(7);
        assert_eq!(said.stdout, "hello by semihosting\n");
    }
}

/// QEMU's own words are not the firmware's, and meet no expectation.
#[test]
fn without_semihosting_nothing_on_stderr_is_the_firmware_s() {
    let words = ["--semihosting=off", "--timeout=1s", "--expect=pl011_write"];
    let Said { stdout, .. } = Call::image("tick", words)
        .qemu_args(&["-trace", "pl011_write"])
        .ends_with(124);
    assert!(!stdout.contains("pl011_write"), "{stdout}");
}
