//! Start QEMU with a firmware image and steer it: a session that is ready as soon as QEMU is, a GDB stub that
//! a debugger can reach, and no process left behind.
//!
//! ```no_run
//! use qemu_controller::{QemuConfig, Session};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = QemuConfig::default()          // qemu-system-arm, lm3s6965evb, cortex-m3, 64K
//!     .firmware("firmware.elf")
//!     .wait_for_gdb(true);                    // the guest waits for a debugger
//! let session = Session::start(config).await?;
//! println!("GDB at {:?}, {}", session.gdb(), session.query_status().await?.status);
//! session.resume().await?;
//! session.pause().await?;
//! println!("{}", session.stop().await?);
//! # Ok(()) }
//! ```
//!
//! | what for | where |
//! |---|---|
//! | which QEMU, board, firmware, endpoints, deadlines | [`QemuConfig`], and [`qemu_launch::MachineSpec`] for the rest |
//! | start, commands, events, stop | [`Session`] |
//! | join a QEMU that runs already | [`Session::attach`], [`AttachConfig`] |
//! | what the firmware prints and hears | [`Serial`] |
//! | the machine's whole state, saved and brought back | [`Session::save_snapshot`], [`Session::load_snapshot`], [`Session::with_fresh_state`] |
//! | whether a debugger could attach | [`Session::check_gdb`], [`Session::probe_gdb`] |
//! | why it did not work | [`StartError`], [`CommandError`], [`Ended`] |
//!
//! With a `tracing` subscriber, starts, ends and readiness are told at level `info`, each command and event
//! at `debug`; [`QemuConfig::qmp_transcript`] writes the QMP traffic down as it was.
//!
//! **No call hangs:** each command, start and stop has a deadline, and its error says where it waited.
//! **Nothing is lost:** QEMU's death, from whatever cause, is the same typed answer for everybody who waits,
//! with the exit status and what QEMU said. **Nothing is left:** QEMU ends with the last handle (unless it is
//! to keep running), and on Linux with this program, however that ends.

mod attach;
mod call;
mod config;
mod driver;
mod error;
mod events;
mod gdb;
mod history;
mod memory;
mod operation;
#[cfg(feature = "qapi")]
mod qapi;
mod run_state;
mod serial;
mod session;
mod shared;
mod snapshot;
mod start;
mod stop;
mod symbols;
mod transcript;
mod transport;
mod verdict;

#[cfg(feature = "qapi")]
pub use qapi_qmp;

pub use {gdb_port, qemu_launch, qmp_proto};

pub use attach::AttachConfig;
pub use config::QemuConfig;
pub use error::{
    AttachError, CommandError, Ended, GdbError, NotKept, StartError, StartPhase, StopError, WaitPhase,
};
pub use events::{EVENT_BACKLOG_BYTES, Events, Missed};
pub use gdb::GdbCheck;
pub use memory::{Location, MemoryError};
pub use qemu_launch::{Address, Endpoint, Exit, ExitKind, Ladder, RegisterDump, Semihosting};
pub use qmp_proto::commands::{CpuInfoFast, RunState, StatusInfo, TypedEvent};
pub use qmp_proto::{QmpEvent, ServerError};
pub use serial::{SERIAL_BUFFER_BYTES, Serial, SerialError};
pub use session::Session;
pub use snapshot::{
    AfterLoad, Difference, Identity, InvalidName, LoadSnapshot, SaveSnapshot, Snapshot, SnapshotError,
};
pub use stop::{Stopped, StoppedBy};
pub use symbols::{Place, Symbol, Symbols, SymbolsError};
pub use verdict::{Exception, Hang, Interruption, Verdict};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
