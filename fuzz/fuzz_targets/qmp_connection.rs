//! Any sequence of calls and answers agrees with a simple model.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qmp_proto::testing::connection(bytes));
