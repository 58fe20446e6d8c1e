//! `run`: from the arguments to the exit status.

use std::io::Write as _;
use std::time::{Duration, Instant};

use qemu_controller::gdb_port::StubAddress;
use qemu_controller::qemu_launch::Lines;
use qemu_controller::{Serial, Session, Verdict};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::Run;
use crate::config_file;
use crate::expectation::Expectation;
use crate::input;
use crate::machine;
use crate::output::{Cut, Output, ports};
use crate::report::{Failure, Outcome, Reporter};
use crate::settings::{Settings, Timeout};
use crate::signals::Signals;

/// How long what QEMU wrote to stderr is waited for when it is gone; it is there already.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs it all; the exit status.
pub(crate) fn run(run: Run) -> u8 {
    let since = Instant::now();
    let (mut reporter, wrong) = match Reporter::new(run.json.as_deref()) {
        Ok(reporter) => (reporter, None),
        Err(failure) => (Reporter::Words, Some(failure)),
    };
    let outcome = match wrong {
        Some(failure) => Outcome::Failed(failure),
        None => outcome(&run, &mut reporter).unwrap_or_else(Outcome::Failed),
    };
    reporter.end(&outcome, since.elapsed())
}

fn outcome(run: &Run, reporter: &mut Reporter) -> Result<Outcome, Failure> {
    let folder = std::env::current_dir().map_err(Failure::Folder)?;
    let settings = run
        .settings
        .clone()
        .or(config_file::settings(run.config.as_deref(), &folder)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            what: "set up the async runtime",
            source,
        })?;
    let outcome = runtime.block_on(in_qemu(run, &settings, reporter));
    // A write to a stdout that nobody reads may hang for ever.
    runtime.shutdown_background();
    outcome
}

async fn in_qemu(
    run: &Run,
    settings: &Settings,
    reporter: &mut Reporter,
) -> Result<Outcome, Failure> {
    // First of all: from here on a signal ends the run in order.
    let mut signals = Signals::listen().map_err(|source| Failure::System {
        what: "listen to signals",
        source,
    })?;
    let expectation = Expectation::of(run)?;
    let config = machine::config(run, settings)?;
    let output = Output::new(settings.log.as_deref(), expectation.clone())?;
    let session = tokio::select! {
        started = Session::start(config) => started.map_err(|error| machine::explain(error, settings))?,
        // A start that is given up leaves no process.
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
    };
    let listening = announce(run, &session, reporter)?;
    let input = input::stdin(settings.newline).map_err(|source| Failure::System {
        what: "start a thread for stdin",
        source,
    })?;
    let sending = session
        .serial(0)
        .cloned()
        .map(|serial| tokio::spawn(send(input, serial)));
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Outcome::Interrupted(signal),
        outcome = to_its_end(run, settings, &session, &output, expectation.is_some()) => outcome?,
    };
    if let Some(sending) = sending {
        sending.abort();
    }
    session.stop().await?;
    if let Some(listening) = listening {
        // Its last words; there are no more once it is gone, unless it left a child that holds its
        // stderr.
        let _ = timeout(LAST_WORDS, listening).await;
    }
    warn_of_lost_output(&session, reporter)?;
    Ok(outcome)
}

/// Says how the firmware is run, where that was asked for, and where a debugger finds it. What QEMU
/// writes is then followed by the task that is returned.
fn announce(
    run: &Run,
    session: &Session,
    reporter: &mut Reporter,
) -> Result<Option<JoinHandle<()>>, Failure> {
    let mut listening = None;
    if let Some(process) = session.process().filter(|_| run.verbose) {
        let command_line = process.argv().to_string();
        reporter.say(
            Some(&command_line),
            &json!({ "event": "start", "command_line": command_line }),
        )?;
        if reporter.speaks_in_words() {
            listening = Some(tokio::spawn(repeat(process.stderr_lines())));
        }
    }
    if let Some(gdb) = session.gdb() {
        let attach = attach_line(run, gdb);
        let words = format!(
            "the firmware waits for a debugger; attach one with\n\n    {attach}\n\nand let it `continue`"
        );
        reporter.say(
            Some(&words),
            &json!({ "event": "gdb", "address": gdb.to_string(), "attach": attach }),
        )?;
    }
    Ok(listening)
}

async fn repeat(mut lines: Lines) {
    while let Some(line) = lines.next_line().await {
        // There is nowhere to complain of a stderr that is closed.
        let _ = writeln!(std::io::stderr(), "{}", line.text);
    }
}

/// The line that attaches a debugger, as a shell takes it.
fn attach_line(run: &Run, gdb: &StubAddress) -> String {
    let address = gdb.to_string();
    // GDB knows a socket by its path alone.
    let address = address.strip_prefix("unix:").unwrap_or(&address);
    let firmware = run.firmware.to_string_lossy();
    let target = format!("target remote {address}");
    shlex::try_join(["gdb-multiarch", "-q", &firmware, "-ex", &target]).unwrap_or(target)
}

/// Runs the firmware and prints what it prints, until both are at their end or the output is cut.
async fn to_its_end(
    run: &Run,
    settings: &Settings,
    session: &Session,
    output: &Output,
    expecting: bool,
) -> Result<Outcome, Failure> {
    let verdict = async {
        let verdict = verdict(run, settings, session).await;
        // QEMU goes, so that the ports are closed and what they hold is all there will be.
        session
            .stop()
            .await
            .map_err(|error| Cut::Failed(error.into()))?;
        Ok(verdict)
    };
    match tokio::try_join!(output.print(session), verdict) {
        Ok(((), verdict)) => Ok(Outcome::Ended {
            verdict,
            unmet: expecting,
        }),
        Err(Cut::Met) => Ok(Outcome::Met),
        Err(Cut::StdoutClosed) => Ok(Outcome::StdoutClosed),
        Err(Cut::Failed(failure)) => Err(failure),
    }
}

async fn verdict(run: &Run, settings: &Settings, session: &Session) -> Verdict {
    match settings.timeout {
        // The debugger lets it run, and takes its time.
        _ if run.gdb.is_some() => session.wait().await,
        Some(Timeout::After(deadline)) => session.run_to_end(deadline).await,
        Some(Timeout::None) | None => session.run_to_end(Duration::MAX).await,
    }
}

/// Passes on what is typed. The end of the input is not the end of the run, nor is a firmware that
/// reads none.
async fn send(mut input: mpsc::Receiver<Vec<u8>>, serial: Serial) {
    while let Some(bytes) = input.recv().await {
        if serial.write(&bytes).await.is_err() {
            return;
        }
    }
}

fn warn_of_lost_output(session: &Session, reporter: &mut Reporter) -> Result<(), Failure> {
    let lost: u64 = ports(session).iter().flatten().map(Serial::dropped).sum();
    if lost == 0 {
        return Ok(());
    }
    let words = format!(
        "{lost} bytes that the firmware printed are lost: stdout did not take them in time"
    );
    reporter.say(Some(&words), &json!({ "event": "lost", "bytes": lost }))
}
