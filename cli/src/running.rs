//! A run with a session: until the firmware is over, its output is cut, a debugger or a signal ends
//! it, or the time has passed.

use std::ops::ControlFlow;
use std::time::Duration;

use qemu_controller::debug::HandOver;
use qemu_controller::{RunReport, Session, Verdict};
use serde_json::json;
use tokio::time::{timeout, timeout_at};

use crate::args::Run;
use crate::bundle::Bundling;
use crate::debug::Slot;
use crate::debugger;
use crate::escape;
use crate::failure::Failure;
use crate::input::Input;
use crate::limit::Limit;
use crate::logs::Logs;
use crate::outcome::Outcome;
use crate::output::{Cut, Output, Phase};
use crate::reporter::Reporter;
use crate::settings::OnFault;
use crate::signals::Signals;
use crate::stderr;

/// How long the guest is looked at after `--timeout`, and after Ctrl-C: it takes some milliseconds,
/// where QEMU answers.
const LOOK: Duration = Duration::from_secs(1);

/// The same where the machine's state is saved, too: a machine may have much memory.
const LOOK_AND_KEEP: Duration = Duration::from_secs(5);

/// How long a stdout that takes nothing is waited for once the run is to end.
const UNREAD: Duration = Duration::from_millis(500);

/// What QEMU writes to stderr when it is gone, it has written: a child of its may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the place is not known.
const UNKNOWN_PLACE: &str = "where the firmware is could not be found out in time \
                             (one that waits for stdin holds QEMU up)";

/// Who lets the firmware run in place of this program.
pub(crate) enum Debuggers<'a> {
    None,
    /// Whoever connects to the session.
    Direct(HandOver),
    /// Those that `debug` serves.
    Served(HandOver, &'a Slot),
}

/// A run with a session.
pub(crate) struct Running<'a> {
    pub(crate) run: &'a Run,
    pub(crate) session: &'a Session,
    pub(crate) reporter: &'a Reporter,
    pub(crate) output: &'a Output,
    pub(crate) logs: &'a Logs,
    pub(crate) limit: Limit,
    pub(crate) on_fault: OnFault,
    pub(crate) bundling: Option<&'a Bundling>,
}

impl Running<'_> {
    /// Runs the firmware and prints what it prints, until both are at their end or the output is
    /// cut.
    pub(crate) async fn to_its_end(
        &self,
        signals: &mut Signals,
        input: Input,
        expecting: bool,
        debuggers: Debuggers<'_>,
    ) -> Result<Outcome, Failure> {
        let control = async {
            let outcome = self.control(signals, expecting, debuggers).await?;
            if let Some(bundling) = self.bundling {
                bundling.before_the_end(self.session, &outcome).await;
            }
            // QEMU may wait for its stdin.
            drop(input);
            self.logs.before_the_end(self.session).await;
            // QEMU goes: what the pipes hold is all there will be.
            self.session
                .stop()
                .await
                .map_err(|error| Cut::Failed(error.into()))?;
            self.output.enter(Phase::Ended);
            Ok(outcome)
        };
        let printed = self.output.print(self.reporter);
        let logged = self.logs.print(self.session, self.output, self.reporter);
        match tokio::try_join!(control, printed, logged, self.print_stderr()) {
            Ok((outcome, (), (), ())) => Ok(outcome),
            Err(cut) => cut.outcome(),
        }
    }

    /// Lets the firmware run, until it is over or is to be ended.
    async fn control(
        &self,
        signals: &mut Signals,
        expecting: bool,
        debuggers: Debuggers<'_>,
    ) -> Result<Outcome, Cut> {
        let verdict = async {
            match debuggers {
                Debuggers::None => Ok(self.run_until(self.limit).await),
                Debuggers::Direct(hand_over) => self.debugged(hand_over).await,
                Debuggers::Served(hand_over, slot) => self.served(hand_over, slot).await,
            }
        };
        let signal = tokio::select! {
            biased;
            signal = signals.next() => signal,
            ended = verdict => return Ok(match ended.map_err(Cut::Failed)? {
                ControlFlow::Break(outcome) => outcome,
                ControlFlow::Continue(report) => Outcome::Ended { report, unmet: expecting },
            }),
        };
        self.output.enter(Phase::Ending);
        // By Ctrl-C somebody wants to know where it hangs; another signal ends that, too.
        let place = match signal == nix::sys::signal::Signal::SIGINT as u8 {
            true => tokio::select! {
                place = self.place() => place,
                _ = signals.next() => None,
            },
            false => None,
        };
        Ok(Outcome::Interrupted { signal, place })
    }

    /// Runs the firmware until the time has passed; where it is then, is in the verdict.
    async fn run_until(&self, limit: Limit) -> ControlFlow<Outcome, RunReport> {
        let run = self.watched(limit.left());
        let Some(instant) = limit.instant() else {
            return ControlFlow::Continue(run.await);
        };
        tokio::pin!(run);
        let mut report = match timeout_at(instant, &mut run).await {
            Ok(report) => report,
            Err(_) => {
                // QEMU may be held up by a stdout that nobody reads, and could not be asked.
                self.output.enter(Phase::Ending);
                let look = match self.bundling {
                    Some(_) => LOOK_AND_KEEP,
                    None => LOOK,
                };
                match timeout(look, run).await {
                    Ok(report) => report,
                    Err(_) => {
                        return ControlFlow::Break(Outcome::TimedOut(limit.words(UNKNOWN_PLACE)));
                    }
                }
            }
        };
        if let Verdict::TimedOut(hang) = &mut report.verdict {
            // Not what was left of it when the firmware began to run.
            hang.deadline = limit.timeout.unwrap_or(hang.deadline);
        }
        ControlFlow::Continue(report)
    }

    /// Runs the firmware to its end; its faults are looked at, unless that was not wanted.
    async fn watched(&self, deadline: Duration) -> RunReport {
        match self.on_fault {
            OnFault::Stop => {
                // A firmware that prints may wait for whoever reads it.
                let is_held_up = || self.output.holds_up();
                match self.bundling {
                    Some(bundling) => bundling.run(self.session, deadline, is_held_up).await,
                    None => self.session.run_watched(deadline, is_held_up).await,
                }
            }
            OnFault::Continue => self.session.run_to_end(deadline).await.into(),
        }
    }

    /// The debugger lets it run, and takes its time; once it has left, the time counts.
    async fn debugged(
        &self,
        mut hand_over: HandOver,
    ) -> Result<ControlFlow<Outcome, RunReport>, Failure> {
        loop {
            let runs = tokio::select! {
                verdict = self.session.wait() => return Ok(ControlFlow::Continue(verdict.into())),
                Ok(runs) = hand_over.left() => runs,
            };
            debugger::say_left(runs, self.limit, self.reporter)?;
            tokio::select! {
                ended = self.left_alone(runs, self.limit.renewed()) => return Ok(ended),
                Ok(()) = hand_over.attached() => {}
            }
        }
    }

    /// Debuggers come and go, until the firmware ends or another machine takes its place.
    async fn served(
        &self,
        mut hand_over: HandOver,
        slot: &Slot,
    ) -> Result<ControlFlow<Outcome, RunReport>, Failure> {
        loop {
            tokio::select! {
                verdict = self.session.wait() => return Ok(ControlFlow::Continue(verdict.into())),
                () = slot.replaced() => return Ok(ControlFlow::Break(Outcome::Replaced)),
                Ok(runs) = hand_over.left() => {
                    debugger::say_left(runs, Limit::none(), self.reporter)?;
                }
            }
        }
    }

    /// Waits for the end of a firmware that runs, or that the debugger has left stopped.
    async fn left_alone(&self, runs: bool, limit: Limit) -> ControlFlow<Outcome, RunReport> {
        if runs {
            return self.run_until(limit).await;
        }
        match limit.wait_for(self.session.wait()).await {
            Some(verdict) => ControlFlow::Continue(verdict.into()),
            None => {
                let words = limit.words("the debugger had left the firmware stopped");
                ControlFlow::Break(Outcome::TimedOut(words))
            }
        }
    }

    /// Where the firmware is, in words.
    async fn place(&self) -> Option<String> {
        let found = timeout(LOOK, self.session.look()).await.ok()?;
        found.run_state.as_ref()?;
        let words = escape::line(&format!("interrupted: {found}"));
        let cores = found.cores.iter();
        Some(cores.fold(words, |words, core| format!("{words}\n{core}")))
    }

    async fn print_stderr(&self) -> Result<(), Cut> {
        let Some(lines) = self.session.stderr() else {
            return Ok(());
        };
        let printed = stderr::print(lines, self.run.verbose, self.output, self.reporter);
        tokio::pin!(printed);
        tokio::select! {
            printed = &mut printed => return printed,
            () = self.output.reached(Phase::Ended) => {}
        }
        timeout(LAST_WORDS, printed).await.unwrap_or(Ok(()))
    }

    /// Waits until stdout has the rest, and says what it did not take. A run that came to its own
    /// end waits for its reader, until `--timeout` or a signal; its outcome is another one where
    /// stdout cannot be written.
    pub(crate) async fn finish_output(
        &self,
        outcome: Outcome,
        signals: &mut Signals,
    ) -> Result<Outcome, Failure> {
        let by_itself = match &outcome {
            Outcome::Ended { report, .. } => !matches!(report.verdict, Verdict::TimedOut(_)),
            outcome => matches!(outcome, Outcome::Met),
        };
        if by_itself {
            let all = self.output.finish(None);
            tokio::select! {
                _ = self.limit.wait_for(all) => {}
                _ = signals.next() => {}
            }
        }
        match self.output.finish(Some(UNREAD)).await {
            Ok(lost) => {
                for (stream, bytes) in lost {
                    let words =
                        format!("{stream} did not take {bytes} bytes that the firmware printed");
                    let object = json!({ "event": "lost", "stream": stream, "bytes": bytes });
                    self.reporter.say(Some(&words), &object)?;
                }
                Ok(outcome)
            }
            Err(_) if !by_itself => Ok(outcome),
            Err(Cut::Failed(failure)) => Err(failure),
            Err(Cut::Met | Cut::StdoutClosed) => Ok(Outcome::StdoutClosed),
        }
    }
}
