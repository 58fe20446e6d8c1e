//! Any bytes as an ELF file: every question ends in an answer or an error, within the limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firmware_info::testing::ask_everything(bytes));
