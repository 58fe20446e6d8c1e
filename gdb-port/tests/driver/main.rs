//! The driver against what is no GDB stub, against stubs made here, and against time; and the
//! example's exit statuses.
//!
//! Most of it rests on looks, which only Linux gives.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod duplex;
#[cfg(target_os = "linux")]
mod other;
#[cfg(target_os = "linux")]
mod statuses;
#[cfg(target_os = "linux")]
mod strangers;
#[cfg(target_os = "linux")]
mod unused;
#[cfg(target_os = "linux")]
mod waits;
