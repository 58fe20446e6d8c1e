//! One of QEMU's jobs, from its command to its dismissal.

use qmp_proto::Command;
use qmp_proto::commands::{JobDismiss, JobStatus, QueryJobs, TypedEvent};

use super::error::SnapshotError;
use crate::error::CommandError;
use crate::events::Events;
use crate::operation::Operation;

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

/// Waits for the event that says so; where events were missed, it looks.
async fn concluded(operation: &Operation, id: &str, events: &mut Events) -> Result<(), CommandError> {
    loop {
        match events.next().await {
            Some(Ok(event)) if event.name == "JOB_STATUS_CHANGE" => {
                if let Ok(TypedEvent::JobStatusChange(change)) = event.typed()
                    && change.id == id
                    && change.status == JobStatus::Concluded
                {
                    return Ok(());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                let jobs = operation.command(&QueryJobs).await?;
                if jobs.iter().any(|job| job.id == id && job.status == JobStatus::Concluded) {
                    return Ok(());
                }
            }
            // The session has ended, and the next command says how.
            None => return operation.command(&QueryJobs).await.map(drop),
        }
    }
}
