//! The client's codec: server messages from bytes, and commands to bytes. It knows nothing of a
//! connection's phases.

use alloc::vec::Vec;

use serde::Serialize;

use crate::{
    command::{self, Command, CommandId},
    error::{DecodeError, DecodeErrorKind, EncodeError},
    framer::Framer,
    limits::Limits,
    message::ServerMessage,
    raw_message::RawMessage,
};

/// Decodes what the server sends and encodes what the client sends.
///
/// Most want [`Connection`](crate::Connection), which adds the phases, the ids and what is in
/// flight. A codec alone is for tools that look at QMP traffic, and for callers that keep that
/// state elsewhere.
///
/// Each byte is scanned once, however the stream is cut. Between messages the memory used is at
/// most 64 KiB; inside one it is the message so far and one read. Taking a message out shares that
/// memory with a value that makes up much of it; other values are copied, which adds half as much
/// at most. Reading the text of an `error` adds up to three times its size, which is limited to 1
/// MiB. All this holds only if [`next_message`](Self::next_message) is called until it has no more
/// after each [`feed`](Self::feed).
///
/// ```
/// use qmp_proto::{Codec, Limits, ServerMessage};
///
/// let mut codec = Codec::new(Limits::default());
/// codec.feed(b"{\"event\": \"STOP\", \"times");
/// assert_eq!(codec.next_message()?, None);
/// codec.feed(b"tamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n");
/// let Some(ServerMessage::Event(event)) = codec.next_message()? else { panic!() };
/// assert_eq!(event.name, "STOP");
/// # Ok::<(), qmp_proto::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Codec {
    max_command_bytes: usize,
    framer: Framer,
}

impl Codec {
    /// A codec at the start of a stream. It uses all limits but the one for commands in flight.
    pub fn new(limits: Limits) -> Self {
        Self {
            max_command_bytes: limits.max_command_bytes,
            framer: Framer::new(limits),
        }
    }

    /// Takes what was read. Empty input does nothing, and neither does input after an error or
    /// after [`feed_eof`](Self::feed_eof).
    ///
    /// A single byte inside a message is scanned together with those that follow: at the next `}`,
    /// after 128 bytes, or at the end of the stream. A fault is then reported that much later, with
    /// the same offset; a message is not.
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) {
        self.framer.feed(bytes);
    }

    /// The stream has ended. Complete messages can still be taken; a message that is cut off is
    /// then a [`DecodeErrorKind::Truncated`].
    pub fn feed_eof(&mut self) {
        self.framer.feed_eof();
    }

    /// The next complete message, or `None` if more bytes are needed or the stream has come to a
    /// clean end.
    ///
    /// # Errors
    /// [`DecodeError`] where the peer broke the protocol: the same at every later call.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<ServerMessage>, DecodeError> {
        self.framer.next()
    }

    /// The next complete message as its text, whichever side sent it: for proxies and logs, which
    /// pass it on as it is. It is checked to be a JSON object, within the limits, without one of
    /// QMP's keys twice.
    ///
    /// # Errors
    /// As [`next_message`](Self::next_message).
    pub fn next_raw(&mut self) -> Result<Option<RawMessage>, DecodeError> {
        let text = self.framer.next()?;
        Ok(text.map(|text| RawMessage::new(self.framer.last_offset(), text)))
    }

    /// Whether the stream has ended between messages and every message was taken.
    pub fn is_finished(&self) -> bool {
        self.framer.is_finished()
    }

    /// Writes a command to the end of `out`, to be run in its turn. Nothing is written on an error.
    ///
    /// # Errors
    /// [`EncodeError`] where the command cannot be sent.
    pub fn encode<C: Command>(
        &self,
        command: &C,
        id: CommandId,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.encode_raw(C::NAME, command, id, out)
    }

    /// [`encode`](Self::encode) for a command to be run at once, out of band. Only for connections
    /// that have negotiated `oob`.
    ///
    /// # Errors
    /// [`EncodeError`] where the command cannot be sent.
    pub fn encode_oob<C: Command>(
        &self,
        command: &C,
        id: CommandId,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.encode_raw_oob(C::NAME, command, id, out)
    }

    /// [`encode`](Self::encode) for a command by name, with arguments that serialise to an object,
    /// or to null for none.
    ///
    /// # Errors
    /// [`EncodeError`] where the command cannot be sent.
    pub fn encode_raw<A: Serialize + ?Sized>(
        &self,
        name: &str,
        arguments: &A,
        id: CommandId,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        command::write(name, false, arguments, id, self.max_command_bytes, out)
    }

    /// [`encode_oob`](Self::encode_oob) for a command by name.
    ///
    /// # Errors
    /// [`EncodeError`] where the command cannot be sent.
    pub fn encode_raw_oob<A: Serialize + ?Sized>(
        &self,
        name: &str,
        arguments: &A,
        id: CommandId,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        command::write(name, true, arguments, id, self.max_command_bytes, out)
    }

    /// Ends the codec with a fault in the meaning of the message that was taken last.
    pub(crate) fn fail_last(&mut self, kind: DecodeErrorKind) -> DecodeError {
        self.framer.fail_last(kind)
    }

    #[cfg(test)]
    pub(crate) fn looked_at(&self) -> u64 {
        self.framer.looked_at()
    }

    #[cfg(test)]
    pub(crate) fn moved(&self) -> u64 {
        self.framer.moved
    }
}
