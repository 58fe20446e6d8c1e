//! What QEMU wrote on stdout and stderr: its last bytes, and the stream line by line.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use event_listener::Listener;

use crate::process::ring::Ring;

/// The end of an output stream.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tail {
    bytes: Arc<[u8]>,
    dropped: u64,
}

impl Tail {
    pub(crate) fn of(ring: &Ring) -> Self {
        let (bytes, dropped) = ring.tail();
        Self {
            bytes: bytes.into(),
            dropped,
        }
    }

    /// The last bytes, as they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes came before these and are gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The last bytes as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn to_string_lossy(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// As text: errors that hold one are printed with `Debug` by `unwrap` and `main`.
impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("text", &self.to_string_lossy())
            .field("dropped", &self.dropped)
            .finish()
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped > 0 {
            writeln!(f, "[{} bytes dropped]", self.dropped)?;
        }
        f.write_str(&self.to_string_lossy())
    }
}

/// One line of an output stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// The line without its end; what is not UTF-8 becomes U+FFFD. A line of more than 64 KiB comes
    /// in pieces.
    pub text: String,
    /// Bytes before this line that were gone before they could be read. The line may then lack its
    /// beginning.
    pub dropped_before: u64,
}

/// Follows an output stream line by line, from its first byte unless that is gone already. A slow
/// reader delays nothing: it misses lines, and each line says how many bytes were dropped before
/// it.
#[derive(Debug, Clone)]
pub struct Lines {
    ring: Arc<Ring>,
    position: u64,
    pending: Vec<u8>,
    dropped: u64,
    ended: bool,
}

/// A line longer than this is handed out in pieces.
const LONGEST_LINE: usize = 64 * 1024;

impl Lines {
    pub(crate) fn new(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            position: 0,
            pending: Vec::new(),
            dropped: 0,
            ended: false,
        }
    }

    /// The next line, or `None` when the stream has ended. May be dropped at any point: no line is
    /// lost by it.
    pub async fn next_line(&mut self) -> Option<Line> {
        loop {
            let changed = self.ring.changed();
            if let Some(next) = self.poll_line() {
                return next;
            }
            changed.await;
        }
    }

    /// As [`next_line`](Self::next_line), blocking at most until the deadline.
    ///
    /// # Errors
    /// [`TimedOut`] when no line came by then. Nothing is lost by it.
    pub fn next_line_blocking(&mut self, deadline: Instant) -> Result<Option<Line>, TimedOut> {
        loop {
            let changed = self.ring.changed();
            if let Some(next) = self.poll_line() {
                return Ok(next);
            }
            changed.wait_deadline(deadline).ok_or(TimedOut)?;
        }
    }

    /// `Some(None)` at EOF, `None` where no line is complete yet.
    fn poll_line(&mut self) -> Option<Option<Line>> {
        if let Some(line) = self.take_pending() {
            return Some(Some(line));
        }
        if !self.ended {
            let chunk = self.ring.read_from(self.position);
            if chunk.dropped > 0 {
                self.dropped += chunk.dropped + self.pending.len() as u64;
                self.pending.clear();
            }
            self.pending.extend(chunk.bytes);
            self.position = chunk.next;
            self.ended = chunk.closed;
        }
        match self.take_pending() {
            Some(line) => Some(Some(line)),
            None if self.ended && self.pending.is_empty() => Some(None),
            None if self.ended => {
                let rest = self.pending.len();
                Some(Some(self.cut(rest, 0)))
            }
            None => None,
        }
    }

    fn take_pending(&mut self) -> Option<Line> {
        match self.pending.iter().position(|&b| b == b'\n') {
            Some(end) => Some(self.cut(end, 1)),
            None if self.pending.len() >= LONGEST_LINE => Some(self.cut(LONGEST_LINE, 0)),
            None => None,
        }
    }

    fn cut(&mut self, length: usize, ending: usize) -> Line {
        let bytes: Vec<u8> = self.pending.drain(..length + ending).collect();
        let line = bytes[..length]
            .strip_suffix(b"\r")
            .unwrap_or(&bytes[..length]);
        Line {
            text: String::from_utf8_lossy(line).into_owned(),
            dropped_before: std::mem::take(&mut self.dropped),
        }
    }
}

/// The deadline of a blocking wait has passed; what was waited for may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct TimedOut;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::{Line, Lines, TimedOut};
    use crate::process::ring::Ring;

    fn next(lines: &mut Lines) -> Result<Option<Line>, TimedOut> {
        lines.next_line_blocking(Instant::now())
    }

    fn line(text: &str, dropped_before: u64) -> Result<Option<Line>, TimedOut> {
        Ok(Some(Line {
            text: text.to_owned(),
            dropped_before,
        }))
    }

    #[test]
    fn lines_are_cut_at_newlines_wherever_the_pieces_end() {
        let ring = Arc::new(Ring::new(100));
        let mut lines = Lines::new(Arc::clone(&ring));
        assert_eq!(next(&mut lines), Err(TimedOut));
        ring.push(b"one\r");
        assert_eq!(next(&mut lines), Err(TimedOut));
        ring.push(b"\n\ntw");
        assert_eq!(next(&mut lines), line("one", 0));
        assert_eq!(next(&mut lines), line("", 0));
        assert_eq!(next(&mut lines), Err(TimedOut));
        ring.push(b"o\xff");
        ring.close();
        assert_eq!(next(&mut lines), line("two\u{fffd}", 0));
        assert_eq!((next(&mut lines), next(&mut lines)), (Ok(None), Ok(None)));
    }

    #[test]
    fn a_slow_reader_learns_what_it_missed() {
        let ring = Arc::new(Ring::new(8));
        let mut lines = Lines::new(Arc::clone(&ring));
        ring.push(b"abc");
        assert_eq!(next(&mut lines), Err(TimedOut));
        ring.push(b"defghijkl\nnext\n");
        // Of `abcdefghijkl\nnext\n` the last 8 are kept; the 3 that were read but made no line are
        // gone with the rest.
        assert_eq!(next(&mut lines), line("kl", 10));
        assert_eq!(next(&mut lines), line("next", 0));
    }
}
