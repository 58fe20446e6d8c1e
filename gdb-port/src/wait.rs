//! Waiting for a listener with looks alone: growing pauses, ended at once when the process it
//! belongs to is gone.

use std::time::{Duration, Instant};

use crate::address::StubAddress;
use crate::error::WaitError;
use crate::listen::{ListenState, Listener, inspect, inspect_listener};

/// Pauses between looks grow from 1 ms, twofold, to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// A wait that goes on.
pub(crate) struct Wait<'a> {
    endpoint: &'a StubAddress,
    owner: Option<u32>,
    started: Instant,
    deadline: Duration,
    pauses: Pauses,
}

impl<'a> Wait<'a> {
    pub(crate) fn new(
        endpoint: &'a StubAddress,
        owner: Option<u32>,
        deadline: Duration,
        now: Instant,
    ) -> Self {
        Self {
            endpoint,
            owner,
            started: now,
            deadline,
            pauses: Pauses::new(LONGEST_PAUSE),
        }
    }

    /// The listener, if it is there.
    ///
    /// # Errors
    /// When it cannot be seen from here, or the deadline has passed.
    pub(crate) fn look(&self, now: Instant) -> Result<Option<Listener>, WaitError> {
        // The clients are looked for once, at the end: that costs ten times as much.
        let mut state = inspect_listener(self.endpoint, self.owner);
        if let ListenState::Present(_) = state {
            state = inspect(self.endpoint, self.owner);
        }
        let waited = now.saturating_duration_since(self.started);
        match state {
            ListenState::Present(listener) => Ok(Some(listener)),
            ListenState::Unknown(reason) => Err(WaitError::CannotSee {
                endpoint: self.endpoint.to_string(),
                reason,
            }),
            _ if waited >= self.deadline => Err(WaitError::Deadline {
                endpoint: self.endpoint.to_string(),
                waited,
                last: state.to_string(),
            }),
            ListenState::Absent | ListenState::OtherProcess { .. } => Ok(None),
        }
    }

    /// How long to pause before the next look.
    pub(crate) fn next_pause(&mut self, now: Instant) -> Duration {
        let waited = now.saturating_duration_since(self.started);
        let left = self.deadline.saturating_sub(waited);
        self.pauses.next_pause().min(left)
    }

    pub(crate) fn process_gone(&self) -> WaitError {
        WaitError::ProcessGone {
            endpoint: self.endpoint.to_string(),
        }
    }
}

/// Waits until somebody listens on `endpoint`; with `owner`, until that process does. Nothing is
/// connected.
///
/// `gone` ends the wait at once when it completes: pass the future that waits for the process's
/// exit, or [`std::future::pending`] if there is none. Returns what is attached already; use
/// [`inspect`] to see it again.
///
/// # Errors
/// [`WaitError::ProcessGone`] as soon as `gone` completes, [`WaitError::Deadline`] after
/// `deadline`, and [`WaitError::CannotSee`] at once where looks see nothing. The guest is untouched
/// in every case, also when the future is dropped.
#[cfg(feature = "tokio")]
pub async fn wait_until_listening<F: Future>(
    endpoint: &StubAddress,
    owner: Option<u32>,
    deadline: Duration,
    gone: F,
) -> Result<Listener, WaitError> {
    use tokio::time::{Instant, timeout};

    let mut gone = std::pin::pin!(gone);
    let mut wait = Wait::new(endpoint, owner, deadline, Instant::now().into_std());
    loop {
        if let Some(listener) = wait.look(Instant::now().into_std())? {
            return Ok(listener);
        }
        let pause = wait.next_pause(Instant::now().into_std());
        if timeout(pause, gone.as_mut()).await.is_ok() {
            return Err(wait.process_gone());
        }
    }
}

/// Pauses that double from one millisecond up to a longest.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn new(longest: Duration) -> Self {
        Self {
            next: Duration::from_millis(1),
            longest,
        }
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}
