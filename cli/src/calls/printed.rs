//! The end of a text that others write: what the firmware prints, what QMP says.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// So much is kept, of the latest.
pub(crate) const KEPT: usize = 256 * 1024;

/// A writer that keeps the end of what was written. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Printed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<PrintedState>,
    changed: Notify,
}

#[derive(Default)]
struct PrintedState {
    bytes: Vec<u8>,
    /// How many came before those.
    dropped: u64,
    /// Behind what was expected last.
    expected: u64,
}

/// A piece of it.
pub(crate) struct Piece {
    /// Where it begins, counted from the start.
    pub(crate) from: u64,
    pub(crate) bytes: Vec<u8>,
    /// How many were written in all.
    pub(crate) written: u64,
}

impl Printed {
    fn state(&self) -> MutexGuard<'_, PrintedState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From this byte on, or the last ones; where they are not kept any more, the first that are.
    pub(crate) fn piece(&self, from: Option<u64>, length: usize) -> Piece {
        let state = self.state();
        let written = state.written();
        let from = from.unwrap_or(written.saturating_sub(length as u64));
        let from = from.clamp(state.dropped, written);
        let bytes = &state.bytes[state.index(from)..];
        let bytes = bytes[..length.min(bytes.len())].to_vec();
        Piece {
            from,
            bytes,
            written,
        }
    }

    /// Waits for a text behind the one that was expected last; where it ends.
    pub(crate) async fn expect(&self, text: &[u8]) -> u64 {
        let mut seen = 0;
        loop {
            // Listens before it looks, so that nothing comes between.
            let changed = self.0.changed.notified();
            if let Some(end) = self.state().find(text, &mut seen) {
                return end;
            }
            changed.await;
        }
    }
}

impl PrintedState {
    fn written(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.dropped)).unwrap_or(usize::MAX)
    }

    /// Looks for a text; up to `seen` nothing of it begins.
    fn find(&mut self, text: &[u8], seen: &mut u64) -> Option<u64> {
        let from = self.index(self.expected.max(*seen));
        *seen = (self.written() + 1).saturating_sub(text.len() as u64);
        let found = self.bytes[from..]
            .windows(text.len().max(1))
            .position(|window| window == text)?;
        self.expected = self.dropped + (from + found + text.len()) as u64;
        Some(self.expected)
    }
}

impl Printed {
    /// Adds what was written.
    pub(crate) fn add(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.bytes.extend_from_slice(bytes);
        // Not at every byte.
        if state.bytes.len() > 2 * KEPT {
            let gone = state.bytes.len() - KEPT;
            state.bytes.drain(..gone);
            state.dropped += gone as u64;
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_expected_is_found_once_and_in_its_order() {
        let mut printed = Printed::default();
        printed.write_all(b"one two one").unwrap();
        assert_eq!(printed.expect(b"one").await, 3);
        assert_eq!(printed.expect(b"one").await, 11);
        let more = printed.clone();
        let waiting = tokio::spawn(async move { more.expect(b"three").await });
        tokio::task::yield_now().await;
        printed.write_all(b" thr").unwrap();
        printed.write_all(b"ee").unwrap();
        assert_eq!(waiting.await.unwrap(), 17);
    }

    #[test]
    fn it_is_bounded_and_says_where_a_piece_begins() {
        let mut printed = Printed::default();
        for number in 0..200_000 {
            writeln!(printed, "{number:06}").unwrap();
        }
        let all = 200_000 * 7;
        let piece = printed.piece(Some(0), 7);
        assert!(piece.from >= all - 2 * KEPT as u64, "{}", piece.from);
        assert_eq!((piece.written, piece.bytes.len()), (all, 7));
        let last = printed.piece(None, 14);
        assert_eq!(last.bytes, b"199998\n199999\n");
        let behind = printed.piece(Some(u64::MAX), 5);
        assert_eq!((behind.from, behind.bytes.len()), (all, 0));
    }
}
