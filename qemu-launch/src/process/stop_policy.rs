//! Ending a process rung by rung: let it exit by itself, SIGTERM, SIGKILL; a deadline on each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::ProcessHandle;
use crate::process::exit::Exit;
use crate::process::set_once::Once;
use crate::process::spawner_thread::spawn_thread;

/// The longest that a rung can take; a clock can't be asked for more than it counts.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long each rung may take: a year at most, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopPolicy {
    /// How long it may take to exit by itself, before SIGTERM; for whoever has just sent QMP's
    /// `quit`. Default: zero.
    pub exit: Duration,
    /// How long SIGTERM may take, before SIGKILL. Default: 2 s (QEMU needs 10 ms; 150 ms on a
    /// loaded machine).
    pub terminate: Duration,
    /// How long SIGKILL may take, before giving up with [`StillRunning`]. Default: 5 s.
    pub kill: Duration,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self {
            exit: Duration::ZERO,
            terminate: Duration::from_secs(2),
            kill: Duration::from_secs(5),
        }
    }
}

impl StopPolicy {
    /// SIGKILL at once.
    #[must_use]
    pub fn kill() -> Self {
        Self {
            terminate: Duration::ZERO,
            ..Self::default()
        }
    }

    /// Gives it this long to exit by itself first.
    #[must_use]
    pub fn after_quit(mut self, exit: Duration) -> Self {
        self.exit = exit;
        self
    }

    /// How long SIGTERM may take; zero leaves this rung out.
    #[must_use]
    pub fn terminate_within(mut self, terminate: Duration) -> Self {
        self.terminate = terminate;
        self
    }

    /// How long SIGKILL may take.
    #[must_use]
    pub fn kill_within(mut self, kill: Duration) -> Self {
        self.kill = kill;
        self
    }
}

/// The last rung that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StopStep {
    /// It exited by itself; no signal was sent.
    Exited,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
}

/// A process that was ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Terminated {
    /// The last rung that was taken.
    pub rung: StopStep,
    /// How it ended.
    pub exit: Exit,
    /// How long it took from the first rung on.
    pub took: Duration,
}

/// Not even SIGKILL ended the process in time: it hangs in the kernel. It is reaped when it ends
/// after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("process {pid} still runs {after:?} after SIGKILL")]
#[non_exhaustive]
pub struct StillRunning {
    /// The process id.
    pub pid: u32,
    /// How long SIGKILL was given.
    pub after: Duration,
}

type Outcome = Result<Terminated, StillRunning>;

/// Climbs the ladder on a thread of its own, so that no runtime and no poll is needed for it to go
/// on.
pub(crate) fn begin(process: ProcessHandle, policy: StopPolicy) -> Arc<Once<Outcome>> {
    let outcome = Arc::new(Once::new());
    if let Some(exit) = process.try_wait() {
        outcome.set(Ok(Terminated {
            rung: StopStep::Exited,
            exit,
            took: Duration::ZERO,
        }));
        return outcome;
    }
    let climber = {
        let (process, outcome) = (process.clone(), Arc::clone(&outcome));
        move || outcome.set(climb_to_the_end(&process, policy))
    };
    if spawn_thread("qemu-end", climber).is_err() {
        // No thread to be had: the ladder shrinks to its last rung, which waits on the caller's
        // thread.
        outcome.set(climb(
            &process,
            StopPolicy {
                exit: Duration::ZERO,
                terminate: Duration::ZERO,
                ..policy
            },
        ));
    }
    outcome
}

/// Whoever waits hears of the outcome even if the climber falls.
fn climb_to_the_end(process: &ProcessHandle, policy: StopPolicy) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| climb(process, policy))).unwrap_or_else(|_| {
        process.kill();
        Err(StillRunning {
            pid: process.pid(),
            after: Duration::ZERO,
        })
    })
}

fn climb(process: &ProcessHandle, policy: StopPolicy) -> Outcome {
    let start = Instant::now();
    let rungs = [
        (StopStep::Exited, policy.exit),
        (StopStep::Terminated, policy.terminate),
        (StopStep::Killed, policy.kill),
    ];
    for (rung, patience) in rungs {
        if patience.is_zero() && rung != StopStep::Killed {
            continue;
        }
        match rung {
            StopStep::Exited => {}
            StopStep::Terminated => process.terminate(),
            StopStep::Killed => process.kill(),
        }
        if let Ok(exit) = process.wait_blocking(Instant::now() + patience.min(LONGEST)) {
            return Ok(Terminated {
                rung,
                exit,
                took: start.elapsed(),
            });
        }
    }
    Err(StillRunning {
        pid: process.pid(),
        after: policy.kill,
    })
}
