//! Runs QEMU: from a typed machine to a watched process, whether or not QMP is wanted.
//!
//! ```no_run
//! use qemu_launch::{Endpoint, StopPolicy, MachineSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // qemu-system-arm, lm3s6965evb, cortex-m3, 64K, and a QMP monitor that nobody else can reach.
//! let spec = MachineSpec::default().firmware("firmware.elf").serial(Endpoint::Inherited);
//! let mut qemu = qemu_launch::spawn(&spec)?;
//! let monitor = qemu.take_qmp().expect("it is inherited, and taken once");
//! let uart = qemu.take_serial(0).expect("it is inherited, and taken once");
//! # drop((monitor, uart));
//! let ended = qemu.end_blocking(StopPolicy::default())?;
//! println!("{}, by {:?}", ended.exit, ended.step);
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | the machine that is wanted | [`MachineSpec`] and the parts that it takes |
//! | its command line, without starting anything | [`MachineSpec::argv`], and `Command::from(&argv)` |
//! | how its channels are reached | [`Endpoint`], and [`Address`] once it runs |
//! | the firmware's checks, and what kind of file it is | [`firmware`], [`Format`] |
//! | finding QEMU, and asking it what it supports | [`discover`] |
//! | starting it | [`spawn()`], [`spawn_async`] |
//! | the process | [`Process`] owns it; [`ProcessHandle`] observes it, and can be cloned |
//! | ending it, step by step | [`StopPolicy`], [`ProcessHandle::end`], [`ProcessHandle::end_blocking`] |
//! | how it ended | [`Exit`], [`ExitKind`]; [`Terminated`] has the [`StopStep`] that worked |
//!
//! It speaks no QMP and no GDB protocol. It needs no runtime: whatever is `async` here can be
//! awaited on any, dropped at any point, and has a blocking twin.
//!
//! # What QEMU gets
//! `-nodefaults -no-user-config -display none`, so that the guest has nothing that was not asked
//! for; a process group of its own; umask 077; no core dumps; stdin from `/dev/null`; of the
//! environment only `PATH`, `HOME`, `TMPDIR`, `TZ` and what [`MachineSpec::env`] and
//! [`MachineSpec::inherit_env`] name; no descriptor but the standard streams and its channels.
//! stdout and stderr are drained from the first byte to the last, 64 KiB of each are kept, and the
//! rest is counted. Nothing listens where another machine could reach it, unless
//! [`Endpoint::Exposed`] says so. Where a monitor or a GDB stub listens on TCP, QEMU's sandbox
//! keeps it from running other programs; see [`MachineSpec::sandbox`] for what that does not cover.
//!
//! No string becomes an option or a second file: each is escaped as QEMU reads the option that it
//! is in, or refused. None becomes a property either, but those behind the name of a board or a
//! CPU, as in `virt,secure=on`. [`MachineSpec::extra_args`] and [`Display::Raw`] are options by
//! their nature, so never fill them with strings of others.
//!
//! # What a start costs
//! [`spawn()`] takes 0.40 ms, `std::process::Command` with the same arguments and the same inherited
//! descriptor 0.50 ms (medians of 150 on two cores of x86-64, nearly idle), and the monitor's
//! greeting comes after 21 ms with both. With 500 MiB in use, as a fuzzer or a large test suite may
//! have, it takes 0.44 ms, `Command` 26 ms, and the greeting comes after 24 ms instead of 48 ms.
//! Measured by
//! `cargo run --release -p qemu-launch --features qemu-tests --example start_cost 150`, and
//! `60 500` for the second. A QEMU that runs takes one thread and 20 KiB of this program, and wakes
//! it only by its output and its exit.
//!
//! The difference is `fork`, which copies the tables of all the memory in use, and which `std`
//! needs where a descriptor is to be passed. On Linux this crate starts QEMU as `posix_spawn` does:
//! the child runs in this program's memory for the moment until it executes QEMU. `Command` without
//! a descriptor to pass does so too, and takes 0.21 ms. What is more here: the command line, the
//! check of the program before it is executed, the child's own system calls for signals, group,
//! umask, core limit, parent-death signal and descriptors, and the thread that starts and serves
//! it.
//!
//! # Systems
//! | | Linux | macOS, BSD | Windows |
//! |---|---|---|---|
//! | tested | yes | no (it compiles) | no (it compiles) |
//! | inherited channels, unix sockets | yes | yes | no: use loopback ports |
//! | this program is killed | the kernel kills QEMU | a guard process (`/bin/sh`) kills QEMU | QEMU runs on |
//! | group, umask, no core dump, descriptors | yes | yes | `std`'s handling of handles only |
//! | a start copies this program's memory tables | no | yes: `fork` | no |
//! | [`ProcessHandle::terminate`] | SIGTERM | SIGTERM | the same as a kill |
//! | [`Sandbox`] | where QEMU was built with seccomp | no | no |
//!
//! On Linux QEMU is killed when the thread that started it ends. That is the thread which serves it
//! and lives as long as it does; the thread that calls [`spawn()`] may end, and so may its runtime.
//!
//! # What escapes
//! - A **wrapper** that runs QEMU without `exec`: signals go to its process group, in which QEMU is,
//!   and what is left of the group when the wrapper exits is killed. But if this program is killed,
//!   the kernel kills the wrapper alone. So let wrappers `exec`.
//! - A QEMU with **file capabilities or set-user-ID**: the kernel clears the signal that would kill
//!   it with this program. One of another user takes no signal from here at all, which
//!   [`StillRunning`] says.
//! - A wrapper that **daemonises** QEMU: it leaves the process group, and nothing here reaches it.
//! - What only this program can clear away stays when it is killed, or ends by `process::exit` while
//!   QEMU runs: the folder `qemu-*` of private sockets in the folder for temporary files, and
//!   sockets of [`Endpoint::Socket`].
//! - [`MachineSpec::keep_running`] turns all of that off for a QEMU that is meant to outlive its
//!   handle and its program.
//! - A program that reaps every child (`waitpid(-1)`), or ignores SIGCHLD, takes the exit status
//!   away: then the exit is [`ExitKind::Unknown`].

mod argv;
mod board;
pub mod discover;
mod error;
pub mod firmware;
mod process;
mod spec;
mod target;

pub use argv::command_line::Argv;
pub use discover::install::install_command;
pub use error::{SpawnError, SpecError};
pub use firmware::format::Format;
pub use process::exit::{Exit, ExitKind};
pub use process::lockup::RegisterDump;
pub use process::output::{Line, Lines, Tail, TimedOut};
pub use process::registers::DumpedRegisters;
pub use process::spawn::{spawn, spawn_async};
pub use process::stop_policy::{StillRunning, StopPolicy, StopStep, Terminated};
pub use process::{Process, ProcessHandle};
pub use spec::MachineSpec;
pub use spec::device::{
    Action, Backend, Blockdev, Device, Display, Drive, Icount, Log, Monitor, Nic, Sandbox,
    Semihosting, SemihostingLevel,
};
pub use spec::endpoint::{Address, Endpoint};
pub use spec::plain::{LoadedAs, PlainMachine};
