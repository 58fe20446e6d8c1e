//! The crate on a real `qemu-system-arm`.
#![cfg(unix)]

mod lifetime;
#[cfg(test)]
mod support;
