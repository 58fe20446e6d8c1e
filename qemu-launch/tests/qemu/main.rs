//! The crate on a real `qemu-system-arm`.
//!
//! With `QEMU_LAUNCH_LONG` set, floods last 60 s and leaks are looked for over 500 starts.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod asking;
mod endings;
mod flood;
mod options;
mod orphans;
mod repeated;
mod runtimes;
mod security;
mod starts;
mod support;
