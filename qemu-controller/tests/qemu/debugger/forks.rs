//! Forks of a guest that is being debugged.

use qemu_controller::debug::{DebugError, StopReason, Until};

use super::{assert_runs, run_to, run_to_tick, start};
use crate::support::DEADLINE;

#[tokio::test]
async fn each_fork_meets_the_breakpoints_that_it_is_given() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    run_to_tick(&mut debugger).await;
    let ticks = session.read_u32("tick_count").await.unwrap();
    let pc = debugger.read_register("pc").await.unwrap();

    let forks = debugger.fork(3).await.unwrap();
    for (count, (fork, mut forked)) in forks.into_iter().enumerate() {
        assert_eq!(forked.read_register("pc").await.unwrap(), pc);
        // The first, second and third tick from here on: the one where it is is not met again.
        let until = Until::reaches("tick").skip(count as u64);
        let stop = forked.run_until([until], DEADLINE).await.unwrap();
        let reached =
            matches!(stop.reason, StopReason::Reached { hits, .. } if hits == count as u64 + 1);
        assert!(reached, "{stop}");
        let now = fork.read_u32("tick_count").await.unwrap();
        assert_eq!(now, ticks + 1 + count as u32);
        // Its breakpoints are its own, and gone with its debugger.
        fork.resume().await.unwrap();
        drop(forked);
        assert_runs(&fork).await;
    }
    // This one has not moved, and goes on.
    assert_eq!(session.read_u32("tick_count").await.unwrap(), ticks);
    assert_eq!(debugger.read_register("pc").await.unwrap(), pc);
    run_to(&mut debugger, "uart_get").await;

    session.resume().await.unwrap();
    let error = debugger.fork(1).await.unwrap_err();
    assert!(matches!(error, DebugError::Running), "{error}");
}
