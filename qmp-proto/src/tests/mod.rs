//! Tests that see the crate's inside.

mod commands;
mod linear;
mod properties;
