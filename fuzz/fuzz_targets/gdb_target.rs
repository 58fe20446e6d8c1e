//! Target descriptions of any bytes: read or refused, within the limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_remote::testing::target(bytes));
