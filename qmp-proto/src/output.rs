//! Bytes on their way to the socket.

use alloc::vec::Vec;
use core::mem;
#[cfg(feature = "std")]
use std::io::{self, Read, Write};

/// What waits to be written, and what of it was.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that went out already.
    start: usize,
    /// All bytes that were ever added.
    added: u64,
}

impl Output {
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes were ever added.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// How many of them went out.
    pub(crate) fn sent(&self) -> u64 {
        self.added - self.waiting().len() as u64
    }

    /// Adds what `write` appends. On an error it must have appended nothing.
    pub(crate) fn add<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.bytes.len();
        write(&mut self.bytes)?;
        self.added += (self.bytes.len() - before) as u64;
        Ok(())
    }

    /// Adds a text and QEMU's line end.
    pub(crate) fn add_line(&mut self, text: &str) {
        for part in [text, "\r\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
            self.added += part.len() as u64;
        }
    }

    pub(crate) fn advance(&mut self, written: usize) {
        let waiting = self.waiting().len();
        assert!(
            written <= waiting,
            "advance_output({written}), but only {waiting} bytes of output were waiting"
        );
        self.start += written;
        // Dropped where what is left is smaller: so the whole costs no more than one copy of each
        // byte, and what went out does not pile up while there is always something waiting.
        if self.start >= waiting - written {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// All that waits; it then counts as sent.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.start = 0;
        mem::take(&mut self.bytes)
    }

    /// One write of what waits, if anything does.
    #[cfg(feature = "std")]
    pub(crate) fn write_to(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        if self.waiting().is_empty() {
            return Ok(0);
        }
        let written = stream.write(self.waiting())?;
        self.advance(written);
        Ok(written)
    }
}

/// One read, handed to `feed`; nothing for the end. A reset counts as the end: it is what a QEMU
/// that quits leaves while there is input it has not read.
#[cfg(feature = "std")]
pub(crate) fn read_from(stream: &mut impl Read, feed: impl FnOnce(&[u8])) -> io::Result<usize> {
    let mut buffer = [0; 8 * 1024];
    let count = match stream.read(&mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        read => read?,
    };
    feed(&buffer[..count]);
    Ok(count)
}
