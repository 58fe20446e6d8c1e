//! What the tests of several crates need: waiting with a deadline, firmware images, programs to
//! execute, a QMP client, signals, `/proc`, dropped futures, collected traces.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collected;
mod dispositions;
mod dropping;
mod elf;
mod images;
pub mod machine;
pub mod procfs;
mod program;
mod qmp;
mod waiting;

pub use collected::Collected;
pub use dispositions::{has, heed_signals, signals};
pub use dropping::drop_after;
pub use elf::{ElfKind, elf};
pub use images::image;
pub use program::write_program;
pub use qmp::Qmp;
pub use waiting::{PATIENCE, eventually, soon, until};
