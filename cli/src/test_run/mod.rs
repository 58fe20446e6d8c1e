//! A firmware that has tests: lists and runs them as Rust's own test programs do, so that Cargo,
//! nextest and editors need to know nothing of QEMU.

mod json;
mod junit;
mod options;
mod pretty;
mod report;
mod select;

use std::path::Path;

use qemu_controller::testing::{self, Progress, TestCase, TestRun, TestRunError, embedded_tests};
use tokio::runtime::Runtime;

use crate::args::Run;
use crate::machine;
use crate::report::{Failure, Outcome};
use crate::settings::{Settings, Timeout};
use crate::signals::Signals;
use crate::writer::Writer;
use crate::written;
use options::Options;
use report::Report;
use select::Selection;

/// The tests of the firmware, where it is to be run for them: not under a debugger, and not where
/// something is expected of a plain run.
pub(crate) fn of(run: &Run, settings: &Settings) -> Result<Option<Vec<TestCase>>, Failure> {
    let is_plain = run.gdb.is_some()
        || run.raw.is_some()
        || run.expect.is_some()
        || run.expect_regex.is_some()
        || run.send_after.is_some()
        || machine::asks_for_list(run, settings);
    let firmware = run.firmware.as_deref().filter(|firmware| is_elf(firmware));
    let Some(firmware) = firmware.filter(|_| !is_plain && run.tests != Some(Kind::None)) else {
        return Ok(None);
    };
    embedded_tests(firmware).map_err(Failure::Tests)
}

/// What kind of tests a firmware has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `embedded-test` binaries, known by a section of their ELF file
    EmbeddedTest,
    /// None: what follows FIRMWARE is the firmware's command line
    None,
}

/// How tests are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Isolation {
    /// One machine for many tests, restored before each
    #[default]
    Restore,
    /// A machine for each test, which continues from one that booted
    Fork,
    /// A machine for each test, which boots
    Boot,
}

impl From<Isolation> for testing::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Restore => Self::Restore,
            Isolation::Fork => Self::Fork,
            Isolation::Boot => Self::Boot,
        }
    }
}

/// What is no ELF file has no list of tests; whether it is a firmware at all is asked later.
fn is_elf(path: &Path) -> bool {
    matches!(
        qemu_controller::qemu_launch::Format::of(path),
        Ok(qemu_controller::qemu_launch::Format::Elf)
    )
}

/// Lists or runs them.
pub(crate) fn run(
    run: &Run,
    settings: &Settings,
    tests: Vec<TestCase>,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    if run.coverage.is_some() {
        let why = "--coverage is of a plain run: give one test's words after --tests=none";
        return Err(Failure::TestOptions(why.to_owned()));
    }
    let options = match Options::parse(&run.arguments) {
        Ok(options) => options,
        Err(error) if error.exit_code() == 0 => {
            return runtime.block_on(print(error.render().to_string()));
        }
        Err(error) => return Err(Failure::TestOptions(error.render().to_string())),
    };
    let selection = Selection::new(tests, &options);
    if options.list {
        return runtime.block_on(print(selection.list(&options)));
    }
    runtime.block_on(run_selection(run, settings, &options, selection))
}

/// Prints a text, and waits until somebody has taken it.
async fn print(text: String) -> Result<Outcome, Failure> {
    let stdout = stdout()?;
    stdout.send(text.as_bytes());
    Ok(finished(&stdout).await?.unwrap_or(Outcome::Listed))
}

async fn run_selection(
    run: &Run,
    settings: &Settings,
    options: &Options,
    selection: Selection,
) -> Result<Outcome, Failure> {
    let mut signals = Signals::listen().map_err(Failure::system("listen to signals"))?;
    let stdout = stdout()?;
    let log = log(run, settings)?;
    let mut report = Report::new(options, &selection, &stdout, log.as_ref());
    let tests = selection.to_run();
    let mut test_run = TestRun::new(machine::config_for_tests(run, settings)?)
        .isolation(run.isolation.unwrap_or_default().into());
    if let Some(threads) = options.test_threads {
        test_run = test_run.threads(threads);
    }
    if let Some(Timeout::After(timeout)) = settings.timeout {
        test_run = test_run.deadline(timeout);
    }
    report.begin();
    let running = test_run.run(&tests, |progress| match progress {
        Progress::Started(index) => report.started(index),
        Progress::Finished(index, result) => report.finished(index, result),
        _ => {}
    });
    let ended = tokio::select! {
        ended = running => ended,
        signal = signals.next() => return Ok(Outcome::Interrupted { signal, place: None }),
        error = stdout.failed() => return closed(error),
    };
    if let Err(error) = ended {
        return Err(match error {
            TestRunError::Start(error) => machine::explain(error, run, settings),
            error => Failure::TestRun(error),
        });
    }
    let failed = report.end();
    if let Some(log) = &log {
        log.flush(None).await;
        if let (Some(source), Some(path)) = (log.error(), settings.log.clone()) {
            return Err(Failure::Log { path, source });
        }
    }
    Ok(match finished(&stdout).await? {
        Some(outcome) => outcome,
        None => Outcome::Tested { failed },
    })
}

/// `--log`: it gets what each test prints, whether that is shown or not.
fn log(run: &Run, settings: &Settings) -> Result<Option<Writer>, Failure> {
    let Some(path) = settings.log.clone() else {
        return Ok(None);
    };
    let opened = written::open(&path, &run.inputs()).and_then(|file| {
        written::empty(&file)?;
        Writer::file("log", file)
    });
    opened
        .map(Some)
        .map_err(|source| Failure::Log { path, source })
}

fn stdout() -> Result<Writer, Failure> {
    Writer::stdout().map_err(Failure::system("start a thread for stdout"))
}

/// Waits until stdout has taken all; what became of the run where it cannot.
async fn finished(stdout: &Writer) -> Result<Option<Outcome>, Failure> {
    stdout.flush(None).await;
    match stdout.error() {
        None => Ok(None),
        Some(error) => closed(error).map(Some),
    }
}

fn closed(error: std::io::Error) -> Result<Outcome, Failure> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(Outcome::StdoutClosed),
        _ => Err(Failure::Stdout(error)),
    }
}
