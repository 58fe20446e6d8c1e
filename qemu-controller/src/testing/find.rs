//! Which tests a firmware has, as its ELF file shows.

use std::path::Path;

use firmware_info::Firmware;

use super::embedded_test::{self, TestListError};
use super::{PrintedTests, TestCase};

/// The tests of a firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareTests {
    /// Its ELF file lists them: for [`TestRun::run`](super::TestRun::run).
    Listed(Vec<TestCase>),
    /// It runs them by itself, and prints their results: for
    /// [`TestRun::run_printed`](super::TestRun::run_printed).
    Printed(PrintedTests),
}

/// The tests that a firmware's ELF file shows: those that
/// [`embedded-test`](https://docs.rs/embedded-test) lists, or that the firmware has `defmt-test` or
/// Unity in it. `None` for all others: nothing shows that one prints
/// [lines](PrintedTests::Lines). Blocks while the file is read.
///
/// # Errors
/// [`TestListError`].
pub fn firmware_tests(path: impl AsRef<Path>) -> Result<Option<FirmwareTests>, TestListError> {
    let firmware = Firmware::open(path)?;
    if let Some(tests) = embedded_test::list(&firmware)? {
        return Ok(Some(FirmwareTests::Listed(tests)));
    }
    let has = |name| firmware.raw_symbol(name).is_some();
    let mut sections = firmware.sections().iter();
    let printed = match sections.any(|section| section.name == ".defmt") {
        true if has("DEFMT_TEST_COUNT") => PrintedTests::Defmt,
        // Its variable, and its functions, of which the linker may leave some out.
        _ if has("Unity") && (has("UnityBegin") || has("UnityEnd") || has("UnityPrint")) => {
            PrintedTests::Unity
        }
        _ => return Ok(None),
    };
    Ok(Some(FirmwareTests::Printed(printed)))
}
