//! Jobs: `query-jobs`, `job-dismiss`. Snapshots and `blockdev-create` are jobs.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use crate::command::Empty;

command! {
    /// `query-jobs`: all jobs. A concluded one stays, with its error, until `job-dismiss`.
    QueryJobs = "query-jobs" -> Vec<JobInfo>;
}

command_with_arguments! {
    /// `job-dismiss`: forgets a concluded job.
    JobDismiss = "job-dismiss" -> Empty {
        /// The job.
        id: &'a str,
    }
}

object! {
    /// One job, as `query-jobs` tells of it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub struct JobInfo {
        /// Its name.
        pub id: String,
        /// What it does, for example `snapshot-save`.
        #[serde(rename = "type")]
        pub kind: String,
        /// How far it is.
        pub status: JobStatus,
        /// Work done, in a unit of its own; not to be shown alone.
        #[serde(default)]
        pub current_progress: i64,
        /// Work in all; may grow.
        #[serde(default)]
        pub total_progress: i64,
        /// Why it failed; its events do not say. `None` while it runs and after success.
        #[serde(default)]
        pub error: Option<String>,
    }
}

named! {
    /// How far a job is (`JobStatus`).
    pub enum JobStatus {
        /// Being made; never seen.
        Undefined = "undefined",
        /// Made, not yet begun.
        Created = "created",
        /// At work.
        Running = "running",
        /// Paused.
        Paused = "paused",
        /// Ready to be completed.
        Ready = "ready",
        /// Ready, and paused.
        Standby = "standby",
        /// Waiting for the other jobs of its transaction.
        Waiting = "waiting",
        /// Waiting for `job-finalize`, unless it finalizes itself.
        Pending = "pending",
        /// Being cancelled or failing.
        Aborting = "aborting",
        /// Over, with or without an error; to be dismissed.
        Concluded = "concluded",
        /// Dismissed.
        Null = "null",
    }
}
