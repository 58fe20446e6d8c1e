//! Any payload arrives as it was sent, with and without runs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_remote::testing::encode_and_decode(bytes));
