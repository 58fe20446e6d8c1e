//! `cargo xtask <verb>`: dispatch only; one file a verb.
fn main() {}
