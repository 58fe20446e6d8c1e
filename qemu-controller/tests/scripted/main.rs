//! The session against a scripted monitor in memory, with paused time: every call in every state,
//! each fault in each phase. Needs no QEMU and never sleeps.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod peer;

mod attached;
mod cancelling;
#[cfg(feature = "debugger")]
mod debugger;
mod ended;
mod events;
mod faults;
mod held_up;
mod queueing;
mod snapshots;
mod traced;
mod verdicts;
