//! The GDB stub: found, and checked without harm to the guest.

use gdb_port::{GuestEffect, Reachability};
use qemu_controller::{Endpoint, GdbError, RunState, Session};
use tokio::net::TcpStream;

use crate::support::{config, counts, start};

#[tokio::test]
async fn checks_leave_the_run_state_as_it_was() {
    let session = Session::start(config("tick").wait_for_gdb(true))
        .await
        .unwrap();
    for (round, state) in [RunState::Prelaunch, RunState::Running, RunState::Paused]
        .into_iter()
        .enumerate()
    {
        match round {
            0 => {}
            1 => session.resume().await.unwrap(),
            _ => session.pause().await.unwrap(),
        }
        for check in [
            session.check_gdb().await.unwrap(),
            session.probe_gdb().await.unwrap(),
        ] {
            assert!(check.reachability.can_attach(), "{}", check.reachability);
            assert_eq!(
                (&check.before.status, &check.after.status),
                (&state, &state)
            );
        }
        assert_eq!(session.query_status().await.unwrap().status, state);
    }
    session.resume().await.unwrap();
    assert!(counts(&session).await);
}

#[tokio::test]
async fn a_look_touches_nothing_and_a_probe_asks_who_it_is() {
    let session = start("tick").await;
    let mut events = session.events();
    let look = session.check_gdb().await.unwrap();
    assert_eq!(
        (look.reachability, look.effect),
        (Reachability::Listens, GuestEffect::Untouched)
    );
    session.pause().await.unwrap();
    assert_eq!(
        events.next().await.unwrap().unwrap().name,
        "STOP",
        "no event came before the one of this pause"
    );
    session.resume().await.unwrap();

    let probe = session.probe_gdb().await.unwrap();
    let Reachability::Answers(identity) = &probe.reachability else {
        panic!("{}", probe.reachability)
    };
    assert_eq!(
        identity.target.as_ref().unwrap().architecture.as_deref(),
        Some("arm")
    );
    assert_eq!(probe.effect, GuestEffect::PausedThenResumed);
}

#[tokio::test]
async fn a_stub_that_is_held_is_left_alone() {
    let session = start("tick").await;
    let gdb_port::StubAddress::Tcp(address) = session.gdb().unwrap() else {
        panic!("not TCP")
    };
    let stopped = session.wait_for_event("STOP", |event| event.name == "STOP");
    let debugger = TcpStream::connect(address).await.unwrap();
    stopped.await.unwrap();
    for check in [
        session.check_gdb().await.unwrap(),
        session.probe_gdb().await.unwrap(),
    ] {
        assert_eq!(check.reachability, Reachability::HeldByAnotherClient);
        assert_eq!(check.effect, GuestEffect::Untouched);
    }
    drop(debugger);
    session.resume().await.unwrap();
    assert!(counts(&session).await);
}

#[tokio::test]
async fn over_a_socket_and_without_a_stub() {
    let session = Session::start(config("tick").gdb(Endpoint::PrivateSocket))
        .await
        .unwrap();
    assert!(session.check_gdb().await.unwrap().reachability.can_attach());
    assert!(matches!(
        session.probe_gdb().await.unwrap().reachability,
        Reachability::Answers(_)
    ));
    let session = Session::start(config("tick").without_gdb()).await.unwrap();
    assert!(session.gdb().is_none());
    assert!(matches!(session.check_gdb().await, Err(GdbError::NoStub)));
}
