//! gdb attaches right after a check, and debugs.

use gdb_port::{GuestEffect, GuestState, Leave, ProbeOptions, Reachability, inspect, probe};

use crate::debugger::{address, batch};
use test_support::PATIENCE;
use test_support::machine::{Guest, Machine, STUBS};

/// Registers, a symbol, memory, and a breakpoint that is met; then gdb lets the guest run on.
fn debug(machine: &Machine) {
    let printed = batch(
        &address(machine),
        &[
            "info registers pc",
            "print/x &counter",
            "x/1xw 0",
            "break tick",
            "continue",
            "print $pc >= (long) tick && $pc < (long) tick + 16",
            "delete",
            "detach",
        ],
    );
    for expected in [
        "pc             0x",
        "$1 = 0x20000000",
        "0x20010000",
        "Breakpoint 1, ",
        "in tick ()",
        "$2 = 1",
        "detached",
    ] {
        assert!(printed.contains(expected), "no '{expected}' in:\n{printed}");
    }
}

#[test]
fn right_after_a_look() {
    for stub in STUBS {
        for guest in [Guest::Running, Guest::Prelaunch] {
            let mut machine = Machine::start(stub, guest);
            assert_eq!(
                inspect(&address(&machine), Some(machine.pid())).reachability(),
                Reachability::Listens
            );
            debug(&machine);
            machine.await_attached(false);
            machine.assert_is(Guest::Running);
        }
    }
}

#[tokio::test]
async fn right_after_a_probe_that_ran_on_or_left_the_guest_paused() {
    for stub in STUBS {
        for leave in [Leave::RunOn, Leave::Paused] {
            let mut machine = Machine::start(stub, Guest::Running);
            let options = ProbeOptions::default()
                .guest(GuestState::Running)
                .leave(leave)
                .deadline(PATIENCE);
            let report = probe(&address(&machine), &options).await.unwrap();
            assert!(report.reachability.can_attach(), "{}", report.reachability);
            let expected = if leave == Leave::RunOn {
                "running"
            } else {
                "paused"
            };
            assert_eq!(machine.run_state(), expected);
            debug(&machine);
            machine.await_attached(false);
            machine.assert_is(Guest::Running);
        }
    }
}

#[tokio::test]
async fn a_probe_right_after_gdb_lets_the_guest_run_on() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        for _ in 0..3 {
            batch(&address(&machine), &["info registers pc", "detach"]);
            machine.await_attached(false);
            let options = ProbeOptions::default()
                .guest(GuestState::Running)
                .leave(Leave::RunOn)
                .deadline(PATIENCE);
            let report = probe(&address(&machine), &options).await.unwrap();
            assert!(report.reachability.can_attach(), "{}", report.reachability);
            assert_eq!(report.effect, GuestEffect::PausedThenResumed);
            machine.assert_is(Guest::Running);
        }
    }
}
