//! The session on real QEMU. Needs `qemu-system-arm`, and fails where it is missing.
//!
//! With `QEMU_CONTROLLER_LONG` set, each verdict is seen 50 times, the flood that nobody reads is
//! 10 MB, a save's guest is stopped 500 times, and the random walk takes four minutes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
mod trap;

mod attaching;
mod backtraces;
mod blocking;
mod bundle;
mod cancelling;
mod clusters;
mod coverage;
mod debugger;
mod defmt;
mod deterministic;
mod endings;
mod endpoints;
mod exceptions;
mod forks;
mod gdb;
mod kill_matrix;
mod main_job;
mod memory;
mod observing;
mod rtt;
mod same_program;
mod screendump;
mod semihosting;
mod serial;
mod snapshots;
mod start_errors;
mod storm;
mod testing;
mod verdicts;
mod walk;
