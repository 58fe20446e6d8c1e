//! Waiting for a listener of this process.

use std::future::{pending, ready};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use gdb_port::{StubAddress, UnknownReason, WaitError, wait_until_listening};

use crate::other::Other;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_listener_that_comes_later_ends_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gdb.sock");
    let endpoint = StubAddress::Unix(path.clone());
    let later = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        UnixListener::bind(path).unwrap()
    };
    let wait = wait_until_listening(&endpoint, Some(std::process::id()), LONG, pending::<()>());
    let (waited, _listener) = tokio::join!(wait, later);
    assert_eq!(waited.unwrap().attached, 0);
}

#[tokio::test]
async fn the_wait_ends_with_the_process_at_the_deadline_or_where_it_cannot_see() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = StubAddress::Tcp(listener.local_addr().unwrap());
    // Somebody else's listener is not waited for at all once the process is gone, and until the
    // deadline before.
    let mut other = Other::start();
    let pid = Some(other.pid());
    let gone = wait_until_listening(&endpoint, pid, LONG, ready(())).await;
    assert!(matches!(gone, Err(WaitError::ProcessGone { .. })));
    let over =
        wait_until_listening(&endpoint, pid, Duration::from_millis(30), pending::<()>()).await;
    other.end();
    let Err(error @ WaitError::Deadline { .. }) = over else {
        panic!("{over:?}")
    };
    assert!(
        error.to_string().contains("another process listens"),
        "{error}"
    );
    let elsewhere = "192.0.2.1:9".parse().unwrap();
    let blind = wait_until_listening(&elsewhere, None, LONG, pending::<()>()).await;
    assert!(matches!(
        blind,
        Err(WaitError::CannotSee {
            reason: UnknownReason::NotThisHost,
            ..
        })
    ));
}
