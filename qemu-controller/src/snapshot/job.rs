//! One of QEMU's jobs, from its command to its dismissal.

use std::time::Duration;

use qmp_proto::Command;
use qmp_proto::commands::{JobDismiss, JobStatus, QueryJobs, TypedEvent};
use tokio::time::{Instant, timeout};

use super::error::SnapshotError;
use crate::call::instant_after;
use crate::error::{CommandError, WaitPhase};
use crate::events::Events;
use crate::operation::{Operation, SEEN_THROUGH};

/// The event tells at once; this is for one that was missed.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// A job that is over and not dismissed yet.
#[must_use = "it stays in QEMU until it is dismissed"]
pub(crate) struct Concluded<'a> {
    id: &'a str,
    command: &'static str,
    /// Its events have shown that it succeeded.
    succeeded: bool,
}

/// Starts the job `id` by its command, waits until it is over, and dismisses it. Its failure is QEMU's own text.
pub(crate) async fn run<C: Command>(
    operation: &Operation,
    id: &str,
    command: &C,
) -> Result<(), SnapshotError> {
    until_concluded(operation, id, command).await?.end(operation).await
}

/// The same up to its conclusion: how it ended, its [end](Concluded::end) tells.
pub(crate) async fn until_concluded<'a, C: Command>(
    operation: &Operation,
    id: &'a str,
    command: &C,
) -> Result<Concluded<'a>, CommandError> {
    let mut events = operation.events();
    operation.command(command).await?;
    let succeeded = concluded(operation, id, &mut events).await?;
    Ok(Concluded { id, command: C::NAME, succeeded })
}

impl Concluded<'_> {
    /// Dismisses it, and asks before why it failed, unless it is known that it did not.
    pub(crate) async fn end(self, operation: &Operation) -> Result<(), SnapshotError> {
        let Self { id, command, succeeded } = self;
        if succeeded {
            operation.command(&JobDismiss { id }).await?;
            return Ok(());
        }
        // In one go: QEMU answers in order, so the job is looked at before it is forgotten.
        let (jobs, dismiss) = (QueryJobs, JobDismiss { id });
        let (jobs, dismissed) = tokio::join!(biased; operation.command(&jobs), operation.command(&dismiss));
        let failed = jobs?.into_iter().find(|job| job.id == id).and_then(|job| job.error);
        dismissed?;
        match failed {
            Some(error) => Err(SnapshotError::Job { command, error }),
            None => Ok(()),
        }
    }
}

/// Waits for the event that says so, and tells whether all that came before it said that the job succeeded. Where none
/// came for a while, or some were missed, it looks.
async fn concluded(operation: &Operation, id: &str, events: &mut Events) -> Result<bool, CommandError> {
    let until = instant_after(SEEN_THROUGH);
    while Instant::now() < until {
        match timeout(LOOK_AFTER, concluded_event(id, events)).await {
            Ok(Some(succeeded)) => return Ok(succeeded),
            // Missed, late, or the session has ended: then this says how.
            Ok(None) | Err(_) => {
                let jobs = operation.command(&QueryJobs).await?;
                if jobs.iter().all(|job| job.id != id || job.status == JobStatus::Concluded) {
                    return Ok(false);
                }
            }
        }
    }
    let (command, deadline) = ("a job".to_owned(), SEEN_THROUGH);
    Err(CommandError::Deadline { command, deadline, phase: WaitPhase::Effect })
}

/// A job that succeeds is `pending` before it is concluded, one that fails is `aborting`. `None` where events were
/// missed, or the last one has come.
async fn concluded_event(id: &str, events: &mut Events) -> Option<bool> {
    let mut succeeds = false;
    while let Some(Ok(event)) = events.next().await {
        if event.name == "JOB_STATUS_CHANGE"
            && let Ok(TypedEvent::JobStatusChange(change)) = event.typed()
            && change.id == id
        {
            match change.status {
                JobStatus::Concluded => return Some(succeeds),
                status => succeeds = status == JobStatus::Pending,
            }
        }
    }
    None
}
