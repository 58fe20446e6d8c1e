//! Endpoints, chardevs, features, stop replies of any bytes: read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_port::testing::texts(bytes));
