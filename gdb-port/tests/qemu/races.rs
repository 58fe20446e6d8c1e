//! Races and interruptions: a client that is faster, a QEMU that hangs, a probe that is dropped in
//! the middle.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gdb_port::probe_unlooked;
use gdb_port::{
    GuestEffect, Leave, ListenState, ProbeOptions, Reachability, Report, inspect, probe,
};

use crate::client::{Client, address};
use crate::probes::{identity, options, run_on};
use test_support::machine::{Guest, Machine, STUBS};
use test_support::{PATIENCE, eventually};

/// Until nobody is attached, leaving or queued: whatever a connection could do to the guest is done
/// then.
fn await_free(machine: &mut Machine) {
    eventually("the stub is free", || {
        inspect(&address(machine), None).reachability() == Reachability::Listens
    });
    machine.await_attached(false);
}

/// A probe that another client forestalled between look and connection: brought about by not
/// looking.
async fn forestalled(machine: &Machine, options: &ProbeOptions) -> Report {
    // On a unix socket, which of two connections waits is not shown: the deadline decides.
    let options = options.clone().deadline(Duration::from_millis(300));
    let report = probe_unlooked(&address(machine), &options).await.unwrap();
    assert_eq!(report.reachability, Reachability::HeldByAnotherClient);
    assert_eq!(report.effect, GuestEffect::Pending);
    report
}

#[tokio::test]
async fn a_forestalled_probe_that_is_finished_leaves_no_trap() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let client = Client::attach(&mut machine);
        let waiting = forestalled(&machine, &run_on()).await.queued.unwrap();
        // Still held: the report has the connection again.
        let report = waiting.finish(Duration::from_millis(50)).await;
        assert_eq!(report.effect, GuestEffect::Pending);
        client.detach();
        let report = report.queued.unwrap().finish(PATIENCE).await;
        identity(&report);
        assert_eq!(report.effect, GuestEffect::PausedThenResumed, "{stub:?}");
        await_free(&mut machine);
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn a_forestalled_probe_that_is_dropped_lets_a_guest_known_to_run_run_on() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let client = Client::attach(&mut machine);
        drop(forestalled(&machine, &run_on()).await);
        client.detach();
        await_free(&mut machine);
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn a_forestalled_probe_that_is_dropped_without_that_knowledge_is_the_trap_it_says_it_is() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let client = Client::attach(&mut machine);
        drop(forestalled(&machine, &options().leave(Leave::RunOn)).await);
        client.detach();
        await_free(&mut machine);
        machine.assert_is(Guest::Paused);
    }
}

#[tokio::test]
async fn a_qemu_that_hangs_is_silent_and_the_connection_can_be_finished_when_it_goes_on() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        machine.signal("STOP");
        let options = run_on().deadline(Duration::from_secs(1));
        let report = probe(&address(&machine), &options).await.unwrap();
        assert_eq!(
            report.reachability,
            Reachability::Silent {
                accepted: Some(false)
            },
            "{stub:?}"
        );
        assert_eq!(report.effect, GuestEffect::Pending);
        assert!(
            matches!(inspect(&address(&machine), None), ListenState::Present(listener) if listener.queued == 1)
        );
        machine.signal("CONT");
        let report = report.queued.unwrap().finish(PATIENCE).await;
        identity(&report);
        assert_eq!(report.effect, GuestEffect::PausedThenResumed);
        await_free(&mut machine);
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn probes_at_the_same_time_leave_the_guest_running() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        for _ in 0..30 {
            let (options, endpoint) = (run_on(), address(&machine));
            let probes = tokio::join!(
                probe(&endpoint, &options),
                probe(&endpoint, &options),
                probe(&endpoint, &options)
            );
            let mut answered = 0;
            for report in [probes.0, probes.1, probes.2] {
                let mut report = report.unwrap();
                while let Some(queued) = report.queued.take() {
                    report = queued.finish(PATIENCE).await;
                }
                answered += usize::from(matches!(report.reachability, Reachability::Answers(_)));
            }
            assert!(answered > 0);
            await_free(&mut machine);
            assert_eq!(machine.run_state(), "running");
        }
        machine.assert_is(Guest::Running);
    }
}

#[tokio::test]
async fn a_probe_dropped_at_any_point_lets_the_guest_run_on() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let options = run_on();
        for polls in 0.. {
            let endpoint = address(&machine);
            let ended = DropAfter {
                future: Some(Box::pin(probe(&endpoint, &options))),
                polls,
            }
            .await;
            await_free(&mut machine);
            assert_eq!(
                machine.run_state(),
                "running",
                "{stub:?}, dropped after {polls} polls"
            );
            if ended {
                break;
            }
        }
        machine.assert_is(Guest::Running);
    }
}

/// Polls a future so many times and drops it then; says whether it had ended before.
struct DropAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: u32,
}

impl<F: Future> Future for DropAfter<F> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if self.polls == 0 {
            self.future = None;
            return Poll::Ready(false);
        }
        self.polls -= 1;
        self.future
            .as_mut()
            .unwrap()
            .as_mut()
            .poll(context)
            .map(|_| true)
    }
}
