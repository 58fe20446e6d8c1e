//! What the firmware prints comes through byte for byte and at once; a reader that goes away ends
//! the run.

use std::fs::{File, OpenOptions};

use rustix::process::Signal;

use crate::support::Call;

#[test]
fn it_comes_while_the_firmware_runs() {
    let mut running = Call::image("tick", []).start();
    for line in ["boot\n", "tick 1\n", "tick 2\n"] {
        running.prints(line);
    }
    assert_eq!(running.stderr.text(), "");
    running.signal(Signal::TERM);
    assert_eq!(running.end().status.code(), Some(143));
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let mut running = Call::image("tick", []).start();
    running.prints("tick 1");
    // The thread that reads stops at the next chunk, and closes the pipe.
    running.stdout = None;
    let output = running.end();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_stdout_that_is_full_is_an_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = Call::image("tick", []).stdout(full).ends_with(125);
    assert!(
        said.stderr
            .contains("cannot write to stdout: No space left"),
        "{}",
        said.stderr
    );
}

#[test]
fn the_log_has_what_stdout_has() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a log.txt");
    std::fs::write(&log, "of the run before").unwrap();
    let words = ["--log", log.to_str().unwrap(), "--expect", "tick 2\n"];
    let said = Call::image("tick", words).ends_with(0);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), said.stdout);

    let said = Call::image("tick", ["--log", "no/such/folder/log.txt"]).ends_with(125);
    assert!(
        said.stderr.contains("no/such/folder/log.txt"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_flood_is_printed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flood.txt");
    let call = Call::image(
        "uart-flood",
        ["--expect", "flood 20000\n", "--timeout", "60s"],
    );
    let said = call.stdout(File::create(&path).unwrap()).ends_with(0);
    assert_eq!(said.stderr, "", "nothing is said to be lost");
    let text = std::fs::read_to_string(&path).unwrap();
    for (number, line) in text.lines().take(20_000).enumerate() {
        assert_eq!(line, format!("flood {number}"));
    }
}

#[test]
fn qemu_s_own_words_are_shown_on_demand_to_the_last() {
    let said = Call::image("semihosting-exit", [])
        .qemu_args(&["-d", "int"])
        .ends_with(7);
    assert!(!said.stderr.contains("semihosting call"), "{}", said.stderr);
    let call = Call::image("semihosting-exit", ["--verbose"]).qemu_args(&["-d", "int"]);
    let said = call.ends_with(7);
    assert_eq!(said.stdout, "hello by semihosting\n");
    for words in [
        "qemu-system-arm -nodefaults",
        "semihosting call 0x4",
        "semihosting call 0x20",
    ] {
        assert!(
            said.stderr.contains(words),
            "no {words:?} in {}",
            said.stderr
        );
    }
}
