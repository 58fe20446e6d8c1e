//! Waiting for a listener with looks alone: growing pauses, ended at once when the process it
//! belongs to is gone.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::WaitError;
use crate::listen::{Listener, Look, look, look_for_listener};
use crate::stub_address::StubAddress;

/// Pauses between looks grow from 1 ms, twofold, to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Waits until somebody listens on `endpoint`; with `owner`, until that process does. Nothing is
/// connected.
///
/// `gone` ends the wait at once when it completes: pass the future that waits for the process's
/// exit, or
/// [`std::future::pending`] if there is none. Returns what is attached already; use [`look`] to see it again.
///
/// # Errors
/// [`WaitError::ProcessGone`] as soon as `gone` completes, [`WaitError::Deadline`] after `deadline`, and
/// [`WaitError::CannotSee`] at once where looks see nothing. The guest is untouched in every case, also when the future
/// is dropped.
pub async fn wait_until_listening<F: Future>(
    endpoint: &StubAddress,
    owner: Option<u32>,
    deadline: Duration,
    gone: F,
) -> Result<Listener, WaitError> {
    let mut gone = pin!(gone);
    let started = Instant::now();
    let mut pauses = Pauses::new(LONGEST_PAUSE);
    loop {
        // The clients are looked for once, at the end: that costs ten times as much.
        let mut seen = look_for_listener(endpoint, owner);
        if let Look::Present(_) = seen {
            seen = look(endpoint, owner);
        }
        match seen {
            Look::Present(listener) => return Ok(listener),
            Look::Unknown(reason) => {
                return Err(WaitError::CannotSee {
                    endpoint: endpoint.to_string(),
                    reason,
                });
            }
            Look::Absent | Look::OtherProcess { .. } => {}
        }
        let waited = started.elapsed();
        if waited >= deadline {
            return Err(WaitError::Deadline {
                endpoint: endpoint.to_string(),
                waited,
                last: seen.to_string(),
            });
        }
        let mut pause = pin!(sleep(pauses.next_pause().min(deadline - waited)));
        let is_gone = poll_fn(|context| {
            if gone.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            pause.as_mut().poll(context).map(|()| false)
        });
        if is_gone.await {
            return Err(WaitError::ProcessGone {
                endpoint: endpoint.to_string(),
            });
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
