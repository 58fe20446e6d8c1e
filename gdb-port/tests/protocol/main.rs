//! The probe without a socket: its dialogue with stubs and with what is none, and its recorded
//! sessions.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod probe;
mod recordings;
mod strangers;
mod timed;
