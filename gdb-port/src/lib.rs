//! Tells whether a GDB stub is reachable, and what it is, without harm to the guest.
//!
//! **Connecting to QEMU's stub stops the guest**, closing the connection leaves it stopped, and a
//! connection made while a debugger is attached stops the guest later, when that debugger leaves.
//! So the check that a debugger will be able to attach is [`inspect`], which touches nothing; the
//! [`probe()`], which connects, is for those who ask for it, and says what it did.
//!
//! ```no_run
//! use gdb_port::{Leave, ProbeOptions, Reachability, StubAddress, inspect, probe};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint: StubAddress = "127.0.0.1:1234".parse()?;
//!
//! // Nothing is connected: the kernel's tables say who listens, and whether a client is attached.
//! let state = inspect(&endpoint, None);
//! println!("{state}; a debugger could attach: {}", state.reachability().can_attach());
//!
//! // Connects, asks who it is, and lets a guest that ran run on.
//! let report = probe(&endpoint, &ProbeOptions::default().leave(Leave::RunOn)).await?;
//! if let Reachability::Answers(identity) = &report.reachability {
//!     println!("{identity}");
//! }
//! println!("{}", report.effect);
//! # Ok(())
//! # }
//! ```
//!
//! | part | what it is |
//! |---|---|
//! | [`inspect`] | a look that touches nothing (Linux) |
//! | [`Probe`] | the questions and answers, sans-IO, over [`gdb_remote`] |
//! | [`blocking`] | the probe and the wait for a listener, without a runtime |
//! | feature `tokio` (default) | the same as futures: [`probe()`], [`probe_stream`], [`wait_until_listening`] |

mod address;
pub mod blocking;
mod connection;
mod dialogue;
#[cfg(feature = "tokio")]
mod driver;
mod error;
mod listen;
mod options;
mod reachability;
#[cfg(any(test, feature = "_testing"))]
#[doc(hidden)]
pub mod testing;
mod wait;

pub use address::{Chardev, StubAddress};
pub use connection::{QueuedConnection, Report};
pub use dialogue::{Outcome, Probe};
#[cfg(all(feature = "tokio", any(test, feature = "_testing")))]
#[doc(hidden)]
pub use driver::probe_unlooked;
#[cfg(feature = "tokio")]
pub use driver::{probe, probe_stream};
pub use error::{ConnectError, ParseAddressError, WaitError};
pub use gdb_remote;
pub use gdb_remote::handshake::StubIdentity;
#[cfg(unix)]
#[doc(hidden)]
pub use listen::unread_by_peer;
pub use listen::{Caller, ListenState, Listener, caller, inspect};
pub use options::{GuestState, Leave, ProbeOptions};
pub use reachability::{GuestEffect, Reachability, UnknownReason, WrongAnswer};
#[cfg(feature = "tokio")]
pub use wait::wait_until_listening;

/// The examples of the README are compiled.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
