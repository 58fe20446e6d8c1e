//! Looks and probes against real QEMU: what they see, and that the guest is left as they say.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod client;
mod looks;
mod probes;
mod races;
mod waits;
