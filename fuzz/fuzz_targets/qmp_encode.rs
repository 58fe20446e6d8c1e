//! Any command that is written can be read back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qmp_proto::testing::encode(bytes));
