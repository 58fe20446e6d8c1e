//! The exit statuses of the example `check`, which scripts rely on.

use std::net::{TcpListener, TcpStream};

use crate::other::Other;

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
    assert_eq!(status(&format!("--pid {} {endpoint}", other.pid())).await, 6);
    other.end();
    let client = TcpStream::connect(endpoint).unwrap();
    let accepted = listener.accept().unwrap();
    assert_eq!(status(&format!("{endpoint}")).await, 3);
    assert_eq!(status(&format!("--probe {endpoint}")).await, 3);
    drop((client, accepted, listener));
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
