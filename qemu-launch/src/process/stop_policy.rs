//! Stopping a process step by step: wait for it to exit by itself, SIGTERM, SIGKILL; each step with
//! a deadline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::ProcessHandle;
use crate::process::exit::Exit;
use crate::process::set_once::SetOnce;
use crate::process::spawn_thread;

/// Upper bound of each step, so that `Instant + this` cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long each step of stopping may take: a year at most, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopPolicy {
    /// How long it may take to exit by itself, before SIGTERM: for a caller that has just sent
    /// QMP's `quit`. Default: zero.
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

    /// How long SIGTERM may take; zero leaves this step out.
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

/// The last step that was taken.
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

/// A process that was stopped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Terminated {
    /// The last step that was taken: the one that worked.
    pub step: StopStep,
    /// How it ended.
    pub exit: Exit,
    /// How long it took from the first step on.
    pub took: Duration,
}

/// Not even SIGKILL ended the process in time. It is reaped when it ends after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("process {pid} still runs {after:?} after SIGKILL{}", reason(*.out_of_reach))]
#[non_exhaustive]
pub struct StillRunning {
    /// The process id.
    pub pid: u32,
    /// How long SIGKILL was given.
    pub after: Duration,
    /// The system refuses to let this program signal it: the program that was started runs as
    /// another user (set-user-ID). Otherwise it hangs in the kernel.
    pub out_of_reach: bool,
}

fn reason(out_of_reach: bool) -> &'static str {
    match out_of_reach {
        true => ", which does not reach it: it runs as another user; end it as that user",
        false => ": it hangs in the kernel",
    }
}

type Outcome = Result<Terminated, StillRunning>;

/// Stops it on a thread of its own, so that no runtime and no poll is needed for it to go on.
pub(crate) fn begin(process: ProcessHandle, policy: StopPolicy) -> Arc<SetOnce<Outcome>> {
    let outcome = Arc::new(SetOnce::new());
    if let Some(exit) = process.try_wait() {
        outcome.set(Ok(Terminated {
            step: StopStep::Exited,
            exit,
            took: Duration::ZERO,
        }));
        return outcome;
    }
    let on_thread = {
        let (process, outcome) = (process.clone(), Arc::clone(&outcome));
        move || outcome.set(stop_or_panic(&process, policy))
    };
    if spawn_thread("qemu-stop", on_thread).is_err() {
        // No thread is left: only the last step, and the caller's thread waits for it.
        let kill_at_once = StopPolicy {
            exit: Duration::ZERO,
            terminate: Duration::ZERO,
            ..policy
        };
        outcome.set(stop(&process, kill_at_once));
    }
    outcome
}

/// A panic must not leave the callers waiting.
fn stop_or_panic(process: &ProcessHandle, policy: StopPolicy) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| stop(process, policy))).unwrap_or_else(|_| {
        process.kill();
        Err(process.still_running(Duration::ZERO))
    })
}

fn stop(process: &ProcessHandle, policy: StopPolicy) -> Outcome {
    let start = Instant::now();
    let steps = [
        (StopStep::Exited, policy.exit),
        (StopStep::Terminated, policy.terminate),
        (StopStep::Killed, policy.kill),
    ];
    for (step, patience) in steps {
        if patience.is_zero() && step != StopStep::Killed {
            continue;
        }
        match step {
            StopStep::Exited => {}
            StopStep::Terminated => process.terminate(),
            StopStep::Killed => process.kill(),
        }
        if let Ok(exit) = process.wait_blocking(Instant::now() + patience.min(LONGEST)) {
            return Ok(Terminated {
                step,
                exit,
                took: start.elapsed(),
            });
        }
    }
    Err(process.still_running(policy.kill))
}
