//! Sans-IO QMP, the QEMU Machine Protocol: bytes in, messages out. No socket, no clock, no task.
//!
//! ```
//! use qmp_proto::{Connection, Event, Limits, Phase, commands::QueryStatus};
//!
//! let mut qmp = Connection::new(Limits::default());
//! // What a socket would bring, in whatever pieces.
//! qmp.handle_input(b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10},");
//! qmp.handle_input(b" \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n");
//! let Some(Event::Greeting(greeting)) = qmp.poll_event()? else { panic!() };
//! assert_eq!(greeting.version.major, 10);
//!
//! qmp.negotiate(&[])?;
//! let written = qmp.output().len(); // to the socket
//! qmp.advance_output(written);
//! # let reply = |n, value: &str| format!("{{\"return\": {value}, \"id\": \"00000007-{n}\"}}\r\n");
//! # let mut qmp = Connection::with_id_prefix(Limits::default(), 7);
//! # qmp.handle_input(b"{\"QMP\":{\"version\":{\"qemu\":{\"micro\":2,\"minor\":0,\"major\":10}}}}");
//! # qmp.poll_event()?;
//! # qmp.negotiate(&[])?;
//! # qmp.handle_input(reply(1, "{}").as_bytes());
//! # qmp.poll_event()?;
//! // … and when its answer has come:
//! assert_eq!(qmp.phase(), Phase::Ready);
//! let asked = qmp.execute(&QueryStatus)?;
//! # qmp.handle_input(reply(2, r#"{"running": true, "status": "running"}"#).as_bytes());
//! while let Some(event) = qmp.poll_event()? {
//!     match event {
//!         Event::Reply { id, result } if id == asked => {
//!             assert!(qmp_proto::parse_return::<QueryStatus>(&result?)?.running);
//!         }
//!         Event::Event(event) => println!("{}", event.name),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # QMP in twenty lines
//!
//! The server speaks first: a *greeting* with its version and the capabilities it offers. The client answers with
//! `qmp_capabilities`, which enables some (mostly none) and ends the *negotiation*; nothing else is run before. Then
//! the client sends *commands*, `{"execute": name, "arguments": {…}, "id": …}`, and each is answered by a *return* or
//! an *error* with the same id. *Events* come in between at any time, also before the greeting. Commands are run one
//! after the other; with the capability `oob`, some can be sent *out of band* (`exec-oob`) and overtake the others. The
//! stream has no frames but JSON's own: a message ends with its closing brace.
//!
//! # The parts
//!
//! - [`Connection`]: phases, ids, what is in flight, events, the end. Start here.
//! - [`Codec`]: bytes to messages and back, without any of that.
//! - [`commands`]: typed commands and event data. [`Command`] adds one in a few lines, and any other goes by name.
//! - [`Limits`]: what a broken or hostile peer can cost.
//! - Errors by who is at fault: the peer, [`DecodeError`]; the caller, [`SendError`] and [`EncodeError`]; the type asked
//!   for, [`ParseError`]. The server's 'no' to a command is a value, [`ServerError`].
//!
//! **A panic is a bug of this crate, whatever the peer sends.** The one exception is
//! [`Connection::advance_output`] with more than was there, which is the caller's.
//!
//! # Features
//!
//! - `std` (default): [`Connection::new`]; without it the crate is `no_std` with `alloc`.
//! - `tokio-codec`: `tokio_util::codec::{Decoder, Encoder}` over the same core.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod codec;
mod command;
pub mod commands;
mod connection;
mod error;
mod framing;
mod limits;
mod message;
mod raw;
mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
#[cfg(feature = "tokio-codec")]
mod tokio_codec;
pub mod transcript;

pub use codec::Codec;
pub use command::{Command, CommandId, Empty, parse_return};
pub use connection::{Connection, Dropped, Event, Phase};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, ParseError, SendError};
pub use limits::{Limits, MAX_COMMAND_BYTES, MAX_DEPTH, MAX_IN_FLIGHT, MAX_MESSAGE_BYTES};
pub use message::{
    Capability, ErrorClass, Greeting, MessageId, QmpEvent, ServerError, ServerMessage, Timestamp, Version,
};
pub use raw::{RawJson, RawReturn};
pub use schema::Schema;
#[cfg(feature = "tokio-codec")]
pub use tokio_codec::FramedError;

#[cfg(test)]
mod tests;
