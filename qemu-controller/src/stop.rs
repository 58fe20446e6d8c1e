//! The end of a session: ask, then insist, then kill; and say which it took.

use std::fmt;
use std::time::Duration;

use qemu_launch::{Exit, Rung};
use qmp_proto::commands::Quit;
use tokio::time::Instant;

use crate::error::{CommandError, StopError};
use crate::session::Session;

/// How QEMU was ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stopped {
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
    /// Nothing: it had ended before.
    Itself,
    /// QMP's `quit`.
    Quit,
    /// SIGTERM, after `quit` went unheard.
    Terminate,
    /// SIGKILL, after SIGTERM went unheard.
    Kill,
}

impl Session {
    /// Ends QEMU: `quit`, then SIGTERM, then SIGKILL, each with its deadline ([`QemuConfig::stop_ladder`](crate::QemuConfig::stop_ladder)). When this returns, QEMU is gone and
    /// reaped, and everybody else who waits for the session has been told.
    ///
    /// May be called twice, from several tasks, and after QEMU has ended by itself. Once begun it goes on even if the future is dropped.
    ///
    /// # Errors
    /// [`StopError`]: QEMU still runs.
    pub async fn stop(&self) -> Result<Stopped, StopError> {
        let Some(process) = &self.inner.process else {
            return self.quit().await;
        };
        if let Some(exit) = process.try_wait() {
            return Ok(Stopped {
                by: StoppedBy::Itself,
                exit: Some(exit),
                took: Duration::ZERO,
            });
        }
        let ladder = self.inner.deadlines.stop;
        let ending = process.end(ladder);
        let quit = self.with_deadline(ladder.exit);
        // Its answer is of no interest: the process says whether it was heard.
        let quit = async { drop(quit.command(&Quit).await) };
        let (_, ended) = tokio::join!(quit, ending);
        let ended = ended?;
        // So that whoever asks the session afterwards hears the same.
        self.inner.shared.end().await;
        let by = match ended.rung {
            Rung::Exited => StoppedBy::Quit,
            Rung::Terminated => StoppedBy::Terminate,
            _ => StoppedBy::Kill,
        };
        Ok(Stopped {
            by,
            exit: Some(ended.exit),
            took: ended.took,
        })
    }

    /// Ends a QEMU whose process is not ours: all there is, is to ask.
    async fn quit(&self) -> Result<Stopped, StopError> {
        let since = Instant::now();
        if self.inner.shared.how_it_ended().is_some() {
            return Ok(Stopped {
                by: StoppedBy::Itself,
                exit: None,
                took: Duration::ZERO,
            });
        }
        // The stream may end before the answer is read: then it was heeded.
        match self.command(&Quit).await {
            Ok(_) | Err(CommandError::Ended { .. }) => {}
            Err(error) => return Err(StopError::Unheeded(error)),
        }
        self.inner.shared.end().await;
        Ok(Stopped {
            by: StoppedBy::Quit,
            exit: None,
            took: since.elapsed(),
        })
    }
}

impl fmt::Display for StoppedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Itself => "it had ended by itself",
            Self::Quit => "by quit",
            Self::Terminate => "by SIGTERM, since it did not heed quit",
            Self::Kill => "by SIGKILL, since it heeded neither quit nor SIGTERM",
        })
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exit {
            Some(exit) => write!(f, "{exit} ({})", self.by),
            None => write!(f, "QEMU has ended ({})", self.by),
        }
    }
}
