//! Errors, split by who is at fault: the peer ([`DecodeError`]), the caller ([`EncodeError`],
//! [`SendError`]), or the type that was asked of a raw value ([`ParseError`]). The server's own
//! 'no' is a value: [`ServerError`](crate::ServerError).

use alloc::{boxed::Box, string::String, sync::Arc};
use core::fmt;

use crate::Phase;

/// The peer broke the protocol. Fatal: whoever met it gets the same error at every later call, and
/// no byte after it is looked at.
///
/// Cheap to clone, so that everyone who waits for this connection can be given a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    kind: DecodeErrorKind,
    offset: u64,
    seen: Box<[u8]>,
}

/// Most bytes of the stream that a [`DecodeError`] quotes.
const SEEN_BYTES: usize = 32;

/// A message's first bytes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bytes: [u8; SEEN_BYTES],
    len: usize,
}

impl Seen {
    pub(crate) fn of(message: &[u8]) -> Self {
        // Nearly all are longer, and a copy of a fixed size costs next to nothing.
        if let Some(&bytes) = message.first_chunk() {
            return Self {
                bytes,
                len: SEEN_BYTES,
            };
        }
        let mut bytes = [0; SEEN_BYTES];
        bytes[..message.len()].copy_from_slice(message);
        Self {
            bytes,
            len: message.len(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DecodeError {
    /// `seen` is what came up to and with the offending byte; its tail is kept.
    pub(crate) fn new(kind: DecodeErrorKind, offset: u64, seen: &[u8]) -> Self {
        let seen = &seen[seen.len().saturating_sub(SEEN_BYTES)..];
        Self {
            inner: Arc::new(Inner {
                kind,
                offset,
                seen: seen.into(),
            }),
        }
    }

    /// What was wrong.
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.inner.kind
    }

    /// Where: bytes of the stream before the offending byte, counted from the connection's first
    /// byte. For a fault of a whole message it is the message's first byte.
    pub fn offset(&self) -> u64 {
        self.inner.offset
    }

    /// The last bytes up to and with the offending one, 32 at the most; for a fault of a whole
    /// message its first ones.
    pub fn seen(&self) -> &[u8] {
        &self.inner.seen
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {} of the stream",
            self.inner.kind, self.inner.offset
        )?;
        if self.inner.seen.is_empty() {
            return Ok(());
        }
        f.write_str(", near '")?;
        for &byte in &self.inner.seen {
            match byte {
                b' '..=b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("'")
    }
}

impl core::error::Error for DecodeError {}

/// In which way the peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// Not JSON, or not a JSON object at the top.
    #[error("invalid JSON, expected {expected}")]
    Syntax {
        /// What could have stood there.
        expected: &'static str,
    },
    /// Bytes in a string that are not UTF-8, or an escaped surrogate without its other half.
    #[error("invalid text encoding, {found}")]
    Encoding {
        /// What was found in place of text.
        found: &'static str,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// A message over [`Limits::max_message_bytes`](crate::Limits::max_message_bytes), a greeting
    /// over 16 KiB, an `error` over 1 MiB or an event's name over 1 KiB.
    #[error("message over the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A message nested deeper than [`Limits::max_depth`](crate::Limits::max_depth).
    #[error("message nested deeper than the limit of {limit}")]
    TooDeep {
        /// The limit, in levels.
        limit: u16,
    },
    /// One of QMP's own keys twice in one message.
    #[error("key `{key}` twice in one message")]
    DuplicateKey {
        /// The key.
        key: &'static str,
    },
    /// A message that is neither greeting, return, error nor event, or more than one of them.
    #[error("message with {found}")]
    NotOneKind {
        /// Which of the deciding keys were there.
        found: &'static str,
    },
    /// A member of a message is not what the QMP specification has there.
    #[error("invalid `{member}`: {reason}")]
    InvalidMember {
        /// The member.
        member: &'static str,
        /// What is wrong with it, as the JSON reader says it, cut after 200 bytes.
        reason: String,
    },
    /// A second greeting in one connection.
    #[error("second greeting in one connection")]
    SecondGreeting,
    /// A return without id after negotiation, although each command was sent with one. Earlier it
    /// is
    /// [`Dropped::ReturnWithoutId`](crate::Dropped::ReturnWithoutId).
    #[error("return without id, although every command was sent with one")]
    ReturnWithoutId,
}

/// The caller asked for something that cannot be sent as a QMP command. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The command's name is empty.
    #[error("the command's name is empty")]
    EmptyName,
    /// A NUL in the command's name, or in a string or key of its arguments. QEMU's strings end at a
    /// NUL, so the rest would be lost in silence.
    #[error("NUL in the command's {place}")]
    Nul {
        /// `name` or `arguments`.
        place: &'static str,
    },
    /// The arguments serialise to neither a JSON object nor null.
    #[error("the arguments of a command must be a JSON object, or nothing")]
    NotAnObject,
    /// The command would be larger than
    /// [`Limits::max_command_bytes`](crate::Limits::max_command_bytes).
    #[error("command of {size} bytes, over the limit of {limit} bytes")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The command would be nested deeper than [`MAX_COMMAND_DEPTH`](crate::MAX_COMMAND_DEPTH).
    #[error("command nested deeper than the limit of {limit}")]
    TooDeep {
        /// The limit, in levels, the command itself counted.
        limit: usize,
    },
    /// The arguments' own `Serialize` failed.
    #[error("the command's arguments do not serialise")]
    Serialize(#[source] serde_json::Error),
}

/// The caller's call does not fit the connection's state, or its command cannot be sent. The
/// connection is as it was before the call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// All places for commands in flight are taken: wait for a reply. See
    /// [`Connection::can_execute`](crate::Connection::can_execute).
    #[error("all {limit} places for commands in flight are taken, wait for a reply")]
    Full {
        /// The limit, in commands.
        limit: usize,
    },
    /// The connection is not in the phase that the call needs: commands need [`Phase::Ready`],
    /// `negotiate` needs
    /// [`Phase::Greeted`].
    #[error("not possible while {phase}")]
    WrongPhase {
        /// The phase it is in.
        phase: Phase,
    },
    /// An out-of-band command, but [`Capability::Oob`](crate::Capability::Oob) was not negotiated.
    #[error("out-of-band execution was not negotiated")]
    OobNotEnabled,
    /// A capability that the greeting did not offer.
    #[error("capability `{0}` was not offered by the server")]
    NotOffered(String),
    /// The command itself cannot be sent.
    #[error("the command cannot be sent")]
    Encode(#[source] EncodeError),
}

impl From<EncodeError> for SendError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// A raw JSON value does not fit the type that was asked for. The value is unharmed and the
/// connection goes on.
#[derive(Debug, thiserror::Error)]
#[error("the value does not fit the type asked for, {type_name}")]
pub struct ParseError {
    pub(crate) type_name: &'static str,
    #[source]
    pub(crate) source: serde_json::Error,
}
