//! `run`: from the arguments to the exit status.

use std::future::pending;
use std::ops::ControlFlow;
use std::time::Instant;

use qemu_controller::{Endpoint, QemuConfig, Session, StartError, Verdict};
use serde_json::json;
use tokio::net::unix::pipe;

use crate::args::Run;
use crate::bundle::Bundling;
use crate::config_file;
use crate::coverage::{self, Runs};
use crate::debug::Slot;
use crate::debugger;
use crate::expectation::Expectation;
use crate::failure::Failure;
use crate::input::{self, Input, Stdin};
use crate::limit::Limit;
use crate::logs::Logs;
use crate::machine::{self, Streams};
use crate::not_started;
use crate::outcome::{OWN_FAILURE, Outcome};
use crate::output::{Output, Phase};
use crate::reporter::Reporter;
use crate::running::{Debuggers, Running};
use crate::runtime;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::test_run::{self, Work};

/// Runs it all; the exit status.
pub(crate) fn run(run: Run) -> u8 {
    let since = Instant::now();
    let (reporter, outcome) = match Reporter::new(run.json.as_deref(), &run.inputs()) {
        Ok(reporter) => {
            let outcome = outcome(&run, &reporter, since);
            (reporter, outcome.unwrap_or_else(Outcome::Failed))
        }
        Err(failure) => match Reporter::new(None, &[]) {
            Ok(reporter) => (reporter, Outcome::Failed(failure)),
            // Without a thread for stderr there is nobody to say so.
            Err(_) => return OWN_FAILURE,
        },
    };
    let expecting = run.expect.is_some() || run.expect_regex.is_some();
    reporter.end(&outcome, expecting, since.elapsed())
}

fn outcome(run: &Run, reporter: &Reporter, since: Instant) -> Result<Outcome, Failure> {
    let folder = std::env::current_dir().map_err(Failure::Folder)?;
    let file = config_file::settings(run.config.as_deref(), &folder, reporter)?;
    let settings = run.settings.clone().or(file);
    let settings = machine::fitting(settings, run, reporter)?;
    match test_run::of(run, &settings, reporter)? {
        Work::Tests(tests) => runtime::block_on(test_run::run(run, &settings, reporter, tests)),
        Work::Plain => runtime::block_on(plain(run, &settings, reporter, since)),
        Work::Debug(test) => {
            let mut run = run.clone();
            run.test = Some(test);
            runtime::block_on(plain(&run, &settings, reporter, since))
        }
    }
}

async fn plain(
    run: &Run,
    settings: &Settings,
    reporter: &Reporter,
    since: Instant,
) -> Result<Outcome, Failure> {
    // First of all: from here on a signal ends the run in order.
    let mut signals = Signals::listen().map_err(Failure::system("listen to signals"))?;
    in_qemu(run, settings, reporter, since, &mut signals, None).await
}

/// One machine, from its start to its end; with `slot` it is one of those of `debug`.
pub(crate) async fn in_qemu(
    run: &Run,
    settings: &Settings,
    reporter: &Reporter,
    since: Instant,
    signals: &mut Signals,
    slot: Option<&Slot>,
) -> Result<Outcome, Failure> {
    let bundling = Bundling::of(run, settings).filter(|_| slot.is_none());
    let limit = Limit::new(settings, since);
    let expected = Expectation::of(run)?;
    let expecting = expected.is_some();
    let (around, config) = Around::new(run, settings, reporter, expected, bundling.as_ref())?;
    let Around {
        output,
        logs,
        coverage,
        tt,
    } = around;
    let session = match start(run, settings, reporter, config, &output, limit, signals).await? {
        ControlFlow::Continue(session) => session,
        ControlFlow::Break(outcome) => return Ok(outcome),
    };
    output.begin()?;
    let coverage = coverage.map(|report| (report, coverage::Report::read_lines(&session)));
    announce(run, &session, reporter)?;
    let debuggers = tokio::select! {
        debuggers = debuggers(run, settings, &session, reporter, slot) => debuggers?,
        signal = signals.next() => return Ok(Outcome::Interrupted { signal, place: None }),
    };
    let stdin = slot.map_or_else(Stdin::default, Slot::stdin);
    let input = Input::start(&session, tt, settings.newline, output.go(), stdin)
        .map_err(Failure::system("start a thread for stdin"))?;
    let running = Running {
        run,
        session: &session,
        reporter,
        output: &output,
        logs: &logs,
        limit,
        on_fault: settings.on_fault(run.is_kernel()),
        bundling: bundling.as_ref(),
    };
    let outcome = running.to_its_end(signals, input, expecting, debuggers);
    let outcome = outcome.await;
    if let (Some(bundling), Ok(outcome)) = (&bundling, &outcome) {
        bundling.before_the_end(&session, outcome).await;
    }
    session.stop().await?;
    let mut outcome = running.finish_output(outcome?, signals).await?;
    if let Some(words) = may_not_have_run(run, &outcome) {
        let object = json!({ "event": "may-not-have-run", "message": words });
        reporter.say(Some(&words), &object)?;
    }
    if let Some((report, lines)) = coverage {
        let name = test_run::firmware_name(run.firmware.as_deref());
        let executed = session.executed_code();
        let runs = executed.map(|executed| Runs::of_one_test(name, executed));
        outcome = report.finish(runs, lines, outcome, reporter).await?;
    }
    if let Some(bundling) = &bundling {
        let written = bundling.finish(run, settings, &session, &outcome, reporter);
        tokio::select! {
            written = written => written?,
            // Nothing half is left.
            _ = signals.next() => {}
        }
    }
    Ok(outcome)
}

/// What is to be said of a raw image where a core has come to what is no code: by itself, or since
/// it began there. At 0 an Arm core does begin.
fn may_not_have_run(run: &Run, outcome: &Outcome) -> Option<String> {
    let address = run.raw.filter(|address| *address != 0)?;
    let Outcome::Ended { report, .. } = outcome else {
        return None;
    };
    let has_no_code = match &report.verdict {
        Verdict::TimedOut(hang) => hang.no_code,
        Verdict::Faulted(core) => {
            let instruction = core.fault.as_ref()?.instruction.as_deref();
            instruction.is_none_or(|digits| digits.bytes().all(|digit| digit == b'0'))
        }
        _ => false,
    };
    has_no_code.then(|| {
        format!(
            "the image was loaded at {address:#x}, which does not make the CPU begin there: the \
             board says where it begins, and the image may never have run"
        )
    })
}

/// What is around a machine before it is started.
struct Around {
    output: Output,
    logs: Logs,
    coverage: Option<coverage::Report>,
    /// Where the file `:tt` reads from.
    tt: pipe::Sender,
}

impl Around {
    /// Opens what is written, and says how the machine is connected to it.
    fn new(
        run: &Run,
        settings: &Settings,
        reporter: &Reporter,
        expected: Option<Expectation>,
        bundling: Option<&Bundling>,
    ) -> Result<(Self, QemuConfig), Failure> {
        let send_after = run.send_after.as_deref();
        let send_after = send_after.map(Expectation::text).transpose()?;
        let mut others = run.inputs_and_json();
        let logs = Logs::of(run)?;
        let (output, stdout) = Output::new(
            settings.log.as_deref(),
            &others,
            expected,
            send_after,
            reporter.in_a_line(),
            logs.console(),
            bundling.map(|bundling| bundling.output.clone()),
        )?;
        others.extend(settings.log.as_deref().map(|log| (log, "the log")));
        let coverage = coverage::Report::open(run, &others)?;
        let (tt, stdin) = input::tt().map_err(Failure::system("make a pipe"))?;
        let config = machine::config(run, settings, Streams { stdin, stdout }, &logs)?;
        let config = match bundling {
            Some(bundling) => bundling.config(config),
            None => config,
        };
        let around = Self {
            output,
            logs,
            coverage,
            tt,
        };
        Ok((around, config))
    }
}

/// Starts the machine; an outcome where that is all there is to the run.
async fn start(
    run: &Run,
    settings: &Settings,
    reporter: &Reporter,
    config: QemuConfig,
    output: &Output,
    limit: Limit,
    signals: &mut Signals,
) -> Result<ControlFlow<Outcome, Session>, Failure> {
    // With a debugger, who takes his time, it counts once he has left.
    let limit_of_start = match run.gdb {
        Some(_) => Limit::none(),
        None => limit,
    };
    let started = tokio::select! {
        started = limit_of_start.wait_for(Session::start(config)) => started,
        // A start that is given up leaves no process.
        signal = signals.next() => {
            return Ok(ControlFlow::Break(Outcome::Interrupted { signal, place: None }));
        }
        outcome = print_list(output, reporter) => return outcome.map(ControlFlow::Break),
    };
    match started {
        Some(Ok(session)) => Ok(ControlFlow::Continue(session)),
        Some(Err(StartError::Exited { exit, .. }))
            if exit.success() && machine::asks_for_list(run, settings) =>
        {
            let listed = finish_list(output, reporter, limit, signals).await?;
            Ok(ControlFlow::Break(listed))
        }
        Some(Err(error)) => Err(not_started::explain(error, run, settings)),
        None => {
            let words = limit.words("QEMU was still starting");
            Ok(ControlFlow::Break(Outcome::TimedOut(words)))
        }
    }
}

/// Prints the rest of what QEMU was asked for in place of a run.
async fn finish_list(
    output: &Output,
    reporter: &Reporter,
    limit: Limit,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    output.enter(Phase::Ended);
    let all = async {
        output.print(reporter).await?;
        output.finish(None).await
    };
    let printed = tokio::select! {
        printed = limit.wait_for(all) => printed,
        _ = signals.next() => None,
    };
    match printed {
        Some(Err(cut)) => cut.outcome(),
        _ => Ok(Outcome::Listed),
    }
}

/// Prints what QEMU was asked for in place of a run (`-machine help`): nothing else comes before it
/// is ready.
async fn print_list(output: &Output, reporter: &Reporter) -> Result<Outcome, Failure> {
    match output.print(reporter).await {
        Ok(()) => pending().await,
        Err(cut) => cut.outcome(),
    }
}

/// Says how the firmware is run, where that was asked for.
fn announce(run: &Run, session: &Session, reporter: &Reporter) -> Result<(), Failure> {
    match session.process().filter(|_| run.verbose) {
        Some(process) => {
            let command_line = process.argv().to_string();
            let object = json!({ "event": "start", "command_line": command_line });
            reporter.say(Some(&command_line), &object)
        }
        None => Ok(()),
    }
}

/// Lets debuggers in where the firmware waits for one, and says where.
async fn debuggers<'a>(
    run: &Run,
    settings: &Settings,
    session: &Session,
    reporter: &Reporter,
    slot: Option<&'a Slot>,
) -> Result<Debuggers<'a>, Failure> {
    match (slot, &run.gdb) {
        (Some(slot), _) => {
            let hand_over = debugger::wait(session, &Endpoint::PrivateSocket, None).await?;
            slot.is_up(session, hand_over.address());
            Ok(Debuggers::Served(hand_over, slot))
        }
        (None, Some(endpoint)) => {
            let hand_over = debugger::wait(session, endpoint, run.test.as_ref()).await?;
            debugger::announce(settings, &hand_over, run.test.as_ref(), reporter)?;
            Ok(Debuggers::Direct(hand_over))
        }
        (None, None) => Ok(Debuggers::None),
    }
}
