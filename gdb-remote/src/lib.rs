//! The client's side of the GDB remote protocol, sans-IO: bytes in, bytes out, no socket, no clock,
//! no runtime.
//!
//! ```
//! use gdb_remote::handshake::{Handshake, Progress};
//! use gdb_remote::link::{Event, Link};
//!
//! let mut link = Link::default();
//! let mut handshake = Handshake::new();
//! handshake.begin(&mut link);
//! assert!(link.output().starts_with(b"+$qSupported:"));
//! link.advance_output(usize::MAX);
//!
//! // What a stub without a target description sends.
//! link.handle_input(b"+$PacketSize=1000#f1");
//! while let Some(event) = link.poll_event() {
//!     if let Event::Packet(payload) = event {
//!         assert_eq!(handshake.handle_packet(&mut link, &payload), Progress::Answered);
//!     }
//! }
//! assert_eq!(handshake.identity().features.packet_size(), Some(4096));
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`packet`] | framing: bytes to packets and back |
//! | [`link`] | acknowledgments and resends |
//! | [`reply`] | what stubs reply: features, stop replies, thread ids |
//! | [`target`] | target descriptions: architecture and registers |
//! | [`Target::undescribed`](target::Target::undescribed) | registers of targets that stubs do not describe |
//! | [`handshake`] | the first questions of every client |
//! | [`client`] | a debugger's requests and the guest's stops |

pub mod client;
pub mod handshake;
pub mod link;
pub mod packet;
pub mod reply;
pub mod target;
#[cfg(any(test, feature = "_testing"))]
#[doc(hidden)]
pub mod testing;
mod undescribed;

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
