//! The program `qemu-controller` on real QEMU, as a shell, Cargo or another program runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod agents;
mod bundle;
mod cargo_runner;
mod coverage;
mod debugger;
mod ending;
mod faults;
mod files;
mod input;
mod logs;
mod machine_readable;
mod machines;
mod mcp;
mod output;
mod semihosting;
mod serve;
mod signals;
mod tests;
mod wrong_input;
