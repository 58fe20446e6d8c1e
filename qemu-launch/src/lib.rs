//! Builds QEMU's command line from a typed description, spawns the process, watches it and ends it.
//!
//! ```no_run
//! use qemu_launch::{Endpoint, Ladder, MachineSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // qemu-system-arm, lm3s6965evb, cortex-m3, 64K, and a QMP monitor that nobody else can reach.
//! let spec = MachineSpec::default().firmware("firmware.elf").serial(Endpoint::Inherited);
//! let mut qemu = qemu_launch::spawn(&spec)?;
//! let monitor = qemu.take_qmp().expect("it is inherited, and taken once");
//! let uart = qemu.take_serial(0).expect("it is inherited, and taken once");
//! # drop((monitor, uart));
//! let ended = qemu.end_blocking(Ladder::default())?;
//! println!("{}, by {:?}", ended.exit, ended.rung);
//! # Ok(())
//! # }
//! ```

mod architecture;
mod argv;
mod channel;
mod child;
mod conflict;
mod device;
pub mod discover;
mod elf;
mod endpoint;
mod error;
mod exec;
mod exit;
pub mod firmware;
mod install;
mod ladder;
mod lasting;
mod lockup;
mod once;
mod option;
mod orphan;
mod output;
mod process;
mod ring;
mod serve;
mod spawn;
mod spec;

pub use argv::Argv;
pub use device::{Action, Backend, Blockdev, Device, Drive, Icount, Log, Monitor, Nic, Sandbox, Semihosting};
pub use endpoint::{Address, Endpoint};
pub use error::{SpawnError, SpecError};
pub use exit::{Exit, ExitKind};
pub use install::install_command;
pub use ladder::{Ended, Ladder, Rung, StillRunning};
pub use lockup::RegisterDump;
pub use output::{Line, Lines, Tail, TimedOut};
pub use process::{Process, Watch};
pub use spawn::{spawn, spawn_async};
pub use spec::MachineSpec;
