//! One owner of the run state: the session's verbs beside the debugger's, and what is left behind.

use std::time::Duration;

use qemu_controller::debug::{StopReason, Until};
use qemu_controller::{RunState, Session};
use tokio::time::timeout;

use super::{assert_runs, run_to, run_to_tick, start};
use crate::support::{DEADLINE, long, symbol};

#[tokio::test]
async fn a_debugger_that_goes_leaves_the_run_state_that_was_asked_for() {
    let session = start("tick").await;
    // Stopped for the debugger alone: it runs on.
    drop(session.debugger().await.unwrap());
    assert_eventually_runs(&session).await;
    // Looked at, and no more.
    let mut debugger = session.debugger().await.unwrap();
    debugger.read_registers().await.unwrap();
    drop(debugger);
    assert_eventually_runs(&session).await;
    // Paused by the session.
    let debugger = session.debugger().await.unwrap();
    session.pause().await.unwrap();
    drop(debugger);
    assert_stays_stopped(&session).await;
    // It was stopped before.
    drop(session.debugger().await.unwrap());
    assert_stays_stopped(&session).await;
    // Run until something: it stays there.
    let mut debugger = session.debugger().await.unwrap();
    run_to_tick(&mut debugger).await;
    drop(debugger);
    assert_stays_stopped(&session).await;
    // Let run by the session: it runs on, and no breakpoint is left.
    let mut debugger = session.debugger().await.unwrap();
    run_to_tick(&mut debugger).await;
    session.resume().await.unwrap();
    drop(debugger);
    assert_eventually_runs(&session).await;
}

/// When the next debugger is there, the last one has gone.
async fn assert_stays_stopped(session: &Session) {
    drop(session.debugger().await.unwrap());
    drop(session.debugger().await.unwrap());
    assert!(!session.query_status().await.unwrap().running);
}

async fn assert_eventually_runs(session: &Session) {
    let mut state = session.watch_run_state();
    let runs = state.wait_for(|state| *state == RunState::Running);
    timeout(DEADLINE, runs).await.unwrap().unwrap();
    assert_runs(session).await;
}

/// Until the guest has counted on.
async fn wait_for_counts(session: &Session) {
    let before = session.read_u32("counter").await.unwrap();
    let counts = async {
        while session.read_u32("counter").await.unwrap() == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, counts).await.unwrap();
}

#[tokio::test]
async fn a_run_that_is_dropped_goes_on_without_its_breakpoints() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    for polls in 0..16 {
        run_to(&mut debugger, "uart_get").await;
        let run = debugger.run_until([Until::reaches("uart_get").skip(3)], DEADLINE);
        test_support::drop_after(polls, run).await;
        // Whatever had become of it: no breakpoint is left.
        session.resume().await.unwrap();
        assert_eventually_runs(&session).await;
        session.pause().await.unwrap();
    }
    // By a time-out, in the middle of a run.
    let run = debugger.run_until([Until::reaches("hard_fault")], DEADLINE);
    timeout(Duration::from_millis(30), run).await.unwrap_err();
    drop(debugger);
    assert_eventually_runs(&session).await;
}

#[tokio::test]
async fn a_step_or_a_question_that_is_dropped_leaves_the_debugger_in_step() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    for polls in 0..8 {
        session.pause().await.unwrap();
        run_to(&mut debugger, "uart_get").await;
        test_support::drop_after(polls, debugger.step_instruction()).await;
        session.pause().await.unwrap();
        test_support::drop_after(polls, debugger.read_memory(0, 20_000)).await;
        test_support::drop_after(polls, debugger.read_registers()).await;
        let memory = debugger.read_memory(0, 4).await.unwrap();
        assert_eq!(memory, [0, 0, 1, 0x20]);
    }
}

#[tokio::test]
async fn pausing_ends_a_run_and_saves_and_resets_do_not() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    let run = debugger.run_until([Until::reaches("hard_fault")], DEADLINE);
    let (stop, ()) = tokio::join!(run, async {
        wait_for_counts(&session).await;
        session.pause().await.unwrap();
    });
    let stop = stop.unwrap();
    assert!(matches!(stop.reason, StopReason::Paused), "{stop}");

    // A save stops the guest for a moment, and lets it run by the monitor; the breakpoint holds.
    let run = debugger.run_until([Until::reaches("uart_get").skip(2000)], DEADLINE);
    let (stop, ()) = tokio::join!(run, async {
        wait_for_counts(&session).await;
        session.save_snapshot("in-a-run").await.unwrap();
        session.reset().await.unwrap();
        session.pause().await.unwrap();
        session.resume().await.unwrap();
    });
    let stop = stop.unwrap();
    let reached = matches!(stop.reason, StopReason::Reached { index: 0, .. });
    assert!(
        reached || matches!(stop.reason, StopReason::Paused),
        "{stop}"
    );
    session.pause().await.unwrap();
    run_to(&mut debugger, "uart_get").await;
}

#[tokio::test]
async fn breakpoints_are_met_after_each_reset_and_load() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    run_to(&mut debugger, "uart_get").await;
    session.save_snapshot("there").await.unwrap();
    let saved = session.read_u32("counter").await.unwrap();
    for round in 0..rounds() {
        run_to(&mut debugger, "uart_get").await;
        let next = session.read_u32("counter").await.unwrap();
        assert_eq!(next, saved + 4096, "round {round}");
        if round % 2 == 1 {
            session.reset().await.unwrap();
            run_to(&mut debugger, "uart_get").await;
            assert_eq!(session.read_u32("counter").await.unwrap(), 4096);
        }
        session.load_snapshot("there").await.unwrap();
        let pc = debugger.read_register("pc").await.unwrap();
        assert_eq!(pc, symbol("tick", "uart_get") & !1);
    }
}

/// A thousand where the long tests are asked for.
fn rounds() -> usize {
    if long() { 1000 } else { 20 }
}

#[tokio::test]
async fn a_stub_that_nobody_asks_does_not_wedge_qemu() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    // 7.2 says something at each stop, and hangs when 278 of them are not read.
    for _ in 0..600 {
        session.resume().await.unwrap();
        session.pause().await.unwrap();
    }
    run_to(&mut debugger, "uart_get").await;
    session.resume().await.unwrap();
    assert_runs(&session).await;
}
