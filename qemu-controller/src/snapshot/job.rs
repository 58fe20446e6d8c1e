//! One of QEMU's jobs, from its command to its dismissal.

use std::time::Duration;

use qmp_proto::Command;
use qmp_proto::commands::{JobDismiss, JobStatus, QueryJobs, TypedEvent};
use tokio::time::{Instant, timeout};

use super::error::SnapshotError;
use crate::client::command::instant_after;
use crate::client::events::Events;
use crate::client::transaction::{Transaction, UNATTENDED_DEADLINE};
use crate::error::{CommandError, WaitPhase};

/// The event comes at once; after this the job is queried, as the event may have been missed.
const QUERY_AFTER: Duration = Duration::from_secs(2);

/// A job that is concluded and not dismissed yet.
#[must_use = "it stays in QEMU until it is dismissed"]
pub(super) struct Concluded<'a> {
    id: &'a str,
    command: &'static str,
    course: Course,
}

/// What a job's events showed. The default, nothing, is for events that were missed.
#[derive(Clone, Copy, Default)]
struct Course {
    succeeded: bool,
    /// QEMU let the guest run while the job lasted.
    resumed: bool,
}

/// Runs the job `id` by its command, to its end, and dismisses it.
pub(super) async fn run<C: Command>(
    transaction: &Transaction,
    id: &str,
    command: &C,
) -> Result<(), SnapshotError> {
    until_concluded(transaction, id, command)
        .await?
        .end(transaction)
        .await
        .map(drop)
}

/// Runs a job until it is concluded. [`Concluded::end`] says how it ended.
pub(super) async fn until_concluded<'a, C: Command>(
    transaction: &Transaction,
    id: &'a str,
    command: &C,
) -> Result<Concluded<'a>, CommandError> {
    let mut events = transaction.events();
    transaction.command(command).await?;
    let course = concluded(transaction, id, &mut events).await?;
    Ok(Concluded {
        id,
        command: C::NAME,
        course,
    })
}

impl Concluded<'_> {
    /// Dismisses the job. Unless its events showed that it succeeded, QEMU is asked why it failed.
    /// Returns whether the guest is known to have been let run while the job lasted.
    pub(super) async fn end(self, transaction: &Transaction) -> Result<bool, SnapshotError> {
        let Self {
            id,
            command,
            course,
        } = self;
        if course.succeeded {
            transaction.command(&JobDismiss::new(id)).await?;
            return Ok(course.resumed);
        }
        // In one go: QEMU answers in order, so the job is queried before it is dismissed.
        let (jobs, dismiss) = (QueryJobs, JobDismiss::new(id));
        let (jobs, dismissed) =
            tokio::join!(biased; transaction.command(&jobs), transaction.command(&dismiss));
        let failed = jobs?
            .into_iter()
            .find(|job| job.id == id)
            .and_then(|job| job.error);
        dismissed?;
        match failed {
            Some(error) => Err(SnapshotError::Job { command, error }),
            None => Ok(course.resumed),
        }
    }
}

/// Waits for the event that says that the job is concluded, and returns what those before it
/// showed. Where none came for a while, or some were missed, the jobs are queried.
async fn concluded(
    transaction: &Transaction,
    id: &str,
    events: &mut Events,
) -> Result<Course, CommandError> {
    let until = instant_after(UNATTENDED_DEADLINE);
    while Instant::now() < until {
        match timeout(QUERY_AFTER, concluded_event(id, events)).await {
            Ok(Some(course)) => return Ok(course),
            // Missed, late, or the session has ended: then the query's error says how.
            Ok(None) | Err(_) => {
                let jobs = transaction.command(&QueryJobs).await?;
                if jobs
                    .iter()
                    .all(|job| job.id != id || job.status == JobStatus::Concluded)
                {
                    return Ok(Course::default());
                }
            }
        }
    }
    let (command, deadline) = ("a job".to_owned(), UNATTENDED_DEADLINE);
    Err(CommandError::Deadline {
        command,
        deadline,
        phase: WaitPhase::Effect,
    })
}

/// A job that succeeds is `pending` before it is concluded; one that fails is `aborting`. `None`
/// where events were missed, or the session has ended.
async fn concluded_event(id: &str, events: &mut Events) -> Option<Course> {
    let mut course = Course::default();
    while let Some(Ok(event)) = events.next().await {
        match &*event.name {
            "RESUME" => course.resumed = true,
            "JOB_STATUS_CHANGE" => match event.typed() {
                Ok(TypedEvent::JobStatusChange(change)) if change.id == id => match change.status {
                    // What came before was not this job's doing.
                    JobStatus::Created => course = Course::default(),
                    JobStatus::Concluded => return Some(course),
                    status => course.succeeded = status == JobStatus::Pending,
                },
                _ => {}
            },
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use qmp_proto::{QmpEvent, RawJson};
    use serde_json::{Value, json};

    use super::*;
    use crate::client::events::{EVENT_BACKLOG_BYTES, Subscribers};

    fn event(name: &str, data: Value) -> QmpEvent {
        QmpEvent::new(name.to_owned(), Some(RawJson::from_value(&data).unwrap()))
    }

    /// What the events of the job `ours` show, where others are between them and these come before
    /// its end.
    async fn course(before: &[(&str, &str)]) -> Option<(bool, bool)> {
        let mut subscribers = Subscribers::default();
        let mut events = subscribers.subscribe();
        for (name, data) in before.iter().chain(&[("ours", "concluded")]) {
            subscribers.queue(match *name {
                "ours" | "other" => {
                    event("JOB_STATUS_CHANGE", json!({ "id": name, "status": data }))
                }
                name => event(name, json!({ "data": data })),
            });
        }
        subscribers.flush();
        let course = concluded_event("ours", &mut events).await;
        course.map(|course| (course.succeeded, course.resumed))
    }

    #[tokio::test]
    async fn a_job_s_events_show_how_it_ended_and_whether_the_guest_was_let_run() {
        let well = [("ours", "created"), ("RESUME", ""), ("ours", "pending")];
        assert_eq!(course(&well).await, Some((true, true)));
        let stood = [
            ("RESUME", ""),
            ("ours", "created"),
            ("STOP", ""),
            ("ours", "pending"),
        ];
        assert_eq!(
            course(&stood).await,
            Some((true, false)),
            "what came before is another's"
        );
        let failed = [
            ("ours", "created"),
            ("ours", "running"),
            ("other", "pending"),
            ("ours", "aborting"),
        ];
        assert_eq!(course(&failed).await, Some((false, false)));
    }

    #[tokio::test]
    async fn events_that_were_missed_show_nothing() {
        let much = "x".repeat(EVENT_BACKLOG_BYTES);
        let missed = [
            ("ours", "created"),
            ("RESUME", ""),
            ("ours", "pending"),
            ("FLOOD", &much),
        ];
        assert_eq!(course(&missed).await, None);
    }
}
