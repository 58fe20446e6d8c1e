//! Why a command has no result, and how a session ended: the errors that all its modules share.
//!
//! An error's text has its first cause in it and is whole without `source()`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::Exit;
use qmp_proto::{DecodeError, ParseError, SendError, ServerError};

use crate::escape;
use tokio::time::Instant;

/// Why a command has no result. The session goes on after all of these but [`Ended`](Self::Ended).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// QEMU said no.
    #[error("QEMU refused {command}: {error}")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's error: its class and text.
        error: ServerError,
    },
    /// No answer came in time. The command may still take effect; its late answer will be dropped.
    #[error("no answer to {command} within {deadline:?}: {phase}")]
    Deadline {
        /// The command's name.
        command: String,
        /// The deadline that was set.
        deadline: Duration,
        /// Where it waited.
        phase: WaitPhase,
    },
    /// The event that was waited for did not come in time.
    #[error("no event {event} within {deadline:?}{}", lagged(*.missed))]
    NoEvent {
        /// What was waited for.
        event: String,
        /// The deadline that was set.
        deadline: Duration,
        /// How many events this waiter missed because they came too fast; the wanted one may be
        /// among them.
        missed: u64,
    },
    /// The session has ended; everybody who waits gets this same answer.
    #[error("the session ended before {command} was done: {ended}")]
    Ended {
        /// The command's name, or the event that was waited for.
        command: String,
        /// How it ended.
        ended: SessionEnd,
    },
    /// The command cannot be sent as it is; nothing was sent.
    #[error("{command} cannot be sent: {}", with_causes(.error))]
    Invalid {
        /// The command's name.
        command: String,
        /// What is wrong with it.
        error: SendError,
    },
    /// QEMU's return is not of the type that was asked for.
    #[error("the return of {command} is not what was asked for: {}", with_causes(.error))]
    Return {
        /// The command's name.
        command: String,
        /// How it differs.
        error: ParseError,
    },
    /// A command through the human monitor, which reports failure as text inside a success.
    #[error("the human monitor refused `{line}`: {}", escape::each_line(.text))]
    HumanMonitor {
        /// The command line that was given.
        line: String,
        /// What the monitor said.
        text: String,
    },
}

/// A deadline that is noticed so much too late was missed by this program, not by QEMU.
const HELD_UP: Duration = Duration::from_secs(1);

impl WaitPhase {
    /// This phase, or that the program was held up past a deadline at that instant.
    pub(crate) fn at_deadline(self, deadline: Instant) -> Self {
        if Instant::now().saturating_duration_since(deadline) > HELD_UP {
            Self::HeldUp
        } else {
            self
        }
    }
}

impl CommandError {
    /// How the session ended, where that is the reason.
    pub fn ended(&self) -> Option<&SessionEnd> {
        match self {
            Self::Ended { ended, .. } => Some(ended),
            _ => None,
        }
    }
}

/// An error of another crate with all that caused it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn lagged(missed: u64) -> String {
    if missed == 0 {
        String::new()
    } else {
        format!("; {missed} came too fast to be seen")
    }
}

/// How far a command had come when its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPhase {
    /// Not sent yet: QEMU had not answered the commands before it, or another transaction of the
    /// session, a save for example, was not done.
    Queued,
    /// Sent, and not answered.
    Sent,
    /// Answered, but the event that shows its effect did not come.
    Effect,
    /// QEMU has closed its monitor, or the connection was lost, and how QEMU ended is not known
    /// yet.
    MonitorClosed,
    /// This program itself was held up past the deadline, by a debugger or a busy machine; that
    /// says nothing of QEMU.
    HeldUp,
}

impl std::fmt::Display for WaitPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queued => "it was never sent, since what was begun before it was not done",
            Self::Sent => "it was sent, QEMU did not answer",
            Self::Effect => "QEMU accepted it, but its effect did not show",
            Self::MonitorClosed => "the monitor was closed, and QEMU's process has not exited",
            Self::HeldUp => "this program itself was held up, which says nothing of QEMU",
        })
    }
}

/// How a session ended: the same answer for everybody who waits.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// QEMU ended, by itself or by us.
    #[error("{}", escape::each_line(.0))]
    Exited(Exit),
    /// The connection to the monitor was closed, by QEMU's end or otherwise, and no process is ours
    /// to ask: the session was attached, or QEMU lives on without a monitor.
    #[error("the connection to QEMU's monitor was closed")]
    Closed,
    /// The stream to the monitor failed.
    #[error("the connection to the monitor failed: {0}")]
    Io(Arc<io::Error>),
    /// What came from the monitor was not QMP.
    #[error("the monitor broke the QMP protocol: {}", with_causes(.0))]
    Protocol(DecodeError),
    /// It was [detached](crate::Session::detach), or its last handle was dropped.
    #[error("the session was let go")]
    Released,
    /// The runtime that drove the session is gone. QEMU runs until the last handle is dropped.
    #[error("the async runtime that drove the session was shut down")]
    RuntimeGone,
}
