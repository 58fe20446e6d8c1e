//! Waiting for something that another process or thread does, with a deadline.

use std::time::{Duration, Instant};

/// A bound for what takes milliseconds: reached only where something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pause between two looks. Short enough to cost a test nothing, long enough to leave the
/// processor to what is waited for.
const PAUSE: Duration = Duration::from_millis(1);

/// The deadline for what takes milliseconds.
#[must_use]
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Looks until there is something, and returns it.
///
/// # Panics
/// Nothing was there within [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = soon();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(PAUSE);
    }
}

/// Waits until it is so, and returns how long that took.
///
/// # Panics
/// It was not so within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    until(what, || is_so().then_some(()));
    start.elapsed()
}
