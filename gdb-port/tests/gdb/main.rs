//! A real gdb-multiarch beside looks and probes: it attaches right after them, and is not disturbed
//! by them.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod attach;
mod beside;
mod debugger;
