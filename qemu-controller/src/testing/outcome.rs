//! How a test ended, and why it failed.

use std::fmt;
use std::time::Duration;

use super::capture::Capture;
use crate::bundle::Written;
#[cfg(doc)]
use crate::config::QemuConfig;
use crate::coverage::ExecutedCode;
use crate::debug::Stop;
use crate::escape;
use crate::source::RunReport;
use crate::source::report::CoreReport;

/// What became of a test.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TestResult {
    /// How it ended.
    pub outcome: Outcome,
    /// What it printed by semihosting, on its serial ports and by RTT, in this order of time; of a
    /// test that printed more than 256 KiB the end.
    pub output: Vec<u8>,
    /// How many bytes came before those.
    pub dropped: u64,
    /// From when it began to run to its end; the restore before is not in it.
    pub duration: Duration,
    /// Which code ran, where the configuration records [coverage](QemuConfig::coverage); that of the
    /// boot is not in it ([`Progress::Executed`](super::Progress::Executed)). None of a
    /// [printed](super::PrintedTests) test.
    pub executed: Option<ExecutedCode>,
    /// Of a test that failed the bundle that was written, or why none was, where
    /// [they are wanted](super::TestRun::bundles).
    pub bundle: Option<Result<Written, String>>,
}

impl TestResult {
    pub(super) fn new(outcome: Outcome, output: Capture, duration: Duration) -> Self {
        let (output, dropped) = output.finish();
        Self {
            outcome,
            output,
            dropped,
            duration,
            executed: None,
            bundle: None,
        }
    }

    /// Of a test that was not run, or not by itself.
    pub(super) fn without_run(outcome: Outcome) -> Self {
        Self::new(outcome, Capture::default(), Duration::ZERO)
    }
}

/// How a test ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not as it should.
    Failed(Failure),
    /// It was not run: it says that it is to be ignored.
    Ignored,
}

/// Why a test failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It exited with this status: after a panic, mostly 134.
    Exited {
        /// The status.
        status: u8,
        /// Where it panicked, and how it came there, where it did; or its last fault, which it may
        /// have handled.
        cause: Option<Box<CoreReport>>,
    },
    /// It stayed in the handler of a fault: which one, and how it came there, unless it had taken too
    /// many before to look at each.
    Faulted(Option<Box<CoreReport>>),
    /// It should have panicked, and did not.
    DidNotPanic,
    /// It still ran at its deadline.
    TimedOut {
        /// The deadline.
        after: Duration,
        /// Where it was.
        place: String,
        /// How it came there, and why it faulted if it was in the handler of a fault; of one that had
        /// panicked, what came to the panic.
        core: Option<Box<CoreReport>>,
    },
    /// The firmware was reset and started over.
    Reset,
    /// The machine came to its end: locked up, shut down, killed.
    Ended(Box<RunReport>),
    /// It was stopped by something else than the run.
    Stopped(String),
    /// The firmware printed that it failed, and this last, if anything, of the reason.
    Printed(Option<String>),
    /// The machine could not be started, restored or asked; says nothing of the test.
    Machine(String),
}

impl Outcome {
    /// It did not fail.
    #[must_use]
    pub fn is_success(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

impl Failure {
    pub(super) fn timed_out(after: Duration, stop: &Stop, core: Option<Box<CoreReport>>) -> Self {
        let place = match (stop.pc, &stop.place) {
            (Some(pc), Some(place)) => format!("{pc:#x} ({place})"),
            (Some(pc), None) => format!("{pc:#x}"),
            (None, _) => "a place that is not known".to_owned(),
        };
        Self::TimedOut { after, place, core }
    }

    /// On one line, for who shows none of what the test printed: what a firmware printed of the
    /// reason, else how the failure [begins](fmt::Display).
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Printed(Some(why)) => escape::line(why),
            other => {
                let text = other.to_string();
                text.lines().next().unwrap_or_default().to_owned()
            }
        }
    }

    /// The failure in one word that stays as it is, for reports that programs read.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Faulted(_) => "faulted",
            Self::DidNotPanic => "did-not-panic",
            Self::TimedOut { .. } => "timed-out",
            Self::Reset => "reset",
            Self::Ended(report) => report.verdict.name(),
            Self::Stopped(_) => "stopped",
            Self::Printed(_) => "failed",
            Self::Machine(_) => "machine",
        }
    }
}

/// `ok`, `ignored`, or why it failed.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("ok"),
            Self::Ignored => f.write_str("ignored"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited {
                status,
                cause: Some(core),
            } => match core.panicked_in {
                Some(_) => write!(f, "panicked (status {status})\n{core}"),
                None => write!(f, "exited with status {status}, after a fault\n{core}"),
            },
            Self::Faulted(core) => {
                let fault = core.as_ref().and_then(|core| core.fault.as_ref());
                let exception = fault.map_or("a fault", |fault| fault.exception);
                write!(f, "stays in the handler of {exception}")?;
                match core {
                    Some(core) => write!(f, ": {core}"),
                    None => Ok(()),
                }
            }
            Self::Exited { status, .. } => write!(f, "exited with status {status}"),
            Self::DidNotPanic => f.write_str("did not panic as expected"),
            Self::TimedOut { after, place, core } => {
                write!(f, "timed out after {after:?}, at {}", escape::line(place))?;
                match core {
                    Some(core) => write!(f, "\n{core}"),
                    None => Ok(()),
                }
            }
            Self::Reset => f.write_str("reset the machine, which started over"),
            Self::Ended(report) => report.fmt(f),
            Self::Stopped(why) => write!(f, "was stopped from outside: {}", escape::each_line(why)),
            Self::Printed(_) => f.write_str("failed, as it printed"),
            Self::Machine(error) => write!(f, "the machine failed: {}", escape::each_line(error)),
        }
    }
}
