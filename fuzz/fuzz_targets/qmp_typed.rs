//! Any JSON read as any of the crate's types: no panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qmp_proto::testing::typed(bytes));
