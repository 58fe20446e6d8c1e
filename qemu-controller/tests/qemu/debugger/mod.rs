//! The session's own debugger on real QEMU.

mod batches;
mod boards;
mod connections;
mod ends;
mod faults;
mod forks;
mod hand_over;
mod reported;
mod shared_state;
mod verbs;
mod waiting;

use qemu_controller::debug::{Debugger, Stop, StopReason, Until};
use qemu_controller::{QemuConfig, Session};

use crate::support::{DEADLINE, image, symbol};

/// The default board with this image, and no stub of its own.
fn config(name: &str) -> QemuConfig {
    QemuConfig::default()
        .firmware(image(name))
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

/// A board with no firmware, before its first instruction.
fn board(machine: &str) -> QemuConfig {
    QemuConfig::default()
        .machine(machine)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
}

async fn start(name: &str) -> Session {
    Session::start(config(name)).await.unwrap()
}

/// Runs until `tick` is reached, which is five times a second.
async fn run_to_tick(debugger: &mut Debugger) -> Stop {
    run_to(debugger, "tick").await
}

/// Runs until a function is reached; `uart_get` is every 4096 counts.
async fn run_to(debugger: &mut Debugger, function: &str) -> Stop {
    let stop = debugger
        .run_until([Until::reaches(function)], DEADLINE)
        .await;
    let stop = stop.unwrap();
    assert!(
        matches!(stop.reason, StopReason::Reached { index: 0, hits: 1 }),
        "{stop}"
    );
    assert_eq!(stop.pc, Some(symbol("tick", function) & !1), "{stop}");
    stop
}

/// The guest runs, and nothing stops it for good: no breakpoint is left. A debugger that is still
/// leaving may stop it for a moment.
async fn assert_runs(session: &Session) {
    let before = session.read_u32("counter").await.unwrap();
    let is_far = |counter: u32| counter.wrapping_sub(before) >= 100_000;
    let counts = async {
        while !is_far(session.read_u32("counter").await.unwrap())
            || !session.query_status().await.unwrap().running
        {
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::time::timeout(DEADLINE, counts).await;
    let status = session.query_status().await.unwrap();
    assert!(counted.is_ok(), "{status:?}");
}
