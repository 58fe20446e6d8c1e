//! Any bytes, cut anywhere: the same events, and a bounded answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_remote::testing::link(bytes));
