//! Any bytes, cut anywhere: the same messages, no panic, an error that stays.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qmp_proto::testing::decode(bytes));
