//! The crate on a real `qemu-system-arm`.
#![cfg(unix)]

mod lifetime;
mod support;
