//! The end of a session: ask, then insist, then kill; and say which it took.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::{Exit, Process, StopStep};
use qmp_proto::Command as _;
use qmp_proto::commands::Quit;
use tokio::time::{Instant, timeout};

use crate::error::{CommandError, SessionEnd, WaitPhase};
use crate::session::Session;
use crate::session::error::StopError;

/// How QEMU was ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StopReport {
    /// What it took.
    pub by: StoppedBy,
    /// How QEMU ended; `None` where its process was not this session's (attached).
    pub exit: Option<Exit>,
    /// How long it took.
    pub took: Duration,
}

/// What it took to end QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoppedBy {
    /// Nothing: it had ended before, or ended otherwise while it was asked to.
    Itself,
    /// QMP's `quit`.
    Quit,
    /// SIGTERM: `quit` had no effect in time, or could not be sent.
    Terminate,
    /// SIGKILL: SIGTERM had no effect in time.
    Kill,
}

impl Session {
    /// Ends QEMU: `quit`, then SIGTERM, then SIGKILL, each with its deadline
    /// ([`QemuConfig::stop_policy`](crate::QemuConfig::stop_policy)). When this returns, QEMU is
    /// gone and reaped, and everybody else who waits for the session has learnt how it ended.
    ///
    /// May be called twice, from several tasks, and after QEMU has ended by itself: all get the
    /// same answer. Once begun, the steps are carried out even if the future is dropped. A QEMU
    /// that was attached to is not this session's to kill: it is only asked, within the session's
    /// deadline.
    ///
    /// # Errors
    /// [`StopError`]: QEMU still runs, or, where it was attached to, is not known to have ended.
    pub async fn stop(&self) -> Result<StopReport, StopError> {
        let stopped = self.inner.stopped.get_or_try_init(|| async {
            match &self.inner.process {
                Some(process) => self.end(process).await,
                None => self.quit().await,
            }
        });
        stopped.await.cloned()
    }

    async fn end(&self, process: &Process) -> Result<StopReport, StopError> {
        let shared = &self.inner.shared;
        if let Some(exit) = process.try_wait() {
            // So that whoever asks the session afterwards gets the same answer.
            shared.end().await;
            return Ok(StopReport {
                by: StoppedBy::Itself,
                exit: Some(exit),
                took: Duration::ZERO,
            });
        }
        let mut policy = self.inner.deadlines.stop;
        if shared.how_it_ended().is_some() {
            // Nobody is left to send `quit`.
            policy.exit = Duration::ZERO;
        }
        let ending = process.end(policy);
        let asked = async {
            let quit = self.with_deadline(policy.exit);
            match policy.exit.is_zero() {
                true => false,
                false => matches!(
                    quit.command(&Quit).await,
                    Ok(_) | Err(CommandError::Ended { .. })
                ),
            }
        };
        let (asked, ended) = tokio::join!(asked, ending);
        let ended = ended?;
        shared.end().await;
        let by = match ended.step {
            StopStep::Exited if asked && ended.exit.success() => StoppedBy::Quit,
            StopStep::Exited => StoppedBy::Itself,
            StopStep::Terminated => StoppedBy::Terminate,
            _ => StoppedBy::Kill,
        };
        Ok(StopReport {
            by,
            exit: Some(ended.exit),
            took: ended.took,
        })
    }

    /// Ends a QEMU whose process is not ours: all there is, is to ask.
    async fn quit(&self) -> Result<StopReport, StopError> {
        let (since, shared) = (Instant::now(), &self.inner.shared);
        let stopped = |by| {
            Ok(StopReport {
                by,
                exit: None,
                took: since.elapsed(),
            })
        };
        let unheeded = |error| Err(StopError::Unheeded(Arc::new(error)));
        let command = Quit::NAME.to_owned();
        match shared.how_it_ended() {
            None => {}
            // The connection is lost, closed or let go, which says nothing of QEMU.
            Some(ended) => return unheeded(CommandError::Ended { command, ended }),
        }
        match self.command(&Quit).await {
            // The stream may end before the answer is read: then it was heeded.
            Ok(_)
            | Err(CommandError::Ended {
                ended: SessionEnd::Closed,
                ..
            }) => {}
            Err(error) => return unheeded(error),
        }
        if timeout(self.deadline, shared.end()).await.is_err() {
            let (deadline, phase) = (self.deadline, WaitPhase::Effect);
            return unheeded(CommandError::Deadline {
                command,
                deadline,
                phase,
            });
        }
        stopped(StoppedBy::Quit)
    }
}

impl fmt::Display for StoppedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Itself => "it had ended before",
            Self::Quit => "by quit",
            Self::Terminate => "by SIGTERM, without or in spite of quit",
            Self::Kill => "by SIGKILL, in spite of SIGTERM",
        })
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exit {
            Some(exit) => write!(f, "{exit} ({})", self.by),
            None => write!(f, "QEMU has ended ({})", self.by),
        }
    }
}
