//! Six times seven is forty-two: exit status 0.
#![feature(no_core)]
#![no_core]
#![no_main]
#![allow(internal_features)]

use embedded_example::{global_asm, include_str};

global_asm!(include_str!("multiplies.s"), options(raw));
