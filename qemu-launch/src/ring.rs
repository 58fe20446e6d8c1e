//! A bounded buffer that keeps the last bytes of a stream, counts the rest, and can be followed while it grows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::{Event, EventListener, Listener};

/// The last bytes of a stream that somebody else writes to the end.
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

    /// Blocks until the stream has ended, at most until the deadline.
    pub(crate) fn wait_closed(&self, deadline: Instant) {
        loop {
            let changed = self.changed();
            if self.lock().closed || changed.wait_deadline(deadline).is_none() {
                return;
            }
        }
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
        // Nothing in here can panic half-way, so a poisoned lock still guards a whole state.
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
