//! QMP, the QEMU Machine Protocol, sans-IO: bytes in, messages out. No socket, no clock, no task.
//!
//! ```
//! use qmp_proto::{Connection, Limits, Received, commands::QueryStatus, parse_return};
//!
//! // `Connection::new` makes up the ids' prefix; with one that is given, this example is the same in every run.
//! let mut qmp = Connection::with_id_prefix(Limits::default(), 0x2a);
//!
//! // What a socket brings, in whatever pieces.
//! qmp.handle_input(b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"pack");
//! qmp.handle_input(b"age\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n");
//! let Some(Received::Greeting(greeting)) = qmp.poll()? else { panic!("no greeting") };
//! assert_eq!(greeting.version.to_string(), "10.0.2");
//!
//! qmp.negotiate(&[])?;
//! assert_eq!(qmp.output(), br#"{"execute":"qmp_capabilities","id":"0000002a-1"}"#); // to the socket
//! qmp.advance_output(qmp.output().len());
//! qmp.handle_input(b"{\"return\": {}, \"id\": \"0000002a-1\"}\r\n");
//! assert_eq!(qmp.poll()?, Some(Received::Negotiated(Ok(()))));
//!
//! let asked = qmp.command(&QueryStatus)?;
//! # qmp.advance_output(qmp.output().len());
//! # qmp.handle_input(b"{\"return\": {\"running\": true, \"status\": \"running\"}, \"id\": \"0000002a-2\"}\r\n");
//! while let Some(event) = qmp.poll()? {
//!     match event {
//!         Received::Reply { id, result } if id == asked => {
//!             assert!(parse_return::<QueryStatus>(&result?)?.running);
//!         }
//!         Received::Event(event) => println!("{}", event.name),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # QMP in twenty lines
//!
//! The server speaks first: a *greeting* with its version and the capabilities it offers. The
//! client answers with `qmp_capabilities`, which enables some (mostly none) and ends the
//! *negotiation*; nothing else is run before. Then the client sends *commands*, `{"execute": name,
//! "arguments": {…}, "id": …}`, and each is answered by a *return* or an *error* with the same id.
//! *Events* come in between at any time, also before the greeting. Commands are run one after the
//! other; with the capability `oob`, some can be sent *out of band* (`exec-oob`) and overtake the
//! others. The stream has no frames but JSON's own: a message ends with its closing brace.
//!
//! # The parts
//!
//! - [`Blocking`]: a client on a blocking stream, the shortest way. Needs `std`.
//! - [`Connection`]: a client without its socket: phases, ids, what is in flight, events, the end.
//! - [`server::Connection`]: the other side, for fakes of QEMU and programs that offer QMP.
//! - [`Codec`]: bytes to messages and back, without any of that; [`RawMessage`] for proxies.
//! - [`commands`]: typed commands and event data. [`Command`] adds one in a few lines, and any
//!   other goes by name.
//! - [`Schema`]: what this QEMU knows, from its own description.
//! - [`transcript`]: conversations as text, for logs and tests.
//! - [`Limits`]: what a broken or hostile peer can cost.
//! - Errors by who is at fault: the peer, [`DecodeError`]; the caller, [`SendError`] and
//!   [`EncodeError`]; the type asked for, [`ParseError`]. The server's 'no' to a command is a
//!   value, [`ServerError`].
//!
//! **A panic is a bug of this crate, whatever the peer sends.** The one exception is
//! [`Connection::advance_output`] with more than was there, which is the caller's.
//!
//! # Features
//!
//! - `std` (default): [`Blocking`], [`Connection::new`], `read_from` and `write_to`. Without it the
//!   crate is `no_std` with `alloc`, for targets with atomic compare-and-swap (thumbv7em, not
//!   thumbv6m), which `bytes` needs.
//! - `tokio-codec`: `tokio_util::codec::{Decoder, Encoder}` for [`Codec`].
//!
//! # Public dependencies
//!
//! `serde`, `serde_json` (its `Error`) and, with `tokio-codec`, `tokio-util` and `bytes`: a new
//! major version of one of them is a new one of this crate.
// Tests have `std` in any case.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

extern crate alloc;

#[cfg(feature = "std")]
mod blocking;
mod codec;
mod command;
pub mod commands;
mod connection;
mod error;
mod event;
mod framer;
mod greeting;
mod limits;
mod members;
mod message;
mod object;
mod output;
mod raw;
mod raw_message;
mod scanner;
mod schema;
pub mod server;
mod server_error;
#[cfg(any(test, feature = "_testing"))]
#[doc(hidden)]
pub mod testing;
mod text;
#[cfg(feature = "tokio-codec")]
mod tokio_codec;
pub mod transcript;

#[cfg(feature = "std")]
pub use blocking::{Blocking, BlockingError};
pub use codec::Codec;
pub use command::{Command, CommandId, Empty, parse_return};
pub use connection::{Connection, Dropped, Phase, Received};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, ParseError, SendError};
pub use event::{QmpEvent, Timestamp};
pub use greeting::{Capability, Greeting, Version};
pub use limits::{
    Limits, MAX_COMMAND_BYTES, MAX_COMMAND_DEPTH, MAX_DEPTH, MAX_IN_FLIGHT, MAX_MESSAGE_BYTES,
};
pub use message::{MessageId, ServerMessage};
pub use raw::{RawJson, RawReturn};
pub use raw_message::RawMessage;
pub use schema::Schema;
pub use server_error::{ErrorClass, ServerError};
#[cfg(feature = "tokio-codec")]
pub use tokio_codec::{FramedError, OutOfBand};

#[cfg(test)]
mod tests;

/// The example of the README compiles.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;
