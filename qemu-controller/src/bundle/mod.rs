//! A failure that can be opened again: the machine as it was when it failed, in a folder.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use qemu_controller::bundle::{Account, Bundle, Recorder};
//! # use qemu_controller::Session;
//! # async fn example(session: Session) -> Result<(), Box<dyn std::error::Error>> {
//! let mut recorder = Recorder::default();
//! let report = session.run_recorded(Duration::from_secs(10), || false, &mut recorder).await;
//! if !report.verdict.success() {
//!     let account = Account::new("app", report.verdict.name()).message(report.to_string());
//!     let written = recorder.write(&session, account, "bundles").await?;
//!     println!("{}", written.folder.display());
//! }
//! // Another day, on another machine:
//! let bundle = Bundle::open("bundles/app-faulted")?;
//! let session = bundle.start().await?;
//! let mut debugger = session.debugger().await?;
//! println!("{}", debugger.backtrace().await?);
//! # Ok(()) }
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `bundle.json` | the machine, QEMU's version, the moment with its registers and reports, and what is missing |
//! | `state` | memory and devices at the moment ([`MachineState`](crate::MachineState)) |
//! | `firmware`, `loaded-1` … | the files that QEMU loaded, up to 64 MiB each |
//! | `symbols` | the ELF file with the symbols, where it is another one |
//! | `core` | registers and memory as `gdb firmware core` reads them, up to 256 MiB, where QEMU can write it |
//! | `output.txt`, `stderr.txt`, `qmp.txt`, `report.json`, … | what the [`Account`] has |
//!
//! ```text
//!  run ─▶ a fault, a panic, an exit, the deadline: the guest is stopped, its state is saved
//!      ─▶ failed: temporary folder ─▶ files ─▶ is opened once, here ─▶ core ─▶ rename
//! ```
//!
//! **It has all that the guest's memory has**, keys included; only its owner can read it. Of the
//! environment there is nothing in it.
//!
//! A bundle of a stranger is data: the machine is made of names and numbers that are checked, its
//! files are opened under their own fixed names without following links, and no option for QEMU is
//! taken from it. QEMU itself reads the state, and was not written to read one of a stranger: on
//! Linux it runs in its sandbox, without semihosting. It can still take as much memory and time as a
//! machine can.

mod core_file;
mod error;
mod manifest;
mod open;
mod record;
mod write;

pub use error::BundleError;
pub use manifest::{FORMAT_VERSION, MomentKind};
pub use open::Bundle;
pub use record::Recorder;
pub use write::{Account, Written};

/// The longest file that a machine loads, and that is copied, in bytes.
const MOST_LOADED: u64 = 64 * 1024 * 1024;

/// The longest state, in bytes.
const MOST_STATE: u64 = 256 * 1024 * 1024;

/// The largest memory of which there is a core file, in bytes.
const MOST_CORE: u64 = 256 * 1024 * 1024;

/// The longest of the texts, in bytes: of a longer one the end is kept.
const MOST_TEXT: usize = 1024 * 1024;
