//! A test that fails, by its exit status: `cargo test --features failing-test` fails with it.
#![feature(no_core)]
#![no_core]
#![no_main]
#![allow(internal_features)]

use embedded_example::{global_asm, include_str};

global_asm!(include_str!("fails.s"), options(raw));
