//! Any bytes: no panic, payloads within the limit, and what a packet holds survives being encoded
//! again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_remote::testing::decode(bytes));
