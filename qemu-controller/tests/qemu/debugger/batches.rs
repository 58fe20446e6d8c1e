//! Hundreds of breakpoints in one run, more than are asked for at once: set, met, and taken out
//! again, also where one of them is refused or the run is dropped.

use qemu_controller::debug::{DebugError, StopReason, Until};

use super::{assert_runs, start};
use crate::support::{DEADLINE, symbol};

const COUNT: usize = 400;

/// Breakpoints at each halfword from `main_loop` on, which the guest is in for most of the time.
fn breakpoints() -> Vec<Until<'static>> {
    let addresses = (symbol("tick", "main_loop") & !1..).step_by(2);
    addresses.take(COUNT).map(Until::reaches).collect()
}

#[tokio::test]
async fn hundreds_of_breakpoints_are_set_met_and_taken_out() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        let stop = debugger.run_until(breakpoints(), DEADLINE).await.unwrap();
        let StopReason::Reached { index, hits: 1 } = stop.reason else {
            panic!("{stop}")
        };
        let pc = (symbol("tick", "main_loop") & !1) + 2 * index as u64;
        assert_eq!(stop.pc, Some(pc), "{stop}");
        assert_ne!(last.replace(pc), Some(pc), "it went on");
    }
    session.resume().await.unwrap();
    assert_runs(&session).await;
}

#[tokio::test]
async fn one_that_is_refused_among_hundreds_leaves_none() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    // A guest that runs is to run on, whatever becomes of it.
    session.resume().await.unwrap();
    // Its memory is looked at before any is set; a watchpoint is refused when others are set.
    for (wrong, is_refused) in [
        (
            Until::reaches as fn(u64) -> Until<'static>,
            (|error| matches!(error, DebugError::NoMemory { .. })) as fn(&DebugError) -> bool,
        ),
        (
            |at| Until::writes(at, 0),
            |error| matches!(error, DebugError::NoWatchpoint { size: 0, .. }),
        ),
    ] {
        let among = || {
            let mut all = breakpoints();
            all.insert(COUNT / 2, wrong(0x7000_0000));
            all
        };
        let error = debugger.run_until(among(), DEADLINE).await.unwrap_err();
        assert!(is_refused(&error), "{error}");
        assert_runs(&session).await;
        // Dropped at any point, in the middle of what takes them out again too.
        for polls in 0..24 {
            let is_done =
                test_support::drop_after(polls, debugger.run_until(among(), DEADLINE)).await;
            assert_runs(&session).await;
            session.pause().await.unwrap();
            debugger.step_instruction().await.unwrap();
            session.resume().await.unwrap();
            if is_done {
                break;
            }
        }
    }
    let error = debugger.run_until(
        breakpoints().into_iter().chain([Until::writes(0, 0)]),
        DEADLINE,
    );
    error.await.unwrap_err();
    drop(debugger);
    assert_runs(&session).await;
}
