//! One message as its text, for proxies and logs.

use core::{fmt, ops::Range};

use crate::{
    error::{DecodeError, DecodeErrorKind},
    framer::{Framer, Message},
    limits::Limits,
    members::Members,
    message::ServerMessage,
    raw::RawJson,
    server::Request,
};

/// One message of either side as its text, from [`Codec::next_raw`](crate::Codec::next_raw).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    offset: u64,
    text: RawJson,
}

impl RawMessage {
    pub(crate) fn new(offset: u64, text: RawJson) -> Self {
        Self { offset, text }
    }

    /// The message, from brace to brace.
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// The message, from brace to brace.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Where in the stream it is, in bytes. What lies between two messages is white space.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.text.as_bytes().len() as u64
    }

    /// Reads it as a message of a server.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none, with its offset counted from the message's first byte.
    pub fn to_server_message(&self) -> Result<ServerMessage, DecodeError> {
        self.read()
    }

    /// Reads it as a command of a client.
    ///
    /// # Errors
    /// As [`to_server_message`](Self::to_server_message).
    pub fn to_request(&self) -> Result<Request, DecodeError> {
        self.read()
    }

    fn read<M: Message>(&self) -> Result<M, DecodeError> {
        // The text has passed the limits of its stream.
        let limits = Limits {
            max_message_bytes: usize::MAX,
            max_depth: u16::MAX,
            ..Limits::default()
        };
        let mut framer = Framer::new(limits);
        framer.feed(self.as_bytes());
        framer.feed_eof();
        framer
            .next()
            .map(|message| message.expect("the text is one whole message"))
    }
}

impl fmt::Display for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Message for RawJson {
    fn read(
        _: &Members,
        message: &[u8],
        raw: impl Fn(Range<usize>) -> RawJson,
    ) -> Result<Self, DecodeErrorKind> {
        Ok(raw(0..message.len()))
    }
}
