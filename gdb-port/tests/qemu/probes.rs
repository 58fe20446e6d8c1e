//! Probes: who answers, and that the guest is left as the report says.

use std::time::Duration;

use gdb_port::gdb_remote::reply::{Feature, StopReply};
use gdb_port::{
    GuestEffect, GuestState, Leave, ListenState, ProbeOptions, Reachability, Report, StubIdentity,
    blocking, inspect, probe, probe_stream,
};

use crate::client::{Client, address};
use test_support::machine::{Guest, Machine, STUBS, Stub};
use test_support::{PATIENCE, eventually};

/// The deadline that a loaded machine needs at worst; an idle one is a thousand times faster.
pub(crate) fn options() -> ProbeOptions {
    ProbeOptions::default().deadline(PATIENCE)
}

/// For a guest that runs, and is to run on.
pub(crate) fn run_on() -> ProbeOptions {
    options().leave(Leave::RunOn).guest(GuestState::Running)
}

pub(crate) fn identity(report: &Report) -> &StubIdentity {
    match &report.reachability {
        Reachability::Answers(identity) => identity,
        other => panic!("no stub answers: {other}"),
    }
}

#[tokio::test]
async fn two_hundred_probes_let_a_running_guest_run_on() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let options = run_on().owner(machine.pid());
        for _ in 0..stub.rounds() {
            let report = probe(&address(&machine), &options).await.unwrap();
            identity(&report);
            assert_eq!(report.effect, GuestEffect::PausedThenResumed);
            assert_eq!(machine.run_state(), "running");
        }
        machine.assert_is(Guest::Running);
    }
}

#[test]
fn a_probe_without_a_runtime_lets_a_running_guest_run_on() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        for _ in 0..20 {
            let report = blocking::probe(&address(&machine), &run_on()).unwrap();
            identity(&report);
            assert_eq!(report.effect, GuestEffect::PausedThenResumed);
            assert_eq!(machine.run_state(), "running");
        }
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn probes_never_resume_a_guest_that_did_not_run() {
    for stub in STUBS {
        for guest in [Guest::Paused, Guest::Prelaunch] {
            let mut machine = Machine::start(stub, guest);
            for known in [None, Some(GuestState::Stopped)] {
                let mut options = options().leave(Leave::RunOn);
                options.guest = known;
                for _ in 0..stub.rounds() / 2 {
                    let report = probe(&address(&machine), &options).await.unwrap();
                    identity(&report);
                    let expected =
                        known.map_or(GuestEffect::LeftStopped, |_| GuestEffect::StillStopped);
                    assert_eq!(report.effect, expected);
                }
                machine.assert_is(guest);
            }
        }
    }
}

#[tokio::test]
async fn a_probe_that_leaves_the_guest_paused_says_so() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let options = options().guest(GuestState::Running);
        let report = probe(&address(&machine), &options).await.unwrap();
        assert_eq!(report.effect, GuestEffect::LeftPaused);
        machine.assert_is(Guest::Paused);
    }
}

#[tokio::test]
async fn a_guest_of_which_nothing_was_said_runs_on_where_the_stub_shows_that_it_ran() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let (effect, guest) = if machine.shows_that_it_ran() {
            (GuestEffect::PausedThenResumed, Guest::Running)
        } else {
            (GuestEffect::LeftStopped, Guest::Paused)
        };
        for multiprocess in [false, true] {
            if multiprocess {
                let mut client = Client::attach(&mut machine);
                client.agree_multiprocess();
                client.detach();
                machine.await_attached(false);
            }
            let report = probe(&address(&machine), &options().leave(Leave::RunOn))
                .await
                .unwrap();
            assert_eq!(
                report.effect, effect,
                "{stub:?}, multiprocess: {multiprocess}"
            );
            machine.assert_is(guest);
        }
    }
}

#[tokio::test]
async fn qemus_stub_is_identified() {
    let machine = Machine::start(Stub::Tcp4, Guest::Running);
    let report = probe(&address(&machine), &options()).await.unwrap();
    let identity = identity(&report);
    assert_eq!(identity.features.packet_size(), Some(4096));
    assert_eq!(
        identity.features.find("qXfer:features:read"),
        Some(&Feature::Supported)
    );
    let Some(StopReply::Signal {
        thread: Some(thread),
        ..
    }) = &identity.stop
    else {
        panic!("{identity:?}")
    };
    assert_eq!(thread.thread, gdb_remote::reply::Id::One(1));
    let target = identity.target.as_ref().unwrap();
    assert_eq!(target.architecture.as_deref(), Some("arm"));
    let names: Vec<&str> = target
        .core_registers()
        .map(|register| register.name.as_str())
        .collect();
    let expected = "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 sp lr pc xpsr";
    assert_eq!(names.join(" "), expected);
    let xpsr = target.core_registers().last().unwrap();
    assert_eq!((xpsr.number, xpsr.bits), (25, 32));
}

#[tokio::test]
async fn an_earlier_debuggers_multiprocess_does_not_hinder_leaving() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let mut client = Client::attach(&mut machine);
        client.agree_multiprocess();
        client.detach();
        machine.await_attached(false);
        for _ in 0..20 {
            let report = probe(&address(&machine), &run_on()).await.unwrap();
            assert_eq!(report.effect, GuestEffect::PausedThenResumed);
            machine.assert_is(Guest::Running);
        }
    }
}

#[tokio::test]
async fn two_hundred_probes_while_a_client_is_attached_set_no_trap() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let client = Client::attach(&mut machine);
        for _ in 0..200 {
            let report = probe(&address(&machine), &options().leave(Leave::RunOn))
                .await
                .unwrap();
            assert_eq!(report.reachability, Reachability::HeldByAnotherClient);
            assert_eq!(report.effect, GuestEffect::Untouched);
        }
        client.detach();
        machine.await_attached(false);
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn a_client_whose_connection_closes_is_waited_for() {
    let mut machine = Machine::start(Stub::Tcp4, Guest::Running);
    for _ in 0..50 {
        drop(Client::attach(&mut machine));
        // On a loaded machine the kernel tells the other end a moment later; what is left then is
        // QEMU's to close.
        eventually(
            "the client has gone",
            || !matches!(inspect(&address(&machine), None), ListenState::Present(listener) if listener.attached > 0),
        );
        let report = probe(&address(&machine), &options()).await.unwrap();
        identity(&report);
    }
}

#[tokio::test]
async fn an_open_stream_is_probed_as_well() {
    let mut machine = Machine::start(Stub::Unix, Guest::Running);
    let gdb_port::StubAddress::Unix(path) = &address(&machine) else {
        panic!("not a unix socket")
    };
    let stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let outcome = probe_stream(stream, &run_on()).await;
    assert!(matches!(outcome.reachability, Reachability::Answers(_)));
    assert_eq!(outcome.effect, GuestEffect::PausedThenResumed);
    machine.assert_is(Guest::Running);
}

#[tokio::test]
async fn nobody_and_somebody_else_are_told_without_connecting() {
    let mut machine = Machine::start(Stub::Tcp4, Guest::Running);
    let options = ProbeOptions::default()
        .deadline(Duration::from_secs(1))
        .owner(std::process::id());
    let report = probe(&address(&machine), &options).await.unwrap();
    assert_eq!(
        report.reachability,
        Reachability::OtherProcess {
            pid: Some(machine.pid())
        }
    );
    machine.assert_is(Guest::Running);
    machine.kill();
    let report = probe(&address(&machine), &options).await.unwrap();
    assert_eq!(report.reachability, Reachability::NobodyListens);
    assert_eq!(report.effect, GuestEffect::Untouched);
}
