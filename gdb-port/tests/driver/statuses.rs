//! The exit statuses of the program, which scripts rely on.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::other::Other;
use crate::unused::unused;

/// The exit status of the program with these arguments, and what it wrote to stderr.
fn run(line: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gdb-port"))
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), errors)
}

fn status(line: &str) -> i32 {
    run(line).0
}

#[test]
fn free_held_absent_and_not_to_be_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    assert_eq!(status(&format!("{endpoint}")), 0);
    assert_eq!(
        status(&format!("--wait 5 --pid {} {endpoint}", std::process::id())),
        0
    );
    let mut other = Other::start();
    assert_eq!(status(&format!("--pid {} {endpoint}", other.pid())), 6);
    other.end();
    let client = TcpStream::connect(endpoint).unwrap();
    let accepted = listener.accept().unwrap();
    assert_eq!(status(&format!("{endpoint}")), 3);
    assert_eq!(status(&format!("--probe {endpoint}")), 3);
    drop((client, accepted));
    let (_held, endpoint) = unused();
    assert_eq!(status(&format!("{endpoint}")), 1);
    assert_eq!(
        status(&format!("--probe --run-on --was-running {endpoint}")),
        1
    );
    assert_eq!(status(&format!("--wait 0.02 {endpoint}")), 1);
    assert_eq!(status("192.0.2.1:1234"), 7);
}

#[test]
fn what_is_no_stub() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
    assert_eq!(status(&format!("--probe {endpoint}")), 5);
    closing.join().unwrap();
}

#[test]
fn the_wait_for_a_process_ends_when_it_does() {
    let (_held, endpoint) = unused();
    let mut other = Other::start();
    let line = format!("--wait 300 --pid {} {endpoint}", other.pid());
    assert_eq!(
        status(&line.replace("--wait 300", "--wait 0.1")),
        1,
        "it lives"
    );
    other.kill();
    // Dead, and then reaped as well.
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(status(&line), 1);
        assert!(begun.elapsed() < Duration::from_secs(60), "it waited on");
        other.end();
    }
}

#[test]
fn a_connection_that_is_not_accepted_is_waited_for_and_why_is_said() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = hangs.local_addr().unwrap();
    let (status, errors) = run(&format!("--probe {endpoint}"));
    assert_eq!(status, 4);
    let why = "it listens, but does not accept connections; waiting until it accepts";
    assert!(errors.contains(why), "{errors}");
}

#[test]
fn wrong_usage_and_help() {
    assert_eq!(status("--help"), 0);
    for line in [
        "",
        "--unknown 127.0.0.1:1",
        "127.0.0.1",
        "localhost:1",
        "127.0.0.1:1 127.0.0.1:2",
        "--pid",
        "--pid x 127.0.0.1:1",
        "--wait -1 127.0.0.1:1",
        "--wait x 127.0.0.1:1",
        "--run-on 127.0.0.1:1",
        "--was-running 127.0.0.1:1",
        "--free 127.0.0.1:1",
    ] {
        assert_eq!(status(line), 2, "{line}");
    }
}
