//! The tests of an `embedded-test` binary, from its ELF file alone.
//!
//! Each is a symbol of the section `.embedded_test`, whose name is a JSON object; where it is
//! stand three words: the function that runs it, and the name of its module by address and length.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use firmware_info::{Firmware, OpenError, Symbol};
use serde::Deserialize;

use super::TestCase;

const SECTION: &str = ".embedded_test";

/// The symbol with the version of what is in the section.
const VERSION: &str = "EMBEDDED_TEST_VERSION";

/// The version that is known here: that of `embedded-test` 0.7.
const KNOWN_VERSION: u64 = 1;

/// More bytes than a module's path has.
const MOST_PATH: u64 = 4096;

/// More tests than a firmware has.
pub(super) const MOST_TESTS: usize = 100_000;

/// Why the tests of a binary cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestListError {
    /// The file cannot be read as an ELF file.
    #[error(transparent)]
    Firmware(#[from] OpenError),
    /// The binary's crate speaks another version.
    #[error(
        "the firmware's tests are of version {0} of embedded-test's protocol, and version 1 is known here: use embedded-test 0.7, or a newer qemu-controller"
    )]
    Version(u64),
    /// The list is damaged, or it was removed.
    #[error("the firmware's list of tests cannot be read: {0}")]
    Damaged(String),
}

/// The name of a symbol: what the crate says of a test.
#[derive(Deserialize)]
struct Name {
    name: String,
    #[serde(default)]
    ignored: bool,
    #[serde(default)]
    should_panic: bool,
    #[serde(default)]
    timeout: Option<u32>,
}

/// The tests of an [`embedded-test`](https://docs.rs/embedded-test) binary in the order of their
/// names; `None` for a firmware that is none. Blocks while the file is read.
///
/// # Errors
/// [`TestListError`].
pub fn embedded_tests(path: impl AsRef<Path>) -> Result<Option<Vec<TestCase>>, TestListError> {
    list(&Firmware::open(path)?)
}

/// The same of a file that is open.
pub(super) fn list(firmware: &Firmware) -> Result<Option<Vec<TestCase>>, TestListError> {
    let Some(section) = firmware.section_data(SECTION) else {
        return Ok(None);
    };
    let table = Table {
        firmware,
        bytes: section.bytes,
        base: section.address,
    };
    table.tests().map(Some)
}

struct Table<'a> {
    firmware: &'a Firmware,
    bytes: std::sync::Arc<[u8]>,
    base: u64,
}

impl Table<'_> {
    fn tests(&self) -> Result<Vec<TestCase>, TestListError> {
        let symbols = self.firmware.symbols();
        let listed = symbols.filter(|symbol| symbol.section.as_deref() == Some(SECTION));
        let (mut version, mut tests) = (None, Vec::new());
        for symbol in listed {
            if symbol.raw_name == VERSION {
                version = self.word(&symbol, 0, symbol.size.clamp(4, 8));
            } else if symbol.raw_name.starts_with('{') {
                if tests.len() == MOST_TESTS {
                    return Err(damaged(format!("it has more than {MOST_TESTS} tests")));
                }
                tests.push(self.test(&symbol)?);
            }
        }
        match version {
            Some(KNOWN_VERSION) => {}
            Some(other) => return Err(TestListError::Version(other)),
            None => {
                return Err(damaged(format!(
                    "it has a section {SECTION} and no symbol {VERSION}; was it stripped of its symbols?"
                )));
            }
        }
        tests.sort_by(|a: &TestCase, b| a.name.cmp(&b.name));
        make_distinct(&mut tests);
        Ok(tests)
    }

    fn test(&self, symbol: &Symbol) -> Result<TestCase, TestListError> {
        let shown = || symbol.raw_name.escape_debug().take(120).collect::<String>();
        let said: Name = serde_json::from_str(&symbol.raw_name)
            .map_err(|error| damaged(format!("the symbol {} is no test: {error}", shown())))?;
        let size = symbol.size / 3;
        let words = (0..3).map(|index| self.word(symbol, index, size));
        let words: Option<Vec<_>> = words.collect();
        let Some([address, path, length]) = words.as_deref() else {
            let what = format!("the symbol {} is not in its section", shown());
            return Err(damaged(what));
        };
        let module = self.module(*path, *length);
        let module = module.ok_or_else(|| damaged(format!("the module of {}", shown())))?;
        // As in Rust's own tests, without the crate's name.
        let module = module.split_once("::").map_or("", |(_, inner)| inner);
        let name = match module {
            "" => said.name,
            module => format!("{module}::{}", said.name),
        };
        Ok(TestCase {
            name,
            ignored: said.ignored,
            should_panic: said.should_panic,
            timeout: said
                .timeout
                .map(|seconds| Duration::from_secs(seconds.into())),
            address: *address,
        })
    }

    /// A word of those at a symbol.
    fn word(&self, symbol: &Symbol, index: u64, size: u64) -> Option<u64> {
        if size != 4 && size != 8 {
            return None;
        }
        let start = symbol
            .address
            .checked_sub(self.base)?
            .checked_add(index * size)?;
        let start = usize::try_from(start).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(size as usize)?)?;
        let shift = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(match self.firmware.is_little_endian() {
            true => bytes.iter().rev().fold(0, shift),
            false => bytes.iter().fold(0, shift),
        })
    }

    fn module(&self, address: u64, length: u64) -> Option<String> {
        let mut path = vec![0; length.min(MOST_PATH) as usize];
        self.firmware.loaded(address, &mut path).then_some(())?;
        String::from_utf8(path).ok()
    }
}

/// Two tests of one name, as macros make them, are told apart by a number: filters and other
/// programs go by the name.
pub(super) fn make_distinct<'a>(tests: impl IntoIterator<Item = &'a mut TestCase>) {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for test in tests {
        let count = seen.entry(test.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            test.name = format!("{}#{count}", test.name);
        }
    }
}

fn damaged(what: String) -> TestListError {
    TestListError::Damaged(what)
}
