//! What is in the guest: its memory and symbols, its display, its GDB stub.

pub(crate) mod examine;
pub(crate) mod gdb;
pub(crate) mod memory;
pub(crate) mod screendump;
pub(crate) mod symbols;
mod write;
