//! What kind of tests a firmware has: as is said, or as its ELF file shows.

use std::path::Path;

use qemu_controller::qemu_launch::Format;
use qemu_controller::testing::{FirmwareTests, PrintedTests, TestListError, firmware_tests};
use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of tests a firmware has whose ELF file lists none.
#[derive(
    Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "rmcp::schemars")]
pub(crate) enum TestKind {
    /// None: what follows FIRMWARE is the firmware's command line; also of one whose ELF file lists
    /// tests
    None,
    /// The firmware as a whole is one test, which passes if it exits with status 0
    One,
    /// Those whose results it prints as lines: `test NAME ... ok`, or `NAME... [ok]`
    Lines,
    /// Those whose results it prints as Unity does, the test framework for C
    Unity,
    /// Those that it logs by defmt, as the crate defmt-test does
    Defmt,
}

impl TestKind {
    /// The tests that a firmware has. A list in its ELF file counts more than what is said.
    pub(crate) fn find(
        said: Option<Self>,
        firmware: &Path,
    ) -> Result<Option<FirmwareTests>, TestListError> {
        let printed = match said {
            Some(Self::None) => return Ok(None),
            None => None,
            Some(Self::One) => Some(PrintedTests::One),
            Some(Self::Lines) => Some(PrintedTests::Lines),
            Some(Self::Unity) => Some(PrintedTests::Unity),
            Some(Self::Defmt) => Some(PrintedTests::Defmt),
        };
        let shown = match Format::of(firmware) {
            Ok(Format::Elf) => firmware_tests(firmware),
            // Whether it is a firmware at all is asked later.
            _ => Ok(None),
        };
        match (shown, printed) {
            (Ok(Some(listed @ FirmwareTests::Listed(_))), _) => Ok(Some(listed)),
            // What is wrong with the file, the check of the firmware says better.
            (Ok(_) | Err(TestListError::Firmware(_)), Some(printed)) => {
                Ok(Some(FirmwareTests::Printed(printed)))
            }
            (Err(TestListError::Firmware(_)), None) => Ok(None),
            (shown, _) => shown,
        }
    }
}
