//! What comes on stdin reaches the firmware, and its end ends nothing.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Call, Running, Said, nonblocking};

/// What `tick` printed, without the lines that it prints by itself: a line may fall between any two
/// echoes.
fn echoed(stdout: &str) -> String {
    let mut rest = stdout.replacen("boot\n", "", 1);
    for number in 1..1000 {
        rest = rest.replacen(&format!("tick {number}\n"), "", 1);
    }
    rest
}

/// Types this once the firmware listens, and waits for the echo.
fn type_in(running: &mut Running, typed: &[u8], echo: &str) {
    running.prints("tick 1\n");
    running.type_in(typed);
    let stdout = running.stdout.as_mut().unwrap();
    stdout.until_it(echo, |all| echoed(all).starts_with(echo));
}

fn interrupted(running: Running) -> String {
    running.signal(Signal::INT);
    Said::of(&running.end(), 130).stdout
}

#[test]
fn piped_input_is_echoed_unchanged() {
    let mut running = Call::image("tick", []).stdin(Stdio::piped()).start();
    type_in(&mut running, b"hello\r\n", "hello\r\n");
    assert_eq!(echoed(&interrupted(running)), "hello\r\n");
}

#[test]
fn the_end_of_stdin_does_not_end_the_run() {
    let mut running = Call::image("tick", ["--expect", "tick 4"])
        .stdin(Stdio::piped())
        .start();
    type_in(&mut running, b"x", "x");
    running.close_stdin();
    assert_eq!(running.end().status.code(), Some(0));
}

#[test]
fn ends_of_lines_are_translated_on_demand() {
    for (kind, expected) in [("keep", "a\nb\n"), ("cr", "a\rb\r"), ("crlf", "a\r\nb\r\n")] {
        let mut running = Call::image("tick", ["--newline", kind])
            .stdin(Stdio::piped())
            .start();
        type_in(&mut running, b"a\nb\n", expected);
        assert_eq!(echoed(&interrupted(running)), expected);
    }
}

#[test]
fn a_terminal_sends_what_a_serial_terminal_sends_for_enter() {
    let (mut keyboard, terminal) = terminal();
    let mut running = Call::image("tick", []).stdin(terminal).start();
    running.prints("tick 1\n");
    keyboard.write_all(b"help\n").unwrap();
    let stdout = running.stdout.as_mut().unwrap();
    stdout.until_it("help", |all| echoed(all).starts_with("help\r"));
    assert_eq!(echoed(&interrupted(running)), "help\r");
}

/// A pseudo-terminal: its user's end, and the program's.
pub(crate) fn terminal() -> (File, File) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed());
    (
        keyboard.into(),
        options.open(name.to_str().unwrap()).unwrap(),
    )
}

#[test]
fn it_reaches_a_firmware_that_reads_by_semihosting_and_so_does_its_end() {
    let mut running = Call::image("semihosting-echo", [])
        .stdin(Stdio::piped())
        .start();
    running.prints("ready\n");
    running.type_in(b"hello\n");
    running.prints("ready\nhello\n");
    running.close_stdin();
    let said = Said::of(&running.end(), 0);
    assert_eq!(said.stdout, "ready\nhello\n");
    // No input at all is an end at once.
    assert_eq!(
        Call::image("semihosting-echo", []).ends_with(0).stdout,
        "ready\n"
    );
}

/// Such a read blocks QEMU whole.
#[test]
fn a_firmware_that_waits_for_input_is_ended_by_the_timeout_and_by_a_signal() {
    let call = |words| Call::image("semihosting-echo", words).stdin(Stdio::piped());
    let mut running = call(vec!["--timeout", "2s"]).start();
    running.prints("ready\n");
    let said = Said::of(&running.end(), 124);
    assert!(said.stderr.contains("not over after 2s"), "{}", said.stderr);

    let mut running = call(vec![]).start();
    running.prints("ready\n");
    running.signal(Signal::TERM);
    Said::of(&running.end(), 143);
}

#[test]
fn it_is_held_back_until_the_firmware_has_printed_a_text() {
    let words = ["--send-after", "tick 3\n", "--expect", "now"];
    let mut running = Call::image("tick", words).stdin(Stdio::piped()).start();
    running.type_in(b"now");
    let said = Said::of(&running.end(), 0);
    let all = said.stdout.replace("tick 4\n", "");
    assert!(all.starts_with("boot\ntick 1\ntick 2\ntick 3\n"), "{all}");
}

#[test]
fn a_stdin_that_others_have_made_non_blocking_is_waited_for() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    nonblocking(&reader);
    let mut running = Call::image("uart-echo", []).stdin(reader).start();
    running.prints("boot\n");
    writer.write_all(b"hello").unwrap();
    running.prints("boot\nhello");
    assert_eq!(interrupted(running), "boot\nhello");
}
