//! A guest or a QEMU that ends while it is debugged: a verdict or a typed error, within the deadline.

use std::time::{Duration, Instant};

use qemu_controller::debug::{DebugError, StopReason, Until};
use qemu_controller::{RunState, Semihosting, Session, Verdict};

use super::{assert_runs, config, run_to_tick, start};
use crate::support::DEADLINE;

#[tokio::test]
async fn a_guest_that_ends_is_a_verdict() {
    let config = config("semihosting-exit").semihosting(Semihosting::console());
    let session = Session::start(config.start_paused(true)).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let stop = debugger
        .run_until([Until::reaches(0x10)], DEADLINE)
        .await
        .unwrap();
    let StopReason::Ended(verdict) = stop.reason else {
        panic!("{stop}")
    };
    assert!(matches!(*verdict, Verdict::Exited { .. }), "{verdict}");
    let error = debugger.read_registers().await.unwrap_err();
    assert!(matches!(error, DebugError::Command(_)), "{error}");
}

#[tokio::test]
async fn a_lockup_is_a_verdict() {
    let session = Session::start(config("lockup").start_paused(true))
        .await
        .unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let stop = debugger.run_until([], DEADLINE).await.unwrap();
    let StopReason::Ended(verdict) = stop.reason else {
        panic!("{stop}")
    };
    assert!(matches!(*verdict, Verdict::LockedUp { .. }), "{verdict}");
}

#[tokio::test]
async fn a_qemu_that_is_killed_in_any_phase_is_told() {
    for phase in 0..4 {
        let session = start("tick").await;
        let mut debugger = session.debugger().await.unwrap();
        run_to_tick(&mut debugger).await;
        let kill = || session.process().unwrap().kill();
        let began = Instant::now();
        match phase {
            0 => {
                kill();
                let stop = debugger.step_instruction().await;
                assert!(
                    stop.is_err() || matches!(stop.unwrap().reason, StopReason::Ended(_)),
                    "no step"
                );
            }
            1 => {
                let run = debugger.run_until([Until::reaches("hard_fault")], DEADLINE);
                let (stop, ()) = tokio::join!(run, async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    kill();
                });
                let stop = stop.unwrap();
                assert!(matches!(stop.reason, StopReason::Ended(_)), "{stop}");
            }
            2 => {
                // One after another, until it is dead.
                kill();
                while debugger.read_memory(0, 20_000).await.is_ok() {}
            }
            _ => {
                kill();
                drop(debugger);
            }
        }
        assert!(began.elapsed() < DEADLINE, "phase {phase}");
    }
}

/// The stub's stream is over before the session knows it.
#[tokio::test]
async fn a_question_to_a_qemu_that_was_killed_says_so() {
    for question in [
        "registers",
        "memory",
        "write",
        "threads",
        "backtrace",
        "step",
    ] {
        let session = start("tick").await;
        let mut debugger = session.debugger().await.unwrap();
        run_to_tick(&mut debugger).await;
        let pid = rustix::process::Pid::from_raw(session.pid().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let error = match question {
            "registers" => debugger.read_registers().await.map(drop),
            "memory" => debugger.read_memory(0, 20_000).await.map(drop),
            "write" => debugger.write_memory("counter", &[1]).await,
            "threads" => debugger.threads().await.map(drop),
            "backtrace" => debugger.backtrace().await.map(drop),
            _ => debugger.step_instruction().await.map(drop),
        };
        let error = error.unwrap_err().to_string();
        assert!(error.contains("signal 9"), "{question}: {error}");
    }
}

#[tokio::test]
async fn a_qemu_that_is_held_up_is_told_within_the_deadline() {
    let session = start("tick").await;
    let mut debugger = session
        .with_deadline(Duration::from_millis(300))
        .debugger()
        .await
        .unwrap();
    run_to_tick(&mut debugger).await;
    let pid = rustix::process::Pid::from_raw(session.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let error = debugger.read_registers().await.unwrap_err();
    assert!(matches!(error, DebugError::Deadline { .. }), "{error}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    // The late answer is dropped, and the next question has its own.
    assert_eq!(debugger.read_memory(0, 4).await.unwrap(), [0, 0, 1, 0x20]);
}

#[tokio::test]
async fn a_qemu_that_is_held_up_in_a_verb_leaves_nothing_of_it() {
    for phase in ["step", "run", "memory", "registers"] {
        let session = start("tick").await;
        let short = session.with_deadline(Duration::from_millis(300));
        let mut debugger = short.debugger().await.unwrap();
        run_to_tick(&mut debugger).await;
        let pid = rustix::process::Pid::from_raw(session.pid().unwrap() as i32).unwrap();
        let began = Instant::now();
        if phase == "run" {
            let run = debugger.run_until([Until::reaches("hard_fault")], Duration::from_secs(1));
            let (error, ()) = tokio::join!(run, async {
                let mut state = session.watch_run_state();
                let runs = state.wait_for(|state| *state == RunState::Running);
                tokio::time::timeout(DEADLINE, runs).await.unwrap().unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            });
            let error = error.unwrap_err();
            assert!(error.to_string().contains("300ms"), "{phase}: {error}");
        } else {
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            let error = match phase {
                "step" => match debugger.step_instruction().await {
                    Err(error) => error,
                    Ok(stop) => panic!("{stop}"),
                },
                "memory" => debugger.read_memory(0, 20_000).await.unwrap_err(),
                _ => debugger.read_registers().await.unwrap_err(),
            };
            assert!(error.to_string().contains("300ms"), "{phase}: {error}");
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{phase}");
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        drop(debugger);
        // The next one comes when the last has gone; no breakpoint is left, and nobody holds it.
        let mut debugger = session.debugger().await.unwrap();
        run_to_tick(&mut debugger).await;
        session.resume().await.unwrap();
        drop(debugger);
        assert_runs(&session).await;
    }
}
