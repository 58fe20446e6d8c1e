//! Every error this crate returns: who is at fault, where, and what to do.

use std::time::Duration;

/// An endpoint's text that could not be read; its `Display` says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseAddressError(pub(crate) String);

/// Why waiting for a listener ended without one. The guest was not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed; `last` is what the last look saw.
    #[error("no GDB stub listens on {endpoint} after {waited:?}: the last look saw {last}")]
    Deadline {
        /// Where a listener was awaited.
        endpoint: String,
        /// How long the wait took.
        waited: Duration,
        /// What the last look saw, in words.
        last: String,
    },
    /// The process that was to listen is gone.
    #[error("the process that was to listen on {endpoint} is gone: see its exit status and stderr")]
    ProcessGone {
        /// Where a listener was awaited.
        endpoint: String,
    },
    /// The kernel's tables do not show this endpoint; waiting longer would not help.
    #[error(
        "whether anybody listens on {endpoint} cannot be seen from here: {reason}; ask the monitor (query-chardev)"
    )]
    CannotSee {
        /// Where a listener was awaited.
        endpoint: String,
        /// Why it cannot be seen.
        reason: crate::UnknownReason,
    },
}

/// The system refused the connection for a reason that says nothing about the stub.
#[derive(Debug, thiserror::Error)]
#[error("could not connect to {endpoint}")]
#[non_exhaustive]
pub struct ConnectError {
    /// What was connected to.
    pub endpoint: String,
    /// The system's error.
    #[source]
    pub source: std::io::Error,
}
