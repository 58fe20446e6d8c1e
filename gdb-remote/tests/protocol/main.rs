//! The protocol without a socket: framing, acknowledgments, replies, target descriptions, and
//! recorded sessions.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod client;
mod link;
mod packet;
mod recordings;
mod reply;
mod target;
