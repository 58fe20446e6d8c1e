//! The kill matrix: QEMU killed or stopped in each phase of a session. Who waits learns of it, and
//! nothing is left. What ends QEMU otherwise differs in its `ExitKind` alone, which has its own
//! test.
//!
//! What holds a phase is never luck: a QEMU that reads its options from a FIFO does not listen yet,
//! one that loads a FIFO has greeted and answers nothing, one that dumps memory into a FIFO is in
//! the middle of a command, and a relay lets pass what it likes.

use std::time::{Duration, Instant};

use qemu_controller::SessionEnd;
use rustix::process::Signal;

use crate::support::{DEADLINE, start};

mod ready;
mod relayed;
mod starting;

const SIGNALS: [Signal; 2] = [Signal::KILL, Signal::STOP];

/// A deadline that is part of what is tested with SIGSTOP, after which QEMU reads nothing; out of
/// reach with the others.
fn patience(signal: Signal, short: Duration) -> Duration {
    if signal == Signal::STOP {
        short
    } else {
        DEADLINE
    }
}

/// The same for a deadline within which something has to come to pass first: many times what a
/// whole session takes just now, on a machine that may be busy.
async fn patience_for_a_start(signal: Signal) -> Duration {
    if signal != Signal::STOP {
        return DEADLINE;
    }
    let since = Instant::now();
    start("tick").await.stop().await.unwrap();
    Duration::from_secs(5) + 10 * since.elapsed()
}

/// Whether QEMU was ended by this signal.
fn ended_by(ended: Option<&SessionEnd>, signal: Signal) -> bool {
    matches!(ended, Some(SessionEnd::Exited(exit)) if exit.signal() == Some(signal.as_raw()))
}
