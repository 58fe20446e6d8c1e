//! What can go wrong with a session, split by what was being done: starting it, a command, and how
//! it ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::{Exit, ExitKind};
use qmp_proto::{DecodeError, ParseError, SendError, ServerError};

use crate::snapshot::{Difference, joined};

/// Why a session did not start. Whatever was started for it has been ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The description cannot work, or QEMU could not be run: nothing was started.
    #[error(transparent)]
    Launch(#[from] qemu_launch::SpawnError),
    /// The configuration has no QMP monitor, and a session is one.
    #[error(
        "the configuration has no QMP monitor, and a session needs one; leave out `without_qmp`"
    )]
    NoMonitor,
    /// The machine is to keep running, but its monitor is a socket pair that ends with this
    /// program: nobody could ever reach it.
    #[error(
        "a QEMU that keeps running needs a QMP endpoint that others can reach, not the inherited socket pair"
    )]
    KeptUnreachable,
    /// QMP on a free TCP port: nobody but QMP itself could tell which.
    #[error(
        "QMP on a free TCP port cannot be found; name a port, or use the inherited socket pair (the default)"
    )]
    UnknownPort,
    /// QEMU ended before its session was ready; its own words say why.
    #[error("QEMU ended {phase}: {exit}{}\ncommand line: {command_line}", unexplained(.exit))]
    Exited {
        /// What the session was waiting for.
        phase: StartPhase,
        /// How QEMU ended, with the tail of its stderr.
        exit: Exit,
        /// The command line, as a shell takes it.
        command_line: String,
    },
    /// QEMU runs, but was not ready in time; it has been killed.
    #[error("QEMU was not ready within {deadline:?}: it hung {phase}{}\ncommand line: {command_line}", said(.stderr))]
    Deadline {
        /// What the session was waiting for.
        phase: StartPhase,
        /// The deadline that was set:
        /// [`QemuConfig::start_deadline`](crate::QemuConfig::start_deadline).
        deadline: Duration,
        /// The tail of QEMU's stderr.
        stderr: String,
        /// The command line, as a shell takes it.
        command_line: String,
    },
    /// The session ended before it was ready, by something other than QEMU's exit.
    #[error("the monitor failed {phase}\ncommand line: {command_line}")]
    Monitor {
        /// What the session was waiting for.
        phase: StartPhase,
        /// The command line, as a shell takes it.
        command_line: String,
        /// How the session ended.
        #[source]
        source: SessionEnd,
    },
    /// QEMU answered one of the first commands with an error.
    #[error("QEMU refused to begin the session {phase}")]
    Refused {
        /// What the session was waiting for.
        phase: StartPhase,
        /// What it said, or why it could not be asked.
        #[source]
        source: CommandError,
    },
    /// The state to continue from was saved of another machine; nothing was loaded.
    #[error("the saved state is of another machine: {}", joined(.differences))]
    Misfit {
        /// In what they differ.
        differences: Vec<Difference>,
    },
    /// The file for the QMP transcript cannot be written; nothing was started.
    #[error("cannot write the QMP transcript")]
    Transcript(#[source] io::Error),
    /// A port's log cannot be written; nothing was started.
    #[error("cannot write the log of a port")]
    PortLog(#[source] io::Error),
    /// A log was asked for of a port that the session does not read, or two of the same one.
    #[error(
        "{port} cannot be logged: it is not one that the session reads, or it has a log already"
    )]
    NoPort {
        /// The port.
        port: String,
    },
    /// The stream to the monitor could not be set up.
    #[error("cannot set up the connection to QEMU's monitor")]
    Connect(#[source] io::Error),
}

/// What QEMU said, where how it ended does not say it already.
fn unexplained(exit: &Exit) -> String {
    match exit.kind() {
        ExitKind::OptionError { .. }
        | ExitKind::Lockup(_)
        | ExitKind::Aborted { line: Some(_) } => String::new(),
        _ => said(&exit.stderr().to_string_lossy()),
    }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("; its stderr: {stderr}")
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

/// Why a session with a QEMU that runs already did not come about. That QEMU was left as it was,
/// unless it took a command that this session had sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nobody takes a connection there.
    #[error("cannot connect to a QMP monitor at {address}")]
    Connect {
        /// Where it was tried.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The monitor took the connection, and was not ready in time.
    #[error("the monitor at {address} was not ready within {deadline:?}: it hung {phase}{}", held(.phase))]
    Deadline {
        /// Where it is.
        address: String,
        /// What the session was waiting for.
        phase: StartPhase,
        /// The deadline that was set.
        deadline: Duration,
    },
    /// The session ended before it was ready.
    #[error("the monitor at {address} failed {phase}")]
    Ended {
        /// Where it is.
        address: String,
        /// What the session was waiting for.
        phase: StartPhase,
        /// How it ended.
        #[source]
        source: SessionEnd,
    },
    /// QEMU answered one of the first commands with an error.
    #[error("QEMU refused to begin the session {phase}")]
    Refused {
        /// What the session was waiting for.
        phase: StartPhase,
        /// What it said, or why it could not be asked.
        #[source]
        source: CommandError,
    },
    /// The file for the QMP transcript cannot be written; nobody was connected to.
    #[error("cannot write the QMP transcript")]
    Transcript(#[source] io::Error),
}

/// A monitor serves one client; a second one hears nothing until the first has left.
fn held(phase: &StartPhase) -> &'static str {
    if *phase == StartPhase::Greeting {
        "; another client may hold it, a monitor serves one at a time"
    } else {
        ""
    }
}

/// This session's QEMU would not survive it; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this QEMU ends with its session; only an attached one, or one configured to keep running, can be left behind"
)]
pub struct NotKept;

/// Why a session was not ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// Not even SIGKILL ended QEMU in time: it hangs in the kernel.
    #[error(transparent)]
    StillRunning(#[from] qemu_launch::StillRunning),
    /// An attached QEMU, whose process is not ours, did not heed `quit`, or the connection to it
    /// was lost before.
    #[error("QEMU did not heed quit, and its process is not this session's to end")]
    Unheeded(#[source] Arc<CommandError>),
}

/// Why a command has no result. The session goes on after all of these but [`SessionEnd`](Self::Ended).
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
    #[error("the session ended before {command} was done")]
    Ended {
        /// The command's name, or the event that was waited for.
        command: String,
        /// How it ended.
        #[source]
        ended: SessionEnd,
    },
    /// The command cannot be sent as it is; nothing was sent.
    #[error("{command} cannot be sent")]
    Invalid {
        /// The command's name.
        command: String,
        /// What is wrong with it.
        #[source]
        source: SendError,
    },
    /// QEMU's return is not of the type that was asked for.
    #[error("the return of {command} is not what was asked for")]
    Return {
        /// The command's name.
        command: String,
        /// How it differs.
        #[source]
        source: ParseError,
    },
    /// A command through the human monitor, which reports failure as text inside a success.
    #[error("the human monitor refused `{line}`: {text}")]
    HumanMonitor {
        /// The command line that was given.
        line: String,
        /// What the monitor said.
        text: String,
    },
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

fn lagged(missed: u64) -> String {
    if missed == 0 {
        String::new()
    } else {
        format!("; {missed} came too fast to be seen")
    }
}

/// Where a command stood when its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPhase {
    /// Not sent yet: QEMU had not answered the commands before it.
    Queued,
    /// Sent, and not answered.
    Sent,
    /// Answered, but the event that shows its effect did not come.
    Effect,
}

impl std::fmt::Display for WaitPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queued => "it was never sent, since QEMU had not answered the commands before it",
            Self::Sent => "it was sent, QEMU did not answer",
            Self::Effect => "QEMU accepted it, but its effect did not show",
        })
    }
}

/// How a session ended: the same answer for everybody who waits.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// QEMU ended, by itself or by us.
    #[error("{0}")]
    Exited(Exit),
    /// The monitor was closed while no process is ours to ask: the session was attached, or QEMU
    /// lives on without a monitor.
    #[error("QEMU closed its monitor")]
    Closed,
    /// The stream to the monitor failed.
    #[error("the connection to the monitor failed")]
    Io(#[source] Arc<io::Error>),
    /// What came from the monitor was not QMP.
    #[error("the monitor broke the QMP protocol")]
    Protocol(#[source] DecodeError),
    /// It was [detached](crate::Session::detach), or its last handle was dropped.
    #[error("the session was let go")]
    Released,
    /// The runtime that drove the session is gone. QEMU runs until the last handle is dropped.
    #[error("the async runtime that drove the session was shut down")]
    RuntimeGone,
}

/// Why nothing can be said of the GDB stub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GdbError {
    /// The machine has no GDB stub that listens.
    #[error(
        "this QEMU has no GDB stub that listens on an address; one that a session starts gets it by `QemuConfig::gdb`"
    )]
    NoStub,
    /// QEMU could not be asked.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The system would not connect.
    #[error(transparent)]
    Connect(#[from] gdb_port::ConnectError),
}
