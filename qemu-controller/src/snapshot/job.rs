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

/// Starts the job `id` by its command, waits until it is over, and dismisses it. Its failure is QEMU's own text.
pub(crate) async fn run<C: Command>(
    operation: &Operation,
    id: &str,
    command: &C,
) -> Result<(), SnapshotError> {
    let mut events = operation.events();
    operation.command(command).await?;
    concluded(operation, id, &mut events).await?;
    // In one go: QEMU answers in order, so the job is looked at before it is forgotten.
    let (jobs, dismiss) = (QueryJobs, JobDismiss { id });
    let (jobs, dismissed) = tokio::join!(biased; operation.command(&jobs), operation.command(&dismiss));
    let failed = jobs?.into_iter().find(|job| job.id == id).and_then(|job| job.error);
    dismissed?;
    match failed {
        Some(error) => Err(SnapshotError::Job { command: C::NAME, error }),
        None => Ok(()),
    }
}

/// Waits for the event that says so. Where none came for a while, or some were missed, it looks.
async fn concluded(operation: &Operation, id: &str, events: &mut Events) -> Result<(), CommandError> {
    let until = instant_after(SEEN_THROUGH);
    while Instant::now() < until {
        match timeout(LOOK_AFTER, concluded_event(id, events)).await {
            Ok(true) => return Ok(()),
            // Missed, late, or the session has ended: then this says how.
            Ok(false) | Err(_) => {
                let jobs = operation.command(&QueryJobs).await?;
                if jobs.iter().all(|job| job.id != id || job.status == JobStatus::Concluded) {
                    return Ok(());
                }
            }
        }
    }
    let (command, deadline) = ("a job".to_owned(), SEEN_THROUGH);
    Err(CommandError::Deadline { command, deadline, phase: WaitPhase::Effect })
}

/// False where events were missed, or the last one has come.
async fn concluded_event(id: &str, events: &mut Events) -> bool {
    while let Some(Ok(event)) = events.next().await {
        if event.name == "JOB_STATUS_CHANGE"
            && let Ok(TypedEvent::JobStatusChange(change)) = event.typed()
            && change.id == id
            && change.status == JobStatus::Concluded
        {
            return true;
        }
    }
    false
}
