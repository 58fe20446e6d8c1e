//! Endpoints and chardevs of any bytes: read or refused; what was read prints as it reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_port::testing::addresses(bytes));
