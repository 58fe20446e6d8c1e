//! Looks and probes while gdb is attached: it is not disturbed, and no pause is left behind when it
//! detaches.

use gdb_port::{GuestEffect, GuestState, Leave, ProbeOptions, Reachability, inspect, probe};

use crate::debugger::{Session, address};
use test_support::PATIENCE;
use test_support::machine::{Guest, Machine, STUBS};

#[tokio::test]
async fn two_hundred_checks_beside_gdb_leave_no_pause_behind() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let mut gdb = Session::attach(&address(&machine));
        let stopped_at = gdb.run("print $pc");
        for round in 0..200 {
            // The inspect, and every tenth time the probe.
            assert_eq!(
                inspect(&address(&machine), None).reachability(),
                Reachability::HeldByAnotherClient
            );
            if round % 10 == 0 {
                let options = ProbeOptions::default()
                    .guest(GuestState::Running)
                    .leave(Leave::RunOn)
                    .deadline(PATIENCE);
                let report = probe(&address(&machine), &options).await.unwrap();
                assert_eq!(report.reachability, Reachability::HeldByAnotherClient);
                assert_eq!(report.effect, GuestEffect::Untouched);
            }
        }
        assert_eq!(machine.run_state(), "paused");
        let still_at = gdb.run("print $pc");
        let value = |printed: &str| printed.split_once('=').unwrap().1.to_owned();
        assert_eq!(value(&still_at), value(&stopped_at));
        gdb.detach();
        machine.await_attached(false);
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn two_hundred_checks_without_gdb_leave_no_pause_behind() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let options = ProbeOptions::default()
            .guest(GuestState::Running)
            .leave(Leave::RunOn)
            .deadline(PATIENCE);
        for round in 0..200 {
            assert_eq!(
                inspect(&address(&machine), None).reachability(),
                Reachability::Listens
            );
            if round % 10 == 0 {
                let report = probe(&address(&machine), &options).await.unwrap();
                assert_eq!(report.effect, GuestEffect::PausedThenResumed);
            }
        }
        machine.assert_is(Guest::Running);
        Session::attach(&address(&machine)).detach();
        machine.await_attached(false);
        machine.assert_is(Guest::Running);
    }
}
