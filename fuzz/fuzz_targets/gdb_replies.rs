//! Features, stop replies and thread ids of any bytes: read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_remote::testing::replies(bytes));
