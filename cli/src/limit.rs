//! `--timeout`: how long a run may take, all of it.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use crate::settings::{Settings, Timeout};

/// `--timeout`, counted from the program's start.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// `None` where there is none.
    pub(crate) timeout: Option<Duration>,
    since: Instant,
}

impl Limit {
    pub(crate) fn new(settings: &Settings, since: Instant) -> Self {
        let timeout = match settings.timeout {
            Some(Timeout::After(timeout)) => Some(timeout),
            Some(Timeout::None) | None => None,
        };
        Self { timeout, since }
    }

    /// The same time, counted from now.
    pub(crate) fn renewed(self) -> Self {
        let since = Instant::now();
        Self { since, ..self }
    }

    /// No end at all.
    pub(crate) fn none() -> Self {
        Self {
            timeout: None,
            since: Instant::now(),
        }
    }

    /// When it passes; `None` also where no clock goes so far.
    pub(crate) fn instant(self) -> Option<tokio::time::Instant> {
        let instant = self.since.checked_add(self.timeout?)?;
        Some(instant.into())
    }

    /// Waits for this; `None` when the time has passed.
    pub(crate) async fn wait_for<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self.instant() {
            Some(instant) => timeout_at(instant, future).await.ok(),
            None => Some(future.await),
        }
    }

    /// How much is left.
    pub(crate) fn left(self) -> Duration {
        match self.instant() {
            Some(instant) => instant.saturating_duration_since(tokio::time::Instant::now()),
            None => Duration::MAX,
        }
    }

    /// That it has passed, and what was the matter then.
    pub(crate) fn words(self, what: &str) -> String {
        let timeout = self.timeout.unwrap_or_default();
        format!("the run was not over after {timeout:?}: {what}")
    }
}
