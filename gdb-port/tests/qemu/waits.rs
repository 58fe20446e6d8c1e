//! Waiting for the stub of a QEMU that is just starting.

use std::future::{pending, ready};
use std::time::Duration;

use gdb_port::{StubAddress, WaitError, wait_until_listening};

use crate::client::address;
use test_support::PATIENCE;
use test_support::machine::{Guest, Machine, STUBS, Stub, qemu};

#[tokio::test]
async fn the_wait_ends_when_the_stub_of_the_process_listens() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let endpoint = address(&machine);
        let wait = wait_until_listening(&endpoint, Some(machine.pid()), PATIENCE, pending::<()>());
        let listener = wait.await.unwrap();
        assert_eq!((listener.attached, listener.queued), (0, 0));
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn the_wait_begins_before_qemu_does() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gdb.sock");
    let endpoint = StubAddress::Unix(socket.clone());
    let starting = async {
        let mut command = qemu(&folder.path().join("qmp.sock"));
        command
            .arg("-gdb")
            .arg(format!("unix:{},server=on,wait=off", socket.display()));
        command.spawn().unwrap()
    };
    let wait = wait_until_listening(&endpoint, None, PATIENCE, pending::<()>());
    let (waited, mut child) = tokio::join!(wait, starting);
    child.kill().unwrap();
    child.wait().unwrap();
    waited.unwrap();
}

#[tokio::test]
async fn the_wait_ends_at_once_when_qemu_is_gone() {
    let mut machine = Machine::start(Stub::Tcp4, Guest::Running);
    let endpoint = address(&machine);
    machine.kill();
    let wait = wait_until_listening(&endpoint, Some(machine.pid()), PATIENCE, ready(()));
    assert!(matches!(wait.await, Err(WaitError::ProcessGone { .. })));
    let wait = wait_until_listening(&endpoint, None, Duration::from_millis(50), pending::<()>());
    assert!(matches!(wait.await, Err(WaitError::Deadline { .. })));
}
