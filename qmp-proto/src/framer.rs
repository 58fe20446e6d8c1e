//! Bytes to messages: the buffer of one direction of a stream, its limits and its end. What a
//! message means is for [`Message::read`].

use alloc::vec::Vec;
use core::{mem, ops::Range};

use bytes::Bytes;

use crate::{
    error::{DecodeError, DecodeErrorKind, MessageStart},
    limits::Limits,
    members::{KnownKey, Members},
    raw::RawJson,
    scanner::{ScanFault, Scanner},
};

/// Values from this size on may share the memory they came in; smaller ones are copied, so that one
/// that is kept does not keep a read buffer with it.
const SHARED_FROM_BYTES: usize = 16 * 1024;

/// The most memory that a value may keep by sharing, in its own sizes. Smaller values are copied.
const KEPT_FACTOR: usize = 4;

/// A drained buffer over this size is given back. A read is rarely larger.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that come one at a time are scanned when there are so many.
const UNSCANNED_BYTES: usize = 128;

/// A message that can be read from its text.
pub(crate) trait Message: Sized {
    /// Gives a message its meaning; `raw` takes a value out of it.
    fn read(
        members: &Members,
        message: &[u8],
        raw: impl Fn(Range<usize>) -> RawJson,
    ) -> Result<Self, DecodeErrorKind>;
}

/// Takes the bytes of one direction, and hands out its messages.
#[derive(Debug)]
pub(crate) struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Where in the buffer the current message begins.
    start: usize,
    /// Bytes of the stream before the buffer's first.
    dropped: u64,
    scanner: Scanner,
    /// The buffer's length up to which a single byte is appended without a scan.
    scan_at: usize,
    /// The length of the current message, once its end is known.
    complete: Option<usize>,
    eof: bool,
    failure: Option<DecodeError>,
    /// Where in the stream the last message began, and its first bytes, for faults found in its
    /// meaning.
    last_offset: u64,
    last_start: MessageStart,
    /// Bytes copied inside the buffer, or to a larger one, or out of it to make room.
    #[cfg(test)]
    pub(crate) moved: u64,
}

impl Framer {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            start: 0,
            dropped: 0,
            scanner: Scanner::new(limits.max_depth),
            scan_at: 0,
            complete: None,
            eof: false,
            failure: None,
            last_offset: 0,
            last_start: MessageStart::default(),
            #[cfg(test)]
            moved: 0,
        }
    }

    /// Takes what was read. Nothing after an error or after the end.
    #[inline]
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        match *bytes {
            [byte] if byte != b'}' && self.buffer.len() < self.scan_at => self.buffer.push(byte),
            _ => self.feed_and_scan(bytes),
        }
    }

    fn feed_and_scan(&mut self, bytes: &[u8]) {
        if self.failure.is_none() && !self.eof {
            self.make_room(bytes.len());
            self.buffer.extend_from_slice(bytes);
            self.advance();
        }
    }

    /// The stream has ended.
    pub(crate) fn feed_eof(&mut self) {
        self.eof = true;
        self.advance();
    }

    /// The next complete message. An error is the same at every later call.
    #[inline]
    pub(crate) fn next<M: Message>(&mut self) -> Result<Option<M>, DecodeError> {
        if self.buffer.len() < self.scan_at {
            return Ok(None);
        }
        self.take_next()
    }

    fn take_next<M: Message>(&mut self) -> Result<Option<M>, DecodeError> {
        if let Some(length) = self.complete.take() {
            return self.take_message(length).map(Some);
        }
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.eof && self.start < self.buffer.len() {
            let tail = &self.buffer[self.start..];
            let offset = self.dropped + self.buffer.len() as u64;
            return Err(self.fail(DecodeError::new(DecodeErrorKind::Truncated, offset, tail)));
        }
        Ok(None)
    }

    /// Whether the stream has ended between messages and every message was taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.eof && self.failure.is_none() && self.buffer.is_empty()
    }

    /// Where in the stream the last message began.
    pub(crate) fn last_offset(&self) -> u64 {
        self.last_offset
    }

    /// Ends the stream with a fault in the meaning of the message that was taken last.
    pub(crate) fn fail_last(&mut self, kind: DecodeErrorKind) -> DecodeError {
        let error = DecodeError::new(kind, self.last_offset, self.last_start.bytes());
        self.fail(error)
    }

    fn fail(&mut self, error: DecodeError) -> DecodeError {
        self.buffer = Vec::new();
        self.start = 0;
        self.complete = None;
        self.scan_at = 0;
        self.failure.insert(error).clone()
    }

    /// Drops what was consumed where that is cheap: where less is kept than was consumed since the
    /// last time, or where growing copies anyway. Grows to twice what is kept, but not beyond the
    /// largest message and this read (what the caller has not polled comes on top).
    fn make_room(&mut self, more: usize) {
        let kept = self.buffer.len() - self.start;
        if self.start >= kept {
            self.drop_consumed();
        }
        if self.buffer.len() + more > self.buffer.capacity() {
            self.drop_consumed();
            let most = if self.complete.is_some() {
                usize::MAX
            } else {
                self.limits.max_message_bytes
            };
            let doubled = (kept * 2).min(most.saturating_add(more));
            #[cfg(test)]
            self.count_moved(kept);
            self.buffer.reserve_exact(doubled.max(kept + more) - kept);
        }
    }

    fn drop_consumed(&mut self) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.dropped += self.start as u64;
            self.start = 0;
            #[cfg(test)]
            self.count_moved(self.buffer.len());
        }
    }

    #[cfg(test)]
    fn count_moved(&mut self, bytes: usize) {
        self.moved += bytes as u64;
    }

    #[cfg(test)]
    pub(crate) fn looked_at(&self) -> u64 {
        self.scanner.looked_at
    }

    /// Scans on to the end of the current message, if that is not known yet.
    fn advance(&mut self) {
        self.scan_at = 0;
        if self.complete.is_some() || self.failure.is_some() {
            return;
        }
        if self.scanner.scanned() == 0 {
            self.skip_space();
        }
        if self.start + self.scanner.scanned() < self.buffer.len() {
            self.scan();
        }
        // The first byte of a message does not wait: a server of another protocol may wait for its
        // client to speak.
        let is_inside = self.scanner.scanned() > 0 && self.complete.is_none();
        if is_inside && self.failure.is_none() && !self.eof {
            let limit = self.start.saturating_add(self.limits.max_message_bytes);
            let most = self.buffer.len() + UNSCANNED_BYTES;
            self.scan_at = most.min(limit).min(self.buffer.capacity());
        }
    }

    fn scan(&mut self) {
        let limit = self.limits.max_message_bytes;
        let message = &self.buffer[self.start..];
        let within = &message[..message.len().min(limit)];
        let fault = match self.scanner.scan(within) {
            Ok(Some(length)) => {
                self.complete = Some(length);
                return;
            }
            Ok(None) if message.len() <= limit => return,
            Ok(None) => ScanFault {
                kind: DecodeErrorKind::TooLarge { limit },
                at: limit,
            },
            Err(fault) => fault,
        };
        let error = DecodeError::new(fault.kind, self.offset(fault.at), &message[..=fault.at]);
        self.fail(error);
    }

    /// The place in the stream of the current message's byte `at`.
    fn offset(&self, at: usize) -> u64 {
        self.dropped + (self.start + at) as u64
    }

    /// White space between messages is consumed at once, so that any amount of it costs nothing.
    fn skip_space(&mut self) {
        let rest = &self.buffer[self.start..];
        self.start += rest
            .iter()
            .position(|byte| !is_space(byte))
            .unwrap_or(rest.len());
        if self.start == self.buffer.len() {
            self.drop_consumed();
            if self.buffer.capacity() > KEPT_BUFFER_BYTES {
                self.buffer = Vec::new();
            }
        }
    }

    /// Takes the current message, of this length, out of the buffer.
    fn take_message<M: Message>(&mut self, length: usize) -> Result<M, DecodeError> {
        self.last_offset = self.offset(0);
        let message = &self.buffer[self.start..self.start + length];
        self.last_start = MessageStart::of(message);
        let capacity = self.buffer.capacity();
        let is_shared = |span: &Range<usize>| {
            span.len() >= SHARED_FROM_BYTES && span.len() >= capacity / KEPT_FACTOR
        };
        let result = if length >= SHARED_FROM_BYTES && self.can_share(length, is_shared) {
            let message = self.share_message(length);
            M::read(self.scanner.members(), &message, |span| {
                if is_shared(&span) {
                    RawJson::share(&message, span)
                } else {
                    RawJson::copy(&message[span])
                }
            })
        } else {
            let read = M::read(self.scanner.members(), message, |span| {
                RawJson::copy(&message[span])
            });
            self.start += length;
            read
        };
        self.scanner.next_message();
        self.advance();
        result.map_err(|kind| self.fail_last(kind))
    }

    /// Whether the message has a value that shares its buffer, and handing that over costs little:
    /// little after the message to be copied.
    fn can_share(&self, length: usize, is_shared: impl Fn(&Range<usize>) -> bool) -> bool {
        let after = self.buffer.len() - self.start - length;
        after <= length
            && [
                KnownKey::Return,
                KnownKey::Data,
                KnownKey::Id,
                KnownKey::Arguments,
            ]
            .into_iter()
            .any(|key| {
                self.scanner
                    .members()
                    .span(key)
                    .is_some_and(|span| is_shared(&span))
            })
    }

    fn share_message(&mut self, length: usize) -> Bytes {
        let end = self.start + length;
        let rest = self.buffer[end..].to_vec();
        #[cfg(test)]
        self.count_moved(rest.len());
        let mut taken = mem::replace(&mut self.buffer, rest);
        taken.truncate(end);
        let message = Bytes::from(taken).slice(self.start..);
        self.dropped += end as u64;
        self.start = 0;
        message
    }
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}
