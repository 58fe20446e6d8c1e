//! `run`: from the arguments to the exit status.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use qemu_controller::{Session, Verdict};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use crate::args::Run;
use crate::config_file;
use crate::debugger;
use crate::expectation::Expectation;
use crate::input::{self, Input};
use crate::machine::{self, Streams};
use crate::output::{Cut, Output, Phase};
use crate::report::{Failure, OWN_FAILURE, Outcome, Reporter};
use crate::settings::{Settings, Timeout};
use crate::signals::Signals;
use crate::stderr;

/// How long the guest is looked at after `--timeout`, and after Ctrl-C: it takes some milliseconds,
/// where QEMU answers.
const LOOK: Duration = Duration::from_secs(1);

/// How long a stdout that takes nothing is waited for once the run is to end.
const UNREAD: Duration = Duration::from_millis(500);

/// What QEMU writes to stderr when it is gone, it has written: a child of its may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs it all; the exit status.
pub(crate) fn run(run: Run) -> u8 {
    let since = Instant::now();
    let (reporter, outcome) = match Reporter::new(run.json.as_deref()) {
        Ok(reporter) => {
            let outcome = outcome(&run, &reporter, since);
            (reporter, outcome.unwrap_or_else(Outcome::Failed))
        }
        Err(failure) => match Reporter::new(None) {
            Ok(reporter) => (reporter, Outcome::Failed(failure)),
            // Without a thread for stderr there is nobody to say so.
            Err(_) => return OWN_FAILURE,
        },
    };
    reporter.end(&outcome, since.elapsed())
}

fn outcome(run: &Run, reporter: &Reporter, since: Instant) -> Result<Outcome, Failure> {
    let folder = std::env::current_dir().map_err(Failure::Folder)?;
    let file = config_file::settings(run.config.as_deref(), &folder, reporter)?;
    let settings = run.settings.clone().or(file);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("set up the async runtime"))?;
    let outcome = runtime.block_on(in_qemu(run, settings, reporter, since));
    // Whatever still runs in the background may hang for ever.
    runtime.shutdown_background();
    outcome
}

async fn in_qemu(
    run: &Run,
    settings: Settings,
    reporter: &Reporter,
    since: Instant,
) -> Result<Outcome, Failure> {
    // First of all: from here on a signal ends the run in order.
    let mut signals = Signals::listen().map_err(Failure::system("listen to signals"))?;
    let expected = Expectation::of(run)?;
    let send_after = run
        .send_after
        .as_deref()
        .map(Expectation::text)
        .transpose()?;
    let expecting = expected.is_some();
    let (output, stdout) = Output::new(settings.log.as_deref(), expected, send_after)?;
    let (tt, stdin) = input::tt().map_err(Failure::system("make a pipe"))?;
    let streams = Streams { stdin, stdout };
    // A debugger takes its time.
    let limit = Limit::new(&settings, since);
    let limit_of_start = match run.gdb {
        Some(_) => Limit {
            timeout: None,
            since,
        },
        None => limit,
    };
    let config = machine::config(run, &settings, streams)?;
    let started = tokio::select! {
        started = limit_of_start.wait_for(Session::start(config)) => started,
        // A start that is given up leaves no process.
        signal = signals.next() => return Ok(Outcome::Interrupted { signal, place: None }),
    };
    let session = match started {
        Some(started) => started.map_err(|error| machine::explain(error, run, &settings))?,
        None => return Ok(Outcome::TimedOut(limit.words("QEMU was still starting"))),
    };
    announce(run, &settings, &session, reporter)?;
    let input = Input::start(&session, tt, settings.newline, output.go())
        .map_err(Failure::system("start a thread for stdin"))?;
    let running = Running {
        run,
        session: &session,
        reporter,
        output: &output,
        limit,
        phase: watch::Sender::new(Phase::Running),
    };
    let outcome = running.to_its_end(&mut signals, input, expecting).await;
    session.stop().await?;
    running.finish_output(outcome?, &mut signals).await
}

/// Says how the firmware is run, where that was asked for, and where a debugger finds it.
fn announce(
    run: &Run,
    settings: &Settings,
    session: &Session,
    reporter: &Reporter,
) -> Result<(), Failure> {
    if let Some(process) = session.process().filter(|_| run.verbose) {
        let command_line = process.argv().to_string();
        let object = json!({ "event": "start", "command_line": command_line });
        reporter.say(Some(&command_line), &object)?;
    }
    match session.gdb() {
        Some(gdb) => debugger::announce(run, settings, gdb, reporter),
        None => Ok(()),
    }
}

/// `--timeout`, counted from the program's start.
#[derive(Clone, Copy)]
struct Limit {
    timeout: Option<Duration>,
    since: Instant,
}

impl Limit {
    fn new(settings: &Settings, since: Instant) -> Self {
        let timeout = match settings.timeout {
            Some(Timeout::After(timeout)) => Some(timeout),
            Some(Timeout::None) | None => None,
        };
        Self { timeout, since }
    }

    /// When it passes; `None` also where no clock goes so far.
    fn instant(self) -> Option<tokio::time::Instant> {
        let instant = self.since.checked_add(self.timeout?)?;
        Some(instant.into())
    }

    /// Waits for this; `None` when the time has passed.
    async fn wait_for<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self.instant() {
            Some(instant) => timeout_at(instant, future).await.ok(),
            None => Some(future.await),
        }
    }

    /// How much is left.
    fn left(self) -> Duration {
        match self.instant() {
            Some(instant) => instant.saturating_duration_since(tokio::time::Instant::now()),
            None => Duration::MAX,
        }
    }

    fn words(self, what: &str) -> String {
        let timeout = self.timeout.unwrap_or_default();
        format!("the run was not over after {timeout:?}: {what}")
    }
}

/// A run with a session.
struct Running<'a> {
    run: &'a Run,
    session: &'a Session,
    reporter: &'a Reporter,
    output: &'a Output,
    limit: Limit,
    phase: watch::Sender<Phase>,
}

impl Running<'_> {
    /// Runs the firmware and prints what it prints, until both are at their end or the output is
    /// cut.
    async fn to_its_end(
        &self,
        signals: &mut Signals,
        input: Input,
        expecting: bool,
    ) -> Result<Outcome, Failure> {
        let control = async {
            let outcome = self.control(signals, expecting).await?;
            // QEMU may wait for its stdin.
            drop(input);
            // QEMU goes: what the pipes hold is all there will be.
            self.session
                .stop()
                .await
                .map_err(|error| Cut::Failed(error.into()))?;
            self.phase.send_replace(Phase::Ended);
            Ok(outcome)
        };
        let printed = self.output.print(self.phase.subscribe());
        match tokio::try_join!(control, printed, self.print_stderr()) {
            Ok((outcome, (), ())) => Ok(outcome),
            Err(Cut::Met) => Ok(Outcome::Met),
            Err(Cut::StdoutClosed) => Ok(Outcome::StdoutClosed),
            Err(Cut::Failed(failure)) => Err(failure),
        }
    }

    /// Lets the firmware run, until it is over or is to be ended.
    async fn control(&self, signals: &mut Signals, expecting: bool) -> Result<Outcome, Cut> {
        let verdict = async {
            match self.run.gdb {
                Some(_) => self.debugged().await,
                None => Ok(self.run_until(self.limit).await),
            }
        };
        let signal = tokio::select! {
            biased;
            signal = signals.next() => signal,
            ended = verdict => return Ok(match ended.map_err(Cut::Failed)? {
                ControlFlow::Continue(_) if self.was_killed_by_debugger() => Outcome::KilledByDebugger,
                ControlFlow::Continue(verdict) => Outcome::Ended { verdict, unmet: expecting },
                ControlFlow::Break(outcome) => outcome,
            }),
        };
        self.phase.send_replace(Phase::Ending);
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
    async fn run_until(&self, limit: Limit) -> ControlFlow<Outcome, Verdict> {
        let run = self.session.run_to_end(limit.left());
        let Some(instant) = limit.instant() else {
            return ControlFlow::Continue(run.await);
        };
        tokio::pin!(run);
        if let Ok(verdict) = timeout_at(instant, &mut run).await {
            return ControlFlow::Continue(verdict);
        }
        // QEMU may be held up by a stdout that nobody reads, and could not be asked.
        self.phase.send_replace(Phase::Ending);
        match timeout(LOOK, run).await {
            Ok(mut verdict) => {
                if let Verdict::TimedOut(hang) = &mut verdict {
                    // What was left of it when the firmware began to run, is nobody's business.
                    hang.deadline = limit.timeout.unwrap_or(hang.deadline);
                }
                ControlFlow::Continue(verdict)
            }
            Err(_) => ControlFlow::Break(Outcome::TimedOut(
                limit.words("QEMU does not answer its monitor; the firmware may wait for stdin"),
            )),
        }
    }

    /// The debugger lets it run, and takes its time; once it has left, the time counts.
    async fn debugged(&self) -> Result<ControlFlow<Outcome, Verdict>, Failure> {
        loop {
            let runs = tokio::select! {
                verdict = self.session.wait() => return Ok(ControlFlow::Continue(verdict)),
                runs = debugger::left(self.session) => runs,
            };
            let words = match (runs, self.limit.timeout) {
                (true, None) => "the debugger has left; the firmware runs on".to_owned(),
                (true, Some(timeout)) => {
                    format!("the debugger has left; the firmware runs on, for {timeout:?} at most")
                }
                (false, _) => {
                    "the debugger has left; the firmware is stopped, until one attaches again \
                               or Ctrl-C ends the run"
                        .to_owned()
                }
            };
            let object = json!({ "event": "gdb-left", "running": runs });
            self.reporter.say(Some(&words), &object)?;
            let limit = Limit {
                since: Instant::now(),
                ..self.limit
            };
            let again = async {
                while debugger::is_attached(self.session).await != Some(true) {
                    tokio::time::sleep(debugger::LOOK_EVERY).await;
                }
            };
            let ended = async {
                match runs {
                    true => self.run_until(limit).await,
                    false => ControlFlow::Continue(self.session.wait().await),
                }
            };
            tokio::select! {
                verdict = ended => return Ok(verdict),
                () = again => {}
            }
        }
    }

    fn was_killed_by_debugger(&self) -> bool {
        let process = self.session.process().filter(|_| self.run.gdb.is_some());
        process.is_some_and(|process| {
            let said = process.stderr_tail().to_string_lossy();
            said.contains("Terminated via GDBstub")
        })
    }

    /// Where the firmware is, in words.
    async fn place(&self) -> Option<String> {
        if self.run.gdb.is_some() {
            // One that a debugger holds must not run for it.
            let state = timeout(LOOK, self.session.query_status())
                .await
                .ok()?
                .ok()?;
            if !state.running {
                return Some(format!("interrupted: the guest is {}", state.status));
            }
        }
        let verdict = timeout(LOOK, self.session.run_to_end(Duration::ZERO)).await;
        match verdict {
            Ok(Verdict::TimedOut(hang)) if hang.run_state.is_some() => {
                let words = hang.to_string();
                let (_, place) = words.split_once(": ")?;
                Some(format!("interrupted: {place}"))
            }
            _ => None,
        }
    }

    async fn print_stderr(&self) -> Result<(), Cut> {
        let Some(process) = self.session.process() else {
            return Ok(());
        };
        let lines = process.stderr_lines();
        let printed = stderr::print(lines, self.run.verbose, self.output, self.reporter);
        tokio::pin!(printed);
        let mut phase = self.phase.subscribe();
        tokio::select! {
            printed = &mut printed => return printed,
            _ = phase.wait_for(|&phase| phase == Phase::Ended) => {}
        }
        timeout(LAST_WORDS, printed).await.unwrap_or(Ok(()))
    }

    /// Waits until stdout has the rest, and says what it did not take. A run that came to its own
    /// end waits for its reader, until `--timeout` or a signal; its outcome is another one where
    /// stdout cannot be written.
    async fn finish_output(
        &self,
        outcome: Outcome,
        signals: &mut Signals,
    ) -> Result<Outcome, Failure> {
        let by_itself = match &outcome {
            Outcome::Ended { verdict, .. } => !matches!(verdict, Verdict::TimedOut(_)),
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
            Ok(0) => Ok(outcome),
            Ok(lost) => {
                let words = format!("stdout did not take {lost} bytes that the firmware printed");
                let object = json!({ "event": "lost", "bytes": lost });
                self.reporter.say(Some(&words), &object)?;
                Ok(outcome)
            }
            Err(_) if !by_itself => Ok(outcome),
            Err(Cut::Failed(failure)) => Err(failure),
            Err(Cut::Met | Cut::StdoutClosed) => Ok(Outcome::StdoutClosed),
        }
    }
}
