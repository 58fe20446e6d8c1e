//! One machine that runs tests: booted to where the firmware asks for its command line, and back
//! there before each.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::bundles::Bundles;
use super::capture::Capture;
use super::faults::FaultWatch;
use super::frames::FrameSource;
use super::outcome::{Failure, Outcome, TestResult};
use super::run::TestRunError;
use super::{Isolation, TestCase};
use crate::bundle::{MomentKind, Recorder};
use crate::client::command::instant_after;
use crate::config::QemuConfig;
use crate::coverage::ExecutedCode;
use crate::debug::backtrace::Cause;
use crate::debug::{Stop, StopReason, panics};
use crate::fork::MachineState;
use crate::semihosting::{Call, Event, Host, HostError, Printed, Request};
use crate::session::Session;
use crate::snapshot::AfterLoad;
use crate::source::report::CoreReport;

/// How long QEMU's end is waited for once it could not be asked.
const ENDING: Duration = Duration::from_millis(500);

/// How often it is looked for what a test prints that makes no calls.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The snapshot that is restored. Short: QEMU takes 4 µs for each byte of a command.
const BOOTED: &str = "boot";

pub(super) struct Machine {
    session: Session,
    host: Host,
    /// The firmware's question for its command line.
    question: Call,
    /// Where the handlers of faults begin.
    fault_handlers: Vec<u64>,
    /// A test has run since the boot or the last restore.
    is_used: bool,
    /// Keeps the machine as it is where the test fails.
    recorder: Option<Recorder>,
    /// What ran before the question, where that is recorded and nobody has asked for it yet.
    boot: Option<ExecutedCode>,
}

/// Where a run from one call to the next came to.
enum Step {
    Exit(u8),
    Question(Call),
    /// A place where a panic or the handler of a fault begins.
    Reached(u64),
    Stopped(Stop),
}

impl Machine {
    /// Starts one, and lets the firmware come to its question.
    pub(super) async fn boot(
        config: &QemuConfig,
        isolation: Isolation,
        deadline: Duration,
    ) -> Result<Self, TestRunError> {
        let config = config.clone().start_paused(true).no_reboot(false);
        let session = Session::start(config).await?;
        let mut output = Capture::default();
        let (host, question) = match to_question(&session, &mut output, deadline).await {
            Ok((host, Step::Question(call))) => (host, call),
            Ok((_, other)) => return Err(TestRunError::boot(other.words(deadline), output)),
            // Whatever could not be asked: that QEMU has ended says more.
            Err(error) => match timeout(ENDING, session.wait()).await {
                Ok(verdict) => return Err(TestRunError::boot(verdict.to_string(), output)),
                Err(_) => return Err(error.into()),
            },
        };
        if isolation == Isolation::Restore {
            session.save_snapshot(BOOTED).await?;
        }
        drain(&session, &mut Capture::default());
        let boot = output.with_calls(session.take_executed_code().ok());
        Ok(Self::new(session, host, question, boot).await)
    }

    /// What ran in the boot, once.
    pub(super) fn take_boot(&mut self) -> Option<ExecutedCode> {
        self.boot.take()
    }

    /// The state for others to begin from.
    pub(super) async fn save(&self) -> Result<MachineState, TestRunError> {
        Ok(self.session.save_state().await?)
    }

    /// Starts one from a state that was saved at the question.
    pub(super) async fn fork(
        config: &QemuConfig,
        isolation: Isolation,
        state: &MachineState,
    ) -> Result<Self, TestRunError> {
        let config = config.clone().start_paused(true).no_reboot(false);
        let session = Session::start_from(config, state).await?;
        let mut host = session.semihosting_host().await?;
        let question = host.current().await?;
        let question = question.filter(|call| matches!(call.request, Request::CommandLine { .. }));
        let Some(question) = question else {
            let why = "the saved state is of another moment".to_owned();
            return Err(TestRunError::boot(why, Capture::default()));
        };
        if isolation == Isolation::Restore {
            session.save_snapshot(BOOTED).await?;
        }
        Ok(Self::new(session, host, question, None).await)
    }

    async fn new(
        session: Session,
        mut host: Host,
        question: Call,
        boot: Option<ExecutedCode>,
    ) -> Self {
        let panics = session.ask_firmware(|firmware| panics::functions(firmware).ok());
        // One that was stripped tells less of its failures.
        host.stop_at(panics.await.ok().flatten().unwrap_or_default());
        let fault_handlers = host.debugger().fault_handlers().await;
        host.stop_at(fault_handlers.iter().copied());
        Self {
            session,
            host,
            question,
            fault_handlers,
            is_used: false,
            recorder: None,
            boot,
        }
    }

    /// Runs one test. An error says nothing of the test; the machine is of no use then, nor is it
    /// after [`Failure::Ended`].
    pub(super) async fn run(
        &mut self,
        test: &TestCase,
        deadline: Duration,
        bundles: Option<&Bundles>,
        mut output: Capture,
    ) -> Result<TestResult, TestRunError> {
        self.recorder = bundles.and_then(Bundles::recorder);
        let mut since = Instant::now();
        let ended = self.run_to_outcome(test, deadline, &mut output, &mut since);
        let outcome = match ended.await {
            Ok(outcome) => outcome,
            // Whatever could not be asked: that QEMU has ended says more.
            Err(error) => match timeout(ENDING, self.session.wait()).await {
                Ok(verdict) => Outcome::Failed(Failure::Ended(Box::new(verdict.into()))),
                Err(_) => return Err(error),
            },
        };
        let duration = since.elapsed();
        drain(&self.session, &mut output);
        output.end();
        let executed = output.with_calls(self.session.take_executed_code().ok());
        let mut result = TestResult::new(outcome, output, duration);
        result.executed = executed;
        if let (Some(bundles), Some(recorder)) = (bundles, &self.recorder) {
            let writing = bundles.write(recorder, &self.session, &test.name, &result);
            result.bundle = writing.await;
        }
        Ok(result)
    }

    /// Keeps the machine as it is, where bundles are wanted: of a fault or a panic over what comes
    /// of it.
    async fn keep(&mut self, kind: MomentKind, report: Option<&CoreReport>) {
        if let Some(recorder) = &mut self.recorder
            && !(report.is_none() && recorder.has_cause())
        {
            let debugger = self.host.debugger();
            recorder
                .keep_stopped(&self.session, debugger, kind, report)
                .await;
        }
    }

    /// Restores the machine if it has to, and runs the test from this moment on.
    async fn run_to_outcome(
        &mut self,
        test: &TestCase,
        deadline: Duration,
        output: &mut Capture,
        since: &mut Instant,
    ) -> Result<Outcome, TestRunError> {
        if std::mem::replace(&mut self.is_used, true) {
            let load = self.session.load_snapshot(BOOTED);
            // The test before was stopped, or this machine is not used again.
            load.then(AfterLoad::Paused).of_stopped().await?;
            self.host.debugger().note_load();
            drain(&self.session, &mut Capture::default());
        }
        let line = format!("run_addr {}", test.address);
        self.host.answer_command_line(&self.question, &line).await?;
        *since = Instant::now();
        self.outcome(test, deadline, output).await
    }

    async fn outcome(
        &mut self,
        test: &TestCase,
        deadline: Duration,
        output: &mut Capture,
    ) -> Result<Outcome, TestRunError> {
        let mut faults = FaultWatch::default();
        let outcome = self.outcome_with(test, deadline, output, &mut faults).await;
        // One that has ended has nothing to put back.
        let _ = faults.end(&mut self.host).await;
        outcome
    }

    async fn outcome_with(
        &mut self,
        test: &TestCase,
        deadline: Duration,
        output: &mut Capture,
        faults: &mut FaultWatch,
    ) -> Result<Outcome, TestRunError> {
        let until = instant_after(deadline);
        let mut panic = None;
        let failure = loop {
            let next_look = faults.next_look(until);
            match step(&self.session, &mut self.host, output, next_look).await? {
                Step::Reached(pc) if self.fault_handlers.contains(&pc) => {
                    if faults.at_handler(&mut self.host).await {
                        break Failure::Faulted(panic.or_else(|| faults.last()));
                    }
                    if let Some(fault) = faults.latest() {
                        self.keep(MomentKind::Fault, Some(fault)).await;
                    }
                }
                Step::Reached(pc) if faults.is_return(pc) => {}
                Step::Reached(_) if test.should_panic || panic.is_some() => {}
                Step::Reached(_) => {
                    panic = self.panic().await.map(Box::new);
                    self.keep(MomentKind::Panic, panic.as_deref()).await;
                }
                Step::Exit(0) if test.should_panic => {
                    self.keep(MomentKind::Exit, None).await;
                    break Failure::DidNotPanic;
                }
                Step::Exit(0) => return Ok(Outcome::Passed),
                Step::Exit(_) if test.should_panic => return Ok(Outcome::Passed),
                Step::Exit(status) => {
                    self.keep(MomentKind::Exit, None).await;
                    let cause = panic.or_else(|| faults.last());
                    break Failure::Exited { status, cause };
                }
                Step::Question(_) => break Failure::Reset,
                Step::Stopped(stop) => match stop.reason {
                    StopReason::DeadlinePassed if Instant::now() < until => {
                        if faults.stays(self.host.debugger()).await {
                            break Failure::Faulted(panic.or_else(|| faults.last()));
                        }
                    }
                    StopReason::DeadlinePassed => {
                        let cores = self.host.debugger().core_reports().await;
                        let core = cores.unwrap_or_default().into_iter().next();
                        self.keep(MomentKind::Deadline, None).await;
                        // A panic's handler that is a loop tells less than what came to it.
                        let core = panic.or_else(|| core.map(Box::new));
                        break Failure::timed_out(deadline, &stop, core);
                    }
                    StopReason::Ended(verdict) => {
                        break Failure::Ended(Box::new((*verdict).into()));
                    }
                    _ => break Failure::Stopped(stop.to_string()),
                },
            }
        };
        Ok(Outcome::Failed(failure))
    }

    /// Where the firmware panics, which it is about to do. That this fails is no failure of the
    /// test.
    async fn panic(&mut self) -> Option<CoreReport> {
        let pc = self.host.debugger().read_register("pc").await.ok()?;
        let panic = Some(self.session.place(pc).await?.symbol.name);
        let cause = Cause { fault: None, panic };
        self.host.debugger().report_of_stop(cause).await.ok()
    }
}

impl Step {
    /// Why it is not the question.
    fn words(self, deadline: Duration) -> String {
        match self {
            Self::Exit(status) => format!("it exited with status {status}"),
            Self::Question(_) => "it asked".to_owned(),
            Self::Reached(_) => "it panicked".to_owned(),
            Self::Stopped(stop) => match stop.reason {
                StopReason::DeadlinePassed => Failure::timed_out(deadline, &stop, None).to_string(),
                StopReason::Ended(verdict) => verdict.to_string(),
                _ => stop.to_string(),
            },
        }
    }
}

/// From the start to the firmware's question, or whatever comes first.
async fn to_question(
    session: &Session,
    output: &mut Capture,
    deadline: Duration,
) -> Result<(Host, Step), HostError> {
    let until = instant_after(deadline);
    let mut host = session.semihosting_host().await?;
    let step = step(session, &mut host, output, until).await?;
    Ok((host, step))
}

/// Runs to the next exit, question or stop; what is printed meanwhile is captured in its order.
async fn step(
    session: &Session,
    host: &mut Host,
    output: &mut Capture,
    until: Instant,
) -> Result<Step, HostError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let event = next(session, host, output, left).await?;
        // The guest is stopped: what is in RTT's rings stays there, or is lost with QEMU.
        if session.inner.rtt.is_some() {
            let _ = session.drain_rtt().await;
            drain(session, output);
        }
        let call = match event {
            Event::Call(call) => call,
            Event::Reached(pc) => return Ok(Step::Reached(pc)),
            Event::Stopped(stop) => return Ok(Step::Stopped(stop)),
        };
        output.called(&call);
        match call.request {
            Request::Exit { status } => return Ok(Step::Exit(status)),
            Request::CommandLine { .. } => return Ok(Step::Question(call)),
            _ => {}
        }
        match host.answer_console(&call).await? {
            Printed::Stdout(bytes) | Printed::Stderr(bytes) if !bytes.is_empty() => {
                drain(session, output);
                output.push_from(FrameSource::Semihosting, &bytes);
            }
            // What is no console's is QEMU's to serve.
            _ => {}
        }
    }
}

/// The guest's next stop; what it prints on its ports until then is captured as it comes.
async fn next(
    session: &Session,
    host: &mut Host,
    output: &mut Capture,
    deadline: Duration,
) -> Result<Event, HostError> {
    let mut next = std::pin::pin!(host.next(deadline));
    loop {
        match timeout(LOOK, &mut next).await {
            Ok(event) => return event,
            Err(_) => drain(session, output),
        }
    }
}

/// Takes what the guest has printed on its ports.
pub(super) fn drain(session: &Session, output: &mut Capture) {
    for (number, port) in session.inner.serials.iter().enumerate() {
        let Some(port) = port else { continue };
        match number {
            0 => output.push_from(FrameSource::Serial, &port.take_written()),
            _ => output.push(&port.take_written()),
        }
    }
    if let Some(console) = &session.inner.semihosting {
        output.push_from(FrameSource::Semihosting, &console.take_written());
    }
    let Ok(status) = session.rtt_status() else {
        return;
    };
    let ups = || status.channels.iter().filter(|channel| channel.is_up);
    let named = ups().find(|channel| channel.name.as_deref() == Some("defmt"));
    let of_frames = named.map_or(0, |channel| channel.number);
    for channel in ups() {
        let Ok(port) = session.rtt(channel.number) else {
            continue;
        };
        match channel.number == of_frames {
            true => output.push_from(FrameSource::Rtt, &port.take_written()),
            false => output.push(&port.take_written()),
        }
    }
}
