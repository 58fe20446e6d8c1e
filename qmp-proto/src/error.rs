//! Errors, split by who is at fault: the peer ([`DecodeError`]), the caller ([`EncodeError`],
//! [`SendError`]), or the type that was asked of a raw value ([`ParseError`]). The server's own
//! 'no' is a value: [`ServerError`](crate::ServerError).

use alloc::{boxed::Box, string::String, sync::Arc};
use core::fmt;

use crate::Phase;

/// The peer broke the protocol. Fatal: every later call returns the same error, and
/// no byte after it is looked at.
///
/// Cheap to clone, so that everyone who waits for this connection can be given a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError {
    inner: Arc<ErrorParts>,
}

#[derive(PartialEq, Eq)]
struct ErrorParts {
    kind: DecodeErrorKind,
    offset: u64,
    seen: Box<[u8]>,
}

/// Most bytes of the stream that a [`DecodeError`] quotes.
const SEEN_BYTES: usize = 32;

/// A message's first bytes, kept for a fault that is found in its meaning.
#[derive(Debug, Default)]
pub(crate) struct MessageStart {
    bytes: [u8; SEEN_BYTES],
    len: usize,
}

impl MessageStart {
    pub(crate) fn of(message: &[u8]) -> Self {
        // Most messages are longer, and a copy of a fixed size costs next to nothing.
        if let Some(&bytes) = message.first_chunk() {
            let len = SEEN_BYTES;
            return Self { bytes, len };
        }
        let len = message.len();
        let mut bytes = [0; SEEN_BYTES];
        bytes[..len].copy_from_slice(message);
        Self { bytes, len }
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
            inner: Arc::new(ErrorParts {
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

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodeError")
            .field("kind", self.kind())
            .field("offset", &self.offset())
            .field("seen", &format_args!("\"{}\"", self.seen().escape_ascii()))
            .finish()
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
    /// JSON, but not a QMP message, or one that may not come now: one of QMP's own keys twice, none
    /// or several of the keys that decide what a message is, a member of another type than the
    /// specification has, a second greeting, or a return without id although every command was sent
    /// with one.
    #[error("{reason}")]
    Protocol {
        /// What is wrong. What the JSON reader says is cut after 200 bytes.
        reason: String,
    },
}

impl DecodeErrorKind {
    pub(crate) fn protocol(reason: &str) -> Self {
        Self::Protocol {
            reason: reason.into(),
        }
    }
}

/// The caller's command cannot be sent. Nothing was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The command would be larger than
    /// [`Limits::max_command_bytes`](crate::Limits::max_command_bytes).
    #[error("command of {size} bytes, over the limit of {limit} bytes")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It is no QMP command: an empty name, arguments that serialise to neither an object nor null
    /// or do not serialise at all, nesting over [`MAX_COMMAND_DEPTH`](crate::MAX_COMMAND_DEPTH), or
    /// a NUL in a text, where QEMU's strings end: the rest would be lost in silence.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
}

impl EncodeError {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid {
            reason: reason.into(),
        }
    }
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
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A raw JSON value does not fit the type that was asked for. The value is unharmed and the
/// connection goes on. `Display` names the type, the field and the place.
#[derive(Debug, thiserror::Error)]
#[error("the value does not fit the type asked for, {type_name}: {reason}")]
pub struct ParseError {
    type_name: &'static str,
    reason: serde_json::Error,
}

impl ParseError {
    pub(crate) fn new<T>(reason: serde_json::Error) -> Self {
        Self {
            type_name: core::any::type_name::<T>(),
            reason,
        }
    }
}
