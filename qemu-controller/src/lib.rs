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
//! | start, commands, events, stop | [`Session`]; [`blocking::Session`] without async |
//! | join a QEMU that runs already | [`Session::attach`], [`AttachConfig`] |
//! | the machine's whole state, saved and brought back | [`Session::save_snapshot`], [`Session::load_snapshot`], [`Session::with_fresh_state`] |
//! | what the firmware prints and reads | [`Serial`], from [`Session::serial`] and [`Session::semihosting`] |
//! | what it prints on standard error | [`Session::stderr`], apart from QEMU's own messages |
//! | how its run ended, with an exit code for CI | [`Session::run_to_end`], [`Session::wait`], [`Verdict`]; [`Session::assert_success`] in a test |
//! | its variables | [`Session::read_u32`], [`Session::read_memory`], [`Session::write_memory`], [`Session::wait_for_value`], [`Session::firmware_info`] |
//! | the same run every time | [`QemuConfig::deterministic`] |
//! | what its display shows | [`Session::screendump`] |
//! | breakpoints, watchpoints, steps, registers (feature `debugger`) | `Session::debugger`, the module `debug` |
//! | which lines of the firmware ran (feature `coverage`) | `QemuConfig::coverage`, the module `coverage` |
//! | the firmware's semihosting calls, answered by the program (feature `debugger`) | `Session::semihosting_host`, the module `semihosting` |
//! | the tests of an `embedded-test` binary (feature `tests`) | the module `testing` |
//! | what the firmware logs by RTT (feature `rtt`) | `QemuConfig::rtt`, the module `rtt` |
//! | the lines that it logs by defmt (feature `defmt`) | the module `defmt` |
//! | the machine as it was when it failed, in a folder (feature `bundle`) | the module `bundle` |
//! | whether a debugger could attach | [`Session::check_gdb`], [`Session::probe_gdb`] |
//! | many machines from one boot, now or later | [`Session::fork`], [`MachineState`] |
//! | why it did not work | [`StartError`], [`CommandError`], [`SessionEnd`] |
//!
//! A machine's state, four ways:
//!
//! | to | use | what it has |
//! |---|---|---|
//! | go back to a state, in the same QEMU | [`Session::save_snapshot`], [`Session::load_snapshot`] | memory, devices and qcow2 disks; several by name; in a file for later sessions with [`QemuConfig::snapshot_file`] |
//! | run each test case from the same state, one after the other | [`Session::with_fresh_state`] | the same; saved by the first case, loaded by each further one |
//! | run test cases from the same state at once | [`Session::fork`] | memory and devices; each case has a QEMU of its own |
//! | begin another session, another day, from a state | [`Session::save_state`], [`MachineState::persist`], [`Session::start_from`] | memory and devices, in a file |
//!
//! Features, none of them on by default: `debugger`; `source`, with it, for names and lines as the
//! source has them, backtraces, fault reports and `Session::run_watched`; `coverage`; `rtt`;
//! `defmt`; `bundle`, with `source`; `tests`, with `bundle`, `coverage` and `rtt`; `regex`, by which
//! [`Serial::expect`] takes a regular expression; `qapi`, for `Session::qapi`, which sends every
//! typed command that QEMU has. Examples in the repository: `debug_firmware`, `debugger`,
//! `parallel_tests`, `fresh_state`, `forked_cases`, `attach`, `blocking`.
//!
//! With a `tracing` subscriber, starts, ends and readiness are logged at level `info`, each command
//! and event at `debug`; [`QemuConfig::qmp_transcript`] writes the QMP traffic down as it was.
//!
//! **No call hangs:** each command, start and stop has a deadline, and its error says where it
//! waited. **Nothing is lost:** QEMU's death, from whatever cause, is the same typed answer for
//! everybody who waits, with the exit status and what QEMU said. **Nothing is left:** QEMU ends
//! with the last handle (unless it is to keep running), and on Linux with this program, however
//! that ends.

// Before the others, so that the documentation of `Session` begins with how to start one.
mod session;

#[cfg(feature = "bundle")]
pub mod bundle;
mod client;
#[cfg(any(feature = "defmt", feature = "tests"))]
mod colours;
mod config;
mod cores;
#[cfg(feature = "coverage")]
pub mod coverage;
#[cfg(feature = "debugger")]
pub mod debug;
#[cfg(feature = "defmt")]
pub mod defmt;
mod error;
pub mod escape;
mod fork;
mod guest;
#[cfg(feature = "qapi")]
mod qapi;
#[cfg(feature = "rtt")]
pub mod rtt;
#[cfg(feature = "debugger")]
pub mod semihosting;
mod serial;
mod snapshot;
#[cfg(feature = "source")]
mod source;
#[cfg(feature = "tests")]
pub mod testing;
mod verdict;

#[cfg(feature = "qapi")]
pub use qapi_qmp;
#[cfg(feature = "regex")]
pub use regex;

pub use {firmware_info, gdb_port, qemu_launch, qmp_proto};

pub use client::events::{EVENT_BACKLOG_BYTES, Events, MissedEvents};
pub use config::QemuConfig;
pub use cores::{ClusterName, CoreName};
pub use error::{CommandError, SessionEnd, WaitPhase};
pub use fork::{MachineState, StateError};
pub use guest::gdb::{GdbCheck, GdbError};
pub use guest::memory::{Location, MemoryError};
pub use guest::screendump::ScreendumpError;
pub use guest::symbols::SymbolsError;
pub use qemu_launch::{Address, Endpoint, Exit, ExitKind, RegisterDump, Semihosting, StopPolicy};
pub use qmp_proto::commands::{CpuInfoFast, RunState, StatusInfo, TypedEvent};
pub use qmp_proto::{QmpEvent, ServerError};
pub use serial::{Expected, Pattern, SERIAL_BUFFER_BYTES, Serial, SerialError, SerialStream};
pub use session::Session;
pub use session::attach::AttachConfig;
pub use session::error::{DetachError, StartError, StartPhase, StopError};
pub use session::stderr::{StderrLine, StderrLines};
pub use session::stop::{StopReport, StoppedBy};
pub use snapshot::{
    AfterLoad, InvalidName, LoadSnapshot, LostDevice, MachineFingerprint, MachineMismatch,
    SaveSnapshot, Snapshot, SnapshotError,
};
#[cfg(feature = "source")]
pub use source::{CoreFault, CoreReport, RunReport, StackUse};
pub use verdict::{CorePlace, Exception, GuestResets, Hang, Interruption, Verdict, VerdictReport};

pub use session::blocking;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code of the library's tutorial compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tutorials/library.md")]
struct Tutorial;
