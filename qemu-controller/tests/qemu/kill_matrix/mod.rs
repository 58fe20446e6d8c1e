//! The kill matrix: QEMU killed, crashed, aborted or stopped in each phase of a session. Who waits is told,
//! and nothing is left.
//!
//! What holds a phase is never luck: a QEMU that reads its options from a FIFO does not listen yet, one that
//! loads a FIFO has greeted and answers nothing, one that dumps memory into a FIFO is in the middle of a
//! command, and a relay lets pass what it likes.

use std::time::Duration;

use qemu_controller::Ended;
use rustix::process::Signal;

use crate::support::DEADLINE;

mod ready;
mod relayed;
mod starting;

const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::SEGV, Signal::ABORT, Signal::STOP];

/// A deadline that is part of what is tested with SIGSTOP, after which QEMU hears nothing; out of reach with
/// the others.
fn patience(signal: Signal, short: Duration) -> Duration {
    if signal == Signal::STOP { short } else { DEADLINE }
}

/// Whether QEMU was ended by this signal.
fn ended_by(ended: Option<&Ended>, signal: Signal) -> bool {
    matches!(ended, Some(Ended::Exited(exit)) if exit.signal() == Some(signal.as_raw()))
}
