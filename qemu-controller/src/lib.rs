//! Start QEMU with a firmware image and steer it: a session that is ready as soon as QEMU is, a GDB
//! stub that a debugger can reach, and no process left behind.
//!
//! ```no_run
//! use qemu_controller::{QemuConfig, Session};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = QemuConfig::default()          // qemu-system-arm, lm3s6965evb, cortex-m3, 64K
//!     .firmware("firmware.elf")
//!     .wait_for_gdb(true);                    // the guest waits, with a GDB stub on 127.0.0.1:1234
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
//! | the machine's whole state, saved and brought back | [`Session::save_snapshot`], [`Session::load_snapshot`], [`Session::with_fresh_state`] |
//! | what the firmware prints and hears | [`Serial`], from [`Session::serial`] and [`Session::semihosting`] |
//! | how its run ended, with an exit code for CI | [`Session::run_to_end`], [`Session::wait`], [`Verdict`] |
//! | its variables | [`Session::read_u32`], [`Session::read_memory`], [`Session::write_memory`], [`Symbols`] |
//! | the same run every time | [`QemuConfig::deterministic`] |
//! | what its display shows | [`Session::screendump`] |
//! | whether a debugger could attach | [`Session::check_gdb`], [`Session::probe_gdb`] |
//! | many machines from one boot, now or later | [`Session::fork`], [`MachineState`] |
//! | why it did not work | [`StartError`], [`CommandError`], [`SessionEnd`] |
//!
//! With a `tracing` subscriber, starts, ends and readiness are told at level `info`, each command
//! and event at `debug`; [`QemuConfig::qmp_transcript`] writes the QMP traffic down as it was.
//!
//! **No call hangs:** each command, start and stop has a deadline, and its error says where it
//! waited. **Nothing is lost:** QEMU's death, from whatever cause, is the same typed answer for
//! everybody who waits, with the exit status and what QEMU said. **Nothing is left:** QEMU ends
//! with the last handle (unless it is to keep running), and on Linux with this program, however
//! that ends.

mod client;
mod config;
mod error;
mod fork;
mod guest;
#[cfg(feature = "qapi")]
mod qapi;
mod serial;
mod session;
mod snapshot;
mod verdict;

#[cfg(feature = "qapi")]
pub use qapi_qmp;
#[cfg(feature = "regex")]
pub use regex;

pub use {gdb_port, qemu_launch, qmp_proto};

pub use client::events::{EVENT_BACKLOG_BYTES, Events, MissedEvents};
pub use config::QemuConfig;
pub use error::{CommandError, SessionEnd, WaitPhase};
pub use fork::{MachineState, StateError};
pub use guest::gdb::{GdbCheck, GdbError};
pub use guest::memory::{Location, MemoryError};
pub use guest::screendump::ScreendumpError;
pub use guest::symbols::{Symbol, SymbolOffset, Symbols, SymbolsError};
pub use qemu_launch::{Address, Endpoint, Exit, ExitKind, RegisterDump, Semihosting, StopPolicy};
pub use qmp_proto::commands::{CpuInfoFast, RunState, StatusInfo, TypedEvent};
pub use qmp_proto::{QmpEvent, ServerError};
pub use serial::{Expected, Pattern, SERIAL_BUFFER_BYTES, Serial, SerialError, SerialStream};
pub use session::Session;
pub use session::attach::AttachConfig;
pub use session::error::{DetachError, StartError, StartPhase, StopError};
pub use session::stop::{StopReport, StoppedBy};
pub use snapshot::{
    AfterLoad, InvalidName, LoadSnapshot, MachineFingerprint, MachineMismatch, SaveSnapshot,
    Snapshot, SnapshotError,
};
pub use verdict::{Exception, Hang, Interruption, Verdict};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
