//! The exit statuses of the example `check`, which scripts rely on.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use gdb_port::Reachability;

use crate::other::Other;
use crate::unused::unused;

#[path = "../../examples/check.rs"]
#[expect(dead_code, reason = "its `main` is of no use here")]
mod check;

async fn status(line: &str) -> u8 {
    check::run(line.split_whitespace().map(str::to_owned)).await
}

#[tokio::test]
async fn free_held_absent_and_not_to_be_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    assert_eq!(status(&format!("{endpoint}")).await, 0);
    assert_eq!(
        status(&format!("--wait 5 --pid {} {endpoint}", std::process::id())).await,
        0
    );
    let mut other = Other::start();
    assert_eq!(
        status(&format!("--pid {} {endpoint}", other.pid())).await,
        6
    );
    other.end();
    let client = TcpStream::connect(endpoint).unwrap();
    let accepted = listener.accept().unwrap();
    assert_eq!(status(&format!("{endpoint}")).await, 3);
    assert_eq!(status(&format!("--probe {endpoint}")).await, 3);
    drop((client, accepted));
    let (_held, endpoint) = unused();
    assert_eq!(status(&format!("{endpoint}")).await, 1);
    assert_eq!(
        status(&format!("--probe --run-on --was-running {endpoint}")).await,
        1
    );
    assert_eq!(status(&format!("--wait 0.02 {endpoint}")).await, 1);
    assert_eq!(status("192.0.2.1:1234").await, 7);
}

#[tokio::test]
async fn what_is_no_stub() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
    assert_eq!(status(&format!("--probe {endpoint}")).await, 5);
    closing.join().unwrap();
}

#[tokio::test]
async fn the_wait_for_a_process_ends_when_it_does() {
    let (_held, endpoint) = unused();
    let mut other = Other::start();
    let line = format!("--wait 300 --pid {} {endpoint}", other.pid());
    assert_eq!(
        status(&line.replace("--wait 300", "--wait 0.1")).await,
        1,
        "it lives"
    );
    other.kill();
    // Dead, and then reaped as well; the wait would be longer than the test may take.
    for _ in 0..2 {
        let waited = tokio::time::timeout(Duration::from_secs(60), status(&line)).await;
        assert_eq!(
            waited.expect("the wait goes on for a process that is gone"),
            1
        );
        other.end();
    }
}

#[test]
fn why_a_connection_waits_is_said_as_it_is() {
    let held = check::waiting_since(&Reachability::HeldByAnotherClient);
    assert!(held.starts_with("another client is attached; "), "{held}");
    let hangs = check::waiting_since(&Reachability::Silent {
        accepted: Some(false),
    });
    assert!(
        hangs.starts_with("it listens, but does not accept connections; "),
        "{hangs}"
    );
}

#[tokio::test]
async fn wrong_usage_and_help() {
    assert_eq!(status("--help").await, 0);
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
        assert_eq!(status(line).await, 2, "{line}");
    }
}
