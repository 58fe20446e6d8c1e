//! Tests that see the crate's inside.

mod properties;
