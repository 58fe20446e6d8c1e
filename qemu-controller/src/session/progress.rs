//! How far a start has come, and the error that says so when it fails.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::ProcessHandle;
use tokio::time::Instant;

use crate::client::Shared;
use crate::client::command::A_YEAR;
use crate::error::{CommandError, SessionEnd, WaitPhase};
use crate::fork::LoadError;
use crate::session::error::{StartError, StartPhase, its_stderr};

/// How far a start has come, and of what. Dropped before its end, it leaves no process, not even
/// one that is to keep running.
pub(super) struct Progress {
    pub(super) phase: StartPhase,
    /// The QEMU or the monitor, as errors call it.
    qemu: String,
    pub(super) process: Option<ProcessHandle>,
    since: Instant,
    /// There from the connection on.
    pub(super) shared: Option<Arc<Shared>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.process.iter().for_each(ProcessHandle::kill);
    }
}

impl Progress {
    /// Of a QEMU that is to be started.
    pub(super) fn launching() -> Self {
        Self {
            phase: StartPhase::Launching,
            qemu: "QEMU".to_owned(),
            process: None,
            since: Instant::now(),
            shared: None,
        }
    }

    /// Of a monitor that is to be attached to.
    pub(super) fn connecting(monitor: String) -> Self {
        Self {
            phase: StartPhase::Connecting,
            qemu: monitor,
            process: None,
            since: Instant::now(),
            shared: None,
        }
    }

    fn command_line(&self) -> String {
        let process = self.process.as_ref();
        process.map_or_else(String::new, |process| process.argv().to_string())
    }

    /// What people want to know too.
    fn details(&self) -> String {
        match &self.process {
            Some(process) => format!("\ncommand line: {}", process.argv()),
            None => String::new(),
        }
    }

    /// The session ended before it was ready.
    pub(super) fn ended(&self, end: SessionEnd) -> StartError {
        let phase = self.phase;
        match end {
            SessionEnd::Exited(exit) => StartError::Exited {
                phase,
                exit,
                command_line: self.command_line(),
            },
            end => StartError::Ended {
                qemu: match &self.process {
                    Some(_) => "the monitor".to_owned(),
                    None => self.qemu.clone(),
                },
                phase,
                end,
                details: self.details().into(),
            },
        }
    }

    /// One of the first commands failed. Its deadline is that of the start.
    pub(super) fn command(&self, error: CommandError) -> StartError {
        match error {
            CommandError::Ended { ended, .. } => self.ended(ended),
            CommandError::Deadline { deadline, .. } => self.deadline(deadline),
            error => StartError::Refused {
                phase: self.phase,
                error,
            },
        }
    }

    /// The state that it begins with could not be loaded.
    pub(super) fn state(&self, error: LoadError) -> StartError {
        match error {
            LoadError::OtherMachine(mismatches) => StartError::OtherMachine { mismatches },
            LoadError::Command(error) => self.command(error),
            LoadError::Io(error) => self.connect(error),
        }
    }

    /// The stream to the monitor could not be had.
    pub(super) fn connect(&self, error: io::Error) -> StartError {
        StartError::Connect {
            monitor: match &self.process {
                Some(_) => "QEMU's monitor".to_owned(),
                None => self.qemu.clone(),
            },
            error,
        }
    }

    /// The deadline of the start has passed. A program that was held up past it may not have seen
    /// an end of QEMU's that was not its own doing.
    pub(super) fn deadline(&self, deadline: Duration) -> StartError {
        let own = self.process.as_ref();
        let own = own.filter(|process| !process.was_signalled());
        if let Some(exit) = own.and_then(ProcessHandle::try_wait) {
            return self.ended(SessionEnd::Exited(exit));
        }
        if self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.is_closed())
        {
            return self.ended(SessionEnd::Closed);
        }
        let missed = self.since + deadline.min(A_YEAR);
        let held_up = match WaitPhase::Sent.at_deadline(missed) {
            WaitPhase::HeldUp => "; this program itself was held up, which says nothing of QEMU",
            _ => "",
        };
        let said = self.process.as_ref().map(ProcessHandle::stderr_tail);
        let said = said.map_or_else(String::new, |tail| its_stderr(&tail.to_string_lossy()));
        // A monitor serves one client; a second one gets no greeting until the first has left.
        let held = match (&self.process, self.phase) {
            (None, StartPhase::Greeting) => {
                "; another client may hold it, a monitor serves one at a time"
            }
            _ => "",
        };
        StartError::Deadline {
            qemu: self.qemu.clone(),
            phase: self.phase,
            deadline,
            details: format!("{held}{held_up}{said}{}", self.details()).into(),
        }
    }
}
