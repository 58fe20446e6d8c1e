//! Wraps one image's assembly for `rustc`, the only assembler and linker that the images need.
//!
//! Built by `cargo xtask firmware`, never by Cargo. There is no `core` here, so no target component
//! has to be installed; the two macros are the compiler's own and only have to be declared.
//! `FIRMWARE_SOURCE` is the image's `.s` file; the `.include` lines in it are read from the folder
//! that this file is in.
#![feature(no_core, rustc_attrs)]
#![no_core]
#![no_main]
#![allow(internal_features)]

#[rustc_builtin_macro]
macro_rules! global_asm {
    () => {};
}
#[rustc_builtin_macro]
macro_rules! include_str {
    () => {};
}
#[rustc_builtin_macro]
macro_rules! env {
    () => {};
}

global_asm!(include_str!(env!("FIRMWARE_SOURCE")), options(raw));
