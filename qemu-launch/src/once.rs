//! A value that is set once and waited for by any number of tasks and threads, whatever their runtime.

use std::sync::OnceLock;
use std::time::Instant;

use event_listener::{Event, Listener};

#[derive(Debug)]
pub(crate) struct Once<T> {
    value: OnceLock<T>,
    set: Event,
}

impl<T: Clone> Once<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: OnceLock::new(),
            set: Event::new(),
        }
    }

    /// Sets the value, unless it was set before.
    pub(crate) fn set(&self, value: T) {
        // A second value is dropped: the first one has been seen already.
        let _ = self.value.set(value);
        self.set.notify(usize::MAX);
    }

    pub(crate) fn try_get(&self) -> Option<T> {
        self.value.get().cloned()
    }

    pub(crate) async fn wait(&self) -> T {
        loop {
            let set = self.set.listen();
            if let Some(value) = self.try_get() {
                return value;
            }
            set.await;
        }
    }

    /// `None` when the deadline is over.
    pub(crate) fn wait_deadline(&self, deadline: Instant) -> Option<T> {
        loop {
            let set = self.set.listen();
            if let Some(value) = self.try_get() {
                return Some(value);
            }
            set.wait_deadline(deadline)?;
        }
    }

    pub(crate) fn wait_blocking(&self) -> T {
        loop {
            let set = self.set.listen();
            if let Some(value) = self.try_get() {
                return value;
            }
            set.wait();
        }
    }
}
