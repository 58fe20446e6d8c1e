//! What the tests of several crates need: programs, signals, dropped futures, collected traces.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collected;
mod dispositions;
mod dropping;
mod program;

pub use collected::Collected;
pub use dispositions::{has, heed_signals, signals};
pub use dropping::drop_after;
pub use program::write_program;
