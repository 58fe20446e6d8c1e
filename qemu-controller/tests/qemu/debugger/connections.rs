//! Every way to a stub.

use std::net::TcpStream;

use qemu_controller::debug::DebugError;
use qemu_controller::gdb_port::StubAddress;
use qemu_controller::{Endpoint, QemuConfig, Session};

use super::{assert_runs, config, run_to};
use crate::support::{DEADLINE, reserved_port, until};

/// A debugger comes twice, and leaves the guest as it was.
async fn check(session: &Session, way: &str) {
    for _ in 0..2 {
        let mut debugger = session.debugger().await.expect(way);
        run_to(&mut debugger, "uart_get").await;
        session.resume().await.unwrap();
        drop(debugger);
        // It has gone when the next one is there.
        drop(session.debugger().await.expect(way));
        assert_runs(session).await;
    }
    let hand_over = session.debugger().await.unwrap();
    let hand_over = hand_over.hand_over(Endpoint::PrivateSocket).await.unwrap();
    let mut debugger = hand_over.take_back().await.expect(way);
    run_to(&mut debugger, "uart_get").await;
}

async fn started(way: &str, set: impl FnOnce(QemuConfig) -> QemuConfig) {
    let session = Session::start(set(config("tick"))).await.unwrap();
    check(&session, way).await;
}

#[tokio::test]
async fn a_stub_is_had_whatever_the_monitor_is() {
    let (_reserved, port) = reserved_port();
    let tcp = Endpoint::loopback(port);
    started("a TCP monitor", |config| config.qmp(tcp)).await;
    started("a monitor's socket", |config| {
        config.qmp(Endpoint::PrivateSocket)
    })
    .await;
}

#[tokio::test]
async fn the_sessions_own_stub_is_used_and_stays() {
    started("a TCP stub", |config| config.gdb(Endpoint::free_port())).await;
    started("a stub's socket", |config| {
        config.gdb(Endpoint::PrivateSocket)
    })
    .await;

    let config = config("tick").gdb(Endpoint::free_port());
    let session = Session::start(config).await.unwrap();
    drop(session.debugger().await.unwrap());
    drop(session.debugger().await.unwrap());
    let Some(StubAddress::Tcp(address)) = session.gdb().cloned() else {
        panic!("no stub")
    };
    // A debugger that is there keeps it.
    let theirs = until("the stub listens again", || {
        TcpStream::connect(address).ok()
    })
    .await;
    let in_use = tokio::time::timeout(DEADLINE, async {
        loop {
            match session.debugger().await {
                Err(DebugError::StubInUse(at)) => break at,
                // QEMU has not accepted theirs yet; that one gets the place then.
                other => drop(other),
            }
        }
    });
    assert!(in_use.await.unwrap().starts_with("127.0.0.1:"));
    drop(theirs);
}
