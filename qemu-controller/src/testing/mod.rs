//! Tests that run in the firmware: listed from its ELF file, and run one by one on machines that
//! boot once.
//!
//! ```no_run
//! use qemu_controller::QemuConfig;
//! use qemu_controller::testing::{TestRun, embedded_tests};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let firmware = "target/thumbv7m-none-eabi/debug/deps/tests-0123";
//! let mut tests = embedded_tests(firmware)?.expect("it is a test binary");
//! tests.retain(|test| !test.ignored);
//! let config = QemuConfig::default().firmware(firmware);
//! let results = TestRun::new(config).run(&tests, |_| {}).await?;
//! for (test, result) in tests.iter().zip(&results) {
//!     println!("{}: {}", test.name, result.outcome);
//! }
//! # Ok(()) }
//! ```
//!
//! A firmware that runs its tests by itself, one after the other, is run once, and its tests are
//! those whose results it prints ([`TestRun::run_printed`]). Which kind a firmware has,
//! [`firmware_tests`] finds.
//!
//! The tests of the example are those of the crate [`embedded-test`](https://docs.rs/embedded-test), which runs
//! them on hardware with probe-rs; the binary is the same.
//!
//! ```text
//!   start ─▶ runs until it asks for its command line ─▶ save
//!              ┌───────────────────────────────────────────┘
//!              ▼
//!   for each test: restore ─▶ answer `run_addr N` ─▶ runs until its exit, a reset, its end or the deadline
//! ```
//!
//! So each test begins where the firmware asks which one is wanted, and none sees what another did
//! ([`Isolation`]). Several machines work side by side. A test that hangs, locks up, resets, exits
//! or ends QEMU fails with that for a reason, and the next one runs.
//!
//! What a test prints is captured: by semihosting, on its ports, and by RTT where the configuration
//! [reads it](crate::QemuConfig::rtt). defmt's frames are made into lines by `TestRun::defmt`
//! (feature `defmt`).

mod bundles;
mod capture;
mod embedded_test;
mod faults;
mod find;
mod frames;
mod lines;
mod machine;
mod outcome;
mod printed;
mod reader;
mod run;

use std::time::Duration;

pub use embedded_test::{TestListError, embedded_tests};
pub use find::{FirmwareTests, firmware_tests};
pub use frames::FrameSource;
pub use outcome::{Failure, Outcome, TestResult};
pub use printed::PrintedTests;
pub use run::{Progress, TestRun, TestRunError};

/// A test in the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestCase {
    /// Its name with the modules that it is in, the crate's left out, as Rust's own tests have it.
    pub name: String,
    /// It is to be run only where that is asked for.
    pub ignored: bool,
    /// It passes if it panics, and fails if it does not.
    pub should_panic: bool,
    /// How long it may take, if it says so itself.
    pub timeout: Option<Duration>,
    /// The address of the function that runs it.
    address: u64,
}

/// How tests are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// One machine for many tests; it is restored before each. The fastest: some 5 ms a test.
    #[default]
    Restore,
    /// A machine for each test, which continues from one that booted.
    Fork,
    /// A machine for each test, which boots.
    Boot,
}

impl TestCase {
    /// A test that is known by its name alone, as a [printed](PrintedTests) one is.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ignored: false,
            should_panic: false,
            timeout: None,
            address: 0,
        }
    }

    /// The address of the function that runs it: what the firmware is told by `run_addr`. 0 of a
    /// [printed](PrintedTests) one.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }
}
