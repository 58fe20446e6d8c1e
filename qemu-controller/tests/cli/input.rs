//! What comes on stdin reaches the firmware, and its end ends nothing.

use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Call, Running, Said};

/// What `tick` printed, without the lines that it prints by itself: a line may fall between any two echoes.
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
    let mut running = Call::image("tick", ["--expect", "tick 4"]).stdin(Stdio::piped()).start();
    type_in(&mut running, b"x", "x");
    running.close_stdin();
    assert_eq!(running.end().status.code(), Some(0));
}

#[test]
fn ends_of_lines_are_translated_on_demand() {
    for (kind, expected) in [("keep", "a\nb\n"), ("cr", "a\rb\r"), ("crlf", "a\r\nb\r\n")] {
        let mut running = Call::image("tick", ["--newline", kind]).stdin(Stdio::piped()).start();
        type_in(&mut running, b"a\nb\n", expected);
        assert_eq!(echoed(&interrupted(running)), expected);
    }
}
