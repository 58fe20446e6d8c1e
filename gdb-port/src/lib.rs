//! Tells whether a GDB stub is reachable, and what it is, without harm to the guest.
//!
//! **Connecting to QEMU's stub stops the guest**, closing the connection leaves it stopped, and a
//! connection made while a debugger is attached stops the guest later, when that debugger leaves.
//! So the check that a debugger will be able to attach is a *look*, which touches nothing; the
//! *probe*, which speaks, is for those who ask for it, and says what it did.
//!
//! ```no_run
//! use gdb_port::{StubAddress, Leave, ProbeOptions, Reachability, look, probe};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint: StubAddress = "127.0.0.1:1234".parse()?;
//!
//! // Nothing is connected: the kernel's tables say who listens, and whether a client is attached.
//! let look = look(&endpoint, None);
//! println!("{look}; a debugger could attach: {}", look.reachability().can_attach());
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
//! | module | what it is |
//! |---|---|
//! | [`listen`] | looks that touch nothing (Linux) |
//! | [`packet`], [`link`] | framing; acknowledgments and resends: sans-IO |
//! | [`reply`], [`target`] | what stubs reply; target descriptions |
//! | [`mod@probe`] | the questions and answers, sans-IO |
//! | feature `tokio` (default) | [`probe()`], [`probe_stream`], [`wait_until_listening`] |

#[cfg(feature = "tokio")]
mod channel;
#[cfg(feature = "tokio")]
mod connect;
mod error;
pub mod link;
pub mod listen;
mod options;
pub mod packet;
pub mod probe;
mod reachability;
pub mod reply;
mod stub_address;
pub mod target;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tokio")]
mod wait;

#[cfg(feature = "tokio")]
pub use connect::{Report, Unaccepted, probe, probe_stream};
pub use error::EndpointError;
#[cfg(feature = "tokio")]
pub use error::{ConnectError, WaitError};
pub use listen::{Listener, Look, look};
pub use options::{GuestState, Leave, ProbeOptions};
pub use probe::{Outcome, Probe};
pub use reachability::{Blind, GuestEffect, Identity, Reachability, Seen};
pub use stub_address::{Chardev, StubAddress};
#[cfg(feature = "tokio")]
pub use wait::wait_until_listening;

/// The examples of the README are compiled.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
