//! The machine's whole state, saved and brought back.

#[expect(dead_code, reason = "saves and forks are to use it")]
pub(crate) mod sd_card;
