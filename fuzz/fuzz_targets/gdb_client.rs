//! Whatever a stub sends to a client that makes requests: phases are kept, and replies are counted.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gdb_remote::testing::client(bytes));
