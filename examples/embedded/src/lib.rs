//! The board, and the code under test; in assembly, because there is no `core` here (see
//! README.md).
#![feature(no_core, rustc_attrs)]
#![no_core]
#![allow(internal_features)]

/// Assembly beside Rust, as in `core::arch`; the compiler's own, it only has to be declared.
#[rustc_builtin_macro]
#[macro_export]
macro_rules! global_asm {
    () => {};
}
/// The text of a file, as in `core`.
#[rustc_builtin_macro]
#[macro_export]
macro_rules! include_str {
    () => {};
}

global_asm!(include_str!("board.s"), options(raw));
global_asm!(include_str!("multiply.s"), options(raw));
