//! A bounded buffer that keeps the last bytes of a stream, counts the rest, and can be followed
//! while it grows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};

/// The last bytes of a stream, written by one thread and read by any number.
#[derive(Debug)]
pub(crate) struct Ring {
    state: Mutex<State>,
    changed: Event,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<u8>,
    /// Bytes of the stream so far, kept or not.
    total: u64,
    closed: bool,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Event::new(),
            capacity,
        }
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let excess = (state.kept.len() + bytes.len()).saturating_sub(self.capacity);
        state.kept.drain(..excess);
        state.kept.extend(bytes);
        drop(state);
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn changed(&self) -> EventListener {
        self.changed.listen()
    }

    /// What is kept, and how many bytes before it were dropped.
    pub(crate) fn tail(&self) -> (Vec<u8>, u64) {
        let state = self.lock();
        (
            state.kept.iter().copied().collect(),
            state.total - state.kept.len() as u64,
        )
    }

    /// What the stream holds from `position` on; see [`Chunk`].
    pub(crate) fn read_from(&self, position: u64) -> Chunk {
        let state = self.lock();
        let oldest = state.total - state.kept.len() as u64;
        let dropped = oldest.saturating_sub(position);
        let skip = usize::try_from(position.saturating_sub(oldest)).unwrap_or(usize::MAX);
        Chunk {
            dropped,
            bytes: state.kept.iter().skip(skip).copied().collect(),
            next: state.total.max(position),
            closed: state.closed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock can panic in the middle of a change, so a poisoned lock guards a
        // consistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Bytes between the position asked for and the first of `bytes`, which are gone.
    pub(crate) dropped: u64,
    pub(crate) bytes: Vec<u8>,
    /// The position to ask for next.
    pub(crate) next: u64,
    /// The stream has ended, and `bytes` are its last.
    pub(crate) closed: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Ring;

    proptest! {
        /// However it is written and whenever it is read: the reader gets the stream, less the
        /// bytes that are counted as dropped.
        #[test]
        fn a_reader_loses_only_what_is_counted(
            capacity in 1_usize..20,
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..30), any::<bool>()), 0..20),
        ) {
            let ring = Ring::new(capacity);
            let (mut stream, mut position) = (Vec::new(), 0);
            for (piece, read_now) in pieces {
                ring.push(&piece);
                stream.extend(piece);
                if read_now {
                    let chunk = ring.read_from(position);
                    let start = usize::try_from(position + chunk.dropped).unwrap();
                    prop_assert_eq!(&stream[start..], chunk.bytes);
                    prop_assert_eq!(chunk.next, stream.len() as u64);
                    position = chunk.next;
                }
                let (kept, dropped) = ring.tail();
                prop_assert_eq!(&stream[usize::try_from(dropped).unwrap()..], &kept);
                prop_assert_eq!(kept.len(), stream.len().min(capacity));
            }
        }
    }
}
