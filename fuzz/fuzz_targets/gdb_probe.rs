//! Whatever a stub says: the probe ends, and resumes only a guest that ran.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_port::testing::probe(bytes));
