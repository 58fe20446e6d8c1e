//! A value that is set once, and that any number of tasks and threads wait for, on any runtime.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::{Event, Listener};

#[derive(Debug)]
pub(crate) struct SetOnce<T> {
    value: Mutex<Option<T>>,
    set: Event,
}

impl<T> SetOnce<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: Mutex::new(None),
            set: Event::new(),
        }
    }

    /// Sets the value and wakes all who wait.
    pub(crate) fn set(&self, value: T) {
        *self.lock() = Some(value);
        self.set.notify(usize::MAX);
    }

    /// Waits for the value and takes it. Only one may wait in this way.
    pub(crate) async fn take(&self) -> T {
        self.wait_for(Option::take).await
    }

    async fn wait_for<R>(&self, look: impl Fn(&mut Option<T>) -> Option<R>) -> R {
        loop {
            // Listening first: a value that is set after the check wakes this task.
            let set = self.set.listen();
            let found = look(&mut self.lock());
            if let Some(found) = found {
                return found;
            }
            set.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> SetOnce<T> {
    pub(crate) fn try_get(&self) -> Option<T> {
        self.lock().clone()
    }

    pub(crate) async fn wait(&self) -> T {
        self.wait_for(|value| value.clone()).await
    }

    /// Blocks, at most until the deadline; `None` when that has passed.
    pub(crate) fn wait_blocking(&self, deadline: Option<Instant>) -> Option<T> {
        loop {
            let set = self.set.listen();
            if let Some(value) = self.try_get() {
                return Some(value);
            }
            match deadline {
                Some(deadline) => set.wait_deadline(deadline)?,
                None => set.wait(),
            }
        }
    }
}
