//! What came from a port and was not read: bounded, the oldest dropped and counted.

use std::collections::VecDeque;

use super::Log;
use crate::escape;

/// Bytes that a port keeps for its reader: 1 MiB, a minute and a half of a UART at 115,200 baud.
pub const SERIAL_BUFFER_BYTES: usize = 1024 * 1024;

/// Of how many bytes the last lines are shown in an error, read or not.
const SHOWN_BYTES: usize = 800;

/// How many lines are shown at the most.
const SHOWN_LINES: usize = 10;

/// What an empty buffer may keep for what comes next.
const KEPT_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Buffer {
    bytes: VecDeque<u8>,
    /// How many bytes came before those in `bytes`.
    start: u64,
    dropped: u64,
    ended: bool,
    /// The end of all that came, read or not.
    last: Vec<u8>,
    log: Option<Log>,
}

impl Buffer {
    pub(crate) fn new(log: Option<Log>) -> Self {
        Self {
            log,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(bytes);
        }
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(SERIAL_BUFFER_BYTES);
        self.discard(excess);
        self.dropped += excess as u64;
        let last = &bytes[bytes.len().saturating_sub(SHOWN_BYTES)..];
        let excess = (self.last.len() + last.len()).saturating_sub(SHOWN_BYTES);
        self.last.drain(..excess);
        self.last.extend_from_slice(last);
    }

    /// Nothing more will come.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What is unread, and how many bytes came before it.
    pub(crate) fn unread(&mut self) -> (&[u8], u64) {
        (self.bytes.make_contiguous(), self.start)
    }

    /// Takes so many bytes, or what there is.
    pub(crate) fn take(&mut self, most: usize) -> Vec<u8> {
        if most >= self.bytes.len() {
            self.start += self.bytes.len() as u64;
            return std::mem::take(&mut self.bytes).into();
        }
        self.start += most as u64;
        let taken = self.bytes.drain(..most).collect();
        self.shrink();
        taken
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.start += count as u64;
    }

    /// After a flood that was read, its room is given back.
    fn shrink(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES && self.bytes.len() < KEPT_BYTES / 2 {
            self.bytes.shrink_to(KEPT_BYTES);
        }
    }

    /// The last lines that came, to be shown: text as it is, anything else escaped.
    pub(crate) fn last_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.last);
        let lines: Vec<_> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        shown
            .iter()
            .map(|line| format!("  {}", escape::line(line.trim_matches('\r'))))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_dropped_and_counted() {
        let mut buffer = Buffer::default();
        buffer.push(b"first");
        buffer.push(&vec![b'x'; SERIAL_BUFFER_BYTES]);
        assert_eq!((buffer.dropped(), buffer.unread().1), (5, 5));
        assert_eq!(
            buffer.take(SERIAL_BUFFER_BYTES - 1).len(),
            SERIAL_BUFFER_BYTES - 1
        );
        assert!(
            buffer.bytes.capacity() <= 2 * KEPT_BYTES,
            "the room of a flood is given back"
        );
        assert_eq!(buffer.take(usize::MAX), b"x");
        assert_eq!(buffer.unread(), (&b""[..], 5 + SERIAL_BUFFER_BYTES as u64));
        assert_eq!(buffer.dropped(), 5, "what was read was not dropped");
    }

    #[test]
    fn the_last_lines_are_shown_read_or_not() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.last_lines(), "");
        for number in 0..100 {
            buffer.push(format!("line {number}\r\n").as_bytes());
        }
        buffer.take(usize::MAX);
        buffer.push(b"\x1b[1mraw \xff\0");
        let lines = buffer.last_lines();
        assert_eq!(lines.lines().count(), SHOWN_LINES);
        assert!(lines.starts_with("  line 91\n"), "{lines}");
        assert!(
            lines.ends_with("\n  \\u{1b}[1mraw \u{fffd}\\u{0}"),
            "{lines}"
        );
    }
}
