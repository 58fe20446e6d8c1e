//! What the crate says of the images under `fixtures/`, beside what was recorded of them.
#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic as the tests do"
)]

mod binutils;
mod code_lines;
mod compare;
mod crafted;
mod frames;
#[cfg(feature = "_testing")]
mod hostile;
mod questions;
mod values;

use std::path::PathBuf;

use firmware_info::Firmware;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn fixture_text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

fn firmware(name: &str) -> Firmware {
    Firmware::open(fixture(&format!("{name}.elf"))).unwrap()
}
