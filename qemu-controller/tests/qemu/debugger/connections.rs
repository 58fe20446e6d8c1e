//! Every way to a stub.

use std::net::TcpStream;

use qemu_controller::debug::{DebugError, StopReason, Until};
use qemu_controller::gdb_port::StubAddress;
use qemu_controller::{Address, Endpoint, QemuConfig, Session};
use qemu_launch::Monitor;

use super::{assert_runs, config, run_to};
use crate::support::{DEADLINE, reserved_port, symbol, until};

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

/// It has no firmware and no process of its own, and its monitor can pass no descriptor.
#[tokio::test]
async fn a_session_that_was_attached_over_tcp_has_a_debugger() {
    let (_reserved, port) = reserved_port();
    let second = Monitor::Qmp(Endpoint::loopback(port));
    let owner = Session::start(config("tick").with_spec(|spec| spec.monitor(second)))
        .await
        .unwrap();
    let address = Address::Tcp(([127, 0, 0, 1], port).into());
    let guest = Session::attach(address, DEADLINE).await.unwrap();
    for _ in 0..2 {
        let mut debugger = guest.debugger().await.unwrap();
        let tick = symbol("tick", "uart_get") & !1;
        let stop = debugger.run_to(tick, DEADLINE).await.unwrap();
        assert!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
        assert_eq!(stop.pc, Some(tick));
        let stop = debugger.step_instruction().await.unwrap();
        assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
        assert_eq!(debugger.read_memory(0, 4).await.unwrap(), [0, 0, 1, 0x20]);
        let unknown = debugger.run_until([Until::reaches("uart_get")], DEADLINE);
        assert!(matches!(unknown.await.unwrap_err(), DebugError::Place(_)));
        guest.resume().await.unwrap();
        drop(debugger);
        assert_runs(&owner).await;
    }
    guest.detach().unwrap();
    assert_runs(&owner).await;
}
