//! The sans-IO half: packets, acknowledgments, replies, target descriptions, the probe's dialogue,
//! recorded sessions.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod link;
mod packet;
mod probe;
mod recordings;
mod reply;
mod target;
