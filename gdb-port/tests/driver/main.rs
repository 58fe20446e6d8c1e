//! The driver against what is no GDB stub, against stubs made here, and against time.
#![expect(clippy::unwrap_used, reason = "the tests' helpers panic as the tests do")]

mod duplex;
mod strangers;
mod waits;
