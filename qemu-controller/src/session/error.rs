//! Why a session did not start, was not stopped, or cannot be left behind.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::{Exit, ExitKind, SpawnError};

use crate::error::{CommandError, SessionEnd};
use crate::escape;
use crate::snapshot::MachineMismatch;
use crate::snapshot::fingerprint::joined;

/// Why a session did not come about. A QEMU that was started for it has been ended; one that was to
/// be attached to was left as it was, unless it took a command that this session had sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The machine's description cannot work, or QEMU could not be run: nothing was started.
    #[error(transparent)]
    Launch(#[from] SpawnError),
    /// The configuration contradicts itself in what concerns the session; the text says how.
    /// Nothing is left of what was started.
    #[error("{0}")]
    Config(String),
    /// A log, of the QMP traffic or of a port, cannot be written; nothing was started.
    #[error("cannot write {log}: {error}")]
    Log {
        /// Which.
        log: String,
        /// Why not.
        error: io::Error,
    },
    /// QEMU ended before its session was ready; its own words say why.
    #[error(
        "QEMU ended {phase}: {}{}\ncommand line: {command_line}",
        escape::each_line(exit),
        unexplained(.exit)
    )]
    Exited {
        /// What the session was waiting for.
        phase: StartPhase,
        /// How QEMU ended, with the tail of its stderr.
        exit: Exit,
        /// The command line, as a shell takes it.
        command_line: String,
    },
    /// The monitor could not be connected to.
    #[error("cannot connect to {monitor}: {error}")]
    Connect {
        /// Which monitor, and where it is.
        monitor: String,
        /// Why not.
        error: io::Error,
    },
    /// QEMU runs, but was not ready in time. One that was started for the session has been killed.
    #[error("{qemu} was not ready within {deadline:?}: it hung {phase}{details}")]
    Deadline {
        /// Which QEMU or monitor.
        qemu: String,
        /// What the session was waiting for.
        phase: StartPhase,
        /// The deadline that was set:
        /// [`QemuConfig::start_deadline`](crate::QemuConfig::start_deadline),
        /// [`AttachConfig::deadline`](crate::AttachConfig::deadline).
        deadline: Duration,
        /// What else is known, for people: the tail of QEMU's stderr, its command line.
        details: Box<str>,
    },
    /// The session ended before it was ready, by something other than QEMU's exit.
    #[error("{qemu} failed {phase}: {end}{details}")]
    Ended {
        /// Which QEMU or monitor.
        qemu: String,
        /// What the session was waiting for.
        phase: StartPhase,
        /// How the session ended.
        end: SessionEnd,
        /// What else is known, for people: QEMU's command line.
        details: Box<str>,
    },
    /// QEMU answered one of the first commands with an error.
    #[error("QEMU refused to begin the session {phase}: {error}")]
    Refused {
        /// What the session was waiting for.
        phase: StartPhase,
        /// What it said, or why it could not be asked.
        error: CommandError,
    },
    /// The state to continue from was saved of another machine; nothing was loaded.
    #[error("the saved state is of another machine: {}", joined(.mismatches))]
    OtherMachine {
        /// In what they differ.
        mismatches: Vec<MachineMismatch>,
    },
}

/// What QEMU said, where how it ended does not say it already.
fn unexplained(exit: &Exit) -> String {
    match exit.kind() {
        ExitKind::OptionError { .. }
        | ExitKind::Lockup(_)
        | ExitKind::Aborted { line: Some(_) } => String::new(),
        _ => its_stderr(&exit.stderr().to_string_lossy()),
    }
}

pub(super) fn its_stderr(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("; its stderr: {}", escape::each_line(&stderr))
    }
}

/// How far a start had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartPhase {
    /// The description is checked and the process started.
    #[default]
    Launching,
    /// QEMU does the listening, and nobody answers at its address yet.
    Connecting,
    /// Connected; QEMU's greeting has not come.
    Greeting,
    /// Greeted; the answer to `qmp_capabilities` has not come.
    Negotiation,
    /// Negotiated; the answer to `query-status` has not come.
    FirstStatus,
    /// Ready but for the address of the GDB stub.
    GdbAddress,
    /// Ready to take a saved state in; it is not there yet.
    State,
    /// Ready; the answer to `cont` has not come.
    FirstRun,
}

impl std::fmt::Display for StartPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Launching => "before it was started",
            Self::Connecting => "before its monitor took a connection",
            Self::Greeting => "before its QMP greeting",
            Self::Negotiation => "before it answered qmp_capabilities",
            Self::FirstStatus => "before it answered query-status",
            Self::GdbAddress => "before its GDB stub listened",
            Self::State => "before it had taken in the saved state",
            Self::FirstRun => "before it let the guest run",
        })
    }
}

/// A QEMU that ends with its session cannot be left behind; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this QEMU ends with its session; only an attached one, or one configured to keep running, can be left behind"
)]
pub struct DetachError;

/// Why a session was not ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// Not even SIGKILL ended QEMU in time: it hangs in the kernel.
    #[error(transparent)]
    StillRunning(#[from] qemu_launch::StillRunning),
    /// An attached QEMU, whose process is not ours, did not heed `quit`, or the connection to it
    /// was lost before.
    #[error("QEMU did not heed quit, and its process is not this session's to end: {0}")]
    Unheeded(Arc<CommandError>),
}
