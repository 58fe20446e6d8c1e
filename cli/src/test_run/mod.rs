//! A firmware that has tests: lists and runs them as Rust's own test programs do, so that Cargo,
//! nextest and editors need to know nothing of QEMU.

mod json;
mod junit;
mod kept;
mod kind;
mod live;
mod options;
mod pretty;
mod progress;
mod report;
mod select;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use qemu_controller::testing::{
    self, FirmwareTests, PrintedTests, Progress, TestCase, TestResult, TestRun, TestRunError,
};
use serde_json::json;

use crate::args::Run;
use crate::bundle;
use crate::coverage::{self, Runs};
use crate::escape;
use crate::failure::Failure;
use crate::logs::Logs;
use crate::machine;
use crate::not_started;
use crate::outcome::Outcome;
use crate::reporter::Reporter;
use crate::settings::{SemihostingMode, Settings, Timeout};
use crate::signals::Signals;
use crate::writer::Writer;
use crate::written;
pub(crate) use kept::target_folder;
pub(crate) use kind::TestKind;
use live::LiveOutput;
use options::Options;
pub(crate) use options::first_among as test_option_among;
use report::{MOST_BACKLOG, Report};
use select::Selection;

/// Of how many failed tests a run writes bundles.
const MOST_BUNDLES: usize = 10;

/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);

/// What a firmware is run for.
pub(crate) enum Work {
    /// What it does by itself.
    Plain,
    Tests(FirmwareTests),
    /// A debugger is to have this test of it.
    Debug(TestCase),
}

/// What the firmware is to be run for. It is no run for tests where something is expected of a plain
/// one, and under a debugger one for a test that is named.
pub(crate) fn of(run: &Run, settings: &Settings, reporter: &Reporter) -> Result<Work, Failure> {
    let is_plain = run.raw.is_some()
        || run.expect.is_some()
        || run.expect_regex.is_some()
        || run.send_after.is_some()
        || machine::asks_for_list(run, settings);
    let Some(firmware) = run.firmware.as_deref() else {
        return Ok(Work::Plain);
    };
    if is_plain {
        return Ok(Work::Plain);
    }
    match TestKind::find(run.tests, firmware).map_err(Failure::Tests)? {
        Some(tests) if run.gdb.is_none() => Ok(Work::Tests(tests)),
        Some(FirmwareTests::Listed(tests)) if !run.arguments.is_empty() => {
            to_debug(tests, run, settings)
        }
        None if run.tests.is_none() => {
            if let Some(option) = options::first_among(&run.arguments) {
                let words = format!(
                    "{option} went to the firmware, as its command line: its ELF file shows no tests; \
                     --tests says which it has, and --tests=one takes it for one test"
                );
                let object = json!({ "event": "no-tests", "option": option });
                reporter.say_at_the_end(words, &object)?;
            }
            Ok(Work::Plain)
        }
        _ => Ok(Work::Plain),
    }
}

/// The one test that the words name.
fn to_debug(tests: Vec<TestCase>, run: &Run, settings: &Settings) -> Result<Work, Failure> {
    let options = parse(run)?;
    if options.list {
        return Ok(Work::Tests(FirmwareTests::Listed(tests)));
    }
    // A whole name is meant, also where others begin so, or it is one to be ignored.
    let is_named = |test: &&TestCase| options.filters.contains(&test.name);
    let named: Vec<_> = tests.iter().filter(is_named).cloned().collect();
    let mut found = match named.len() {
        1 => named,
        _ => Selection::new(tests, &options).to_run(),
    };
    let refused = |why: String| Err(Failure::Usage(why));
    if settings.semihosting() == SemihostingMode::Off {
        return refused(
            "a test is chosen by semihosting, which --semihosting=off denies".to_owned(),
        );
    }
    match (found.pop(), found.len()) {
        (Some(test), 0) => Ok(Work::Debug(test)),
        (None, _) => refused("--gdb holds a test, and none has these words in its name".to_owned()),
        (Some(_), others) => refused(format!(
            "--gdb holds one test, and {} have these words in their names: give one name whole; \
             --tests=none holds the firmware at its start",
            others + 1
        )),
    }
}

/// The words after FIRMWARE.
fn parse(run: &Run) -> Result<Options, Failure> {
    let options = Options::parse(&run.arguments);
    options.map_err(|error| Failure::Usage(error.render().to_string()))
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

/// Lists or runs them.
pub(crate) async fn run(
    run: &Run,
    settings: &Settings,
    reporter: &Reporter,
    tests: FirmwareTests,
) -> Result<Outcome, Failure> {
    let options = match Options::parse(&run.arguments) {
        Ok(options) => options,
        Err(error) if error.exit_code() == 0 => {
            return print(error.render().to_string()).await;
        }
        Err(error) => return Err(Failure::Usage(error.render().to_string())),
    };
    let running = TestsRun {
        run,
        settings,
        reporter,
        options: &options,
        logs: Logs::of(run)?,
        runs: RefCell::default(),
    };
    let signals = Signals::listen().map_err(Failure::system("listen to signals"))?;
    let coverage = match options.list {
        true => None,
        false => coverage::Report::open(run, &others(run, settings))?,
    };
    let coverage = coverage.map(|report| (report, coverage::Report::read_lines_of_tests(run)));
    let outcome = match tests {
        FirmwareTests::Listed(tests) => running.listed(tests, signals).await,
        FirmwareTests::Printed(kind) => running.printed(kind, signals).await,
    };
    match coverage {
        Some((report, lines)) => {
            let runs = running.runs.take();
            report.finish(Ok(runs), lines, outcome?, reporter).await
        }
        None => outcome,
    }
}

/// Prints a text, and waits until somebody has taken it.
async fn print(text: String) -> Result<Outcome, Failure> {
    let stdout = stdout()?;
    stdout.send(text.as_bytes());
    Ok(finished(&stdout).await?.unwrap_or(Outcome::Listed))
}

/// What is run, and how.
struct TestsRun<'a> {
    run: &'a Run,
    settings: &'a Settings,
    reporter: &'a Reporter,
    options: &'a Options,
    /// How what they log is read.
    logs: Logs,
    /// What ran, where that is recorded.
    runs: RefCell<Runs>,
}

impl TestsRun<'_> {
    async fn listed(&self, tests: Vec<TestCase>, mut signals: Signals) -> Result<Outcome, Failure> {
        let selection = Selection::new(tests, self.options);
        if self.options.list {
            return print(selection.list(self.options)).await;
        }
        let since = Instant::now();
        let stdout = stdout()?;
        let log = log(self.run, self.settings)?;
        let report = Report::new(self.options, &selection, &stdout, log.as_ref(), since);
        let report = RefCell::new(report);
        let tests = selection.to_run();
        report.borrow_mut().begin();
        let mut isolation = self.run.isolation.unwrap_or_default();
        loop {
            let test_run = self.test_run()?.isolation(isolation.into());
            let running = test_run.run(&tests, |progress| match progress {
                Progress::Started(index) => report.borrow_mut().started(index),
                Progress::Output(index, bytes) => report.borrow_mut().output(index, bytes),
                Progress::Finished(index, result) => {
                    if let Some(executed) = &result.executed {
                        let name = tests[index].name.clone();
                        let mut runs = self.runs.borrow_mut();
                        runs.tests.insert(name, executed.clone());
                    }
                    report.borrow_mut().finished(index, result);
                    self.say_bundle(result);
                }
                Progress::Executed(executed) => self.runs.borrow_mut().others.merge(executed),
                _ => {}
            });
            tokio::pin!(running);
            let ended = loop {
                tokio::select! {
                    ended = &mut running => break ended,
                    signal = signals.next() => {
                        report.borrow_mut().cut_short();
                        return Ok(interrupted(signal));
                    }
                    error = stdout.failed() => return closed(error),
                    () = tokio::time::sleep(TICK) => report.borrow_mut().tick(),
                }
            };
            match ended {
                Ok(_) => break,
                // This machine cannot be saved, which is known before the first test.
                Err(TestRunError::Snapshot(error)) if self.run.isolation.is_none() => {
                    isolation = Isolation::Boot;
                    let why = error.to_string();
                    let words = format!("each test gets a machine that boots: {why}");
                    let object = json!({ "event": "isolation", "isolation": "boot", "why": why });
                    self.reporter.say(Some(&words), &object)?;
                }
                Err(error) => return Err(self.explain(error)),
            }
        }
        self.end(report.into_inner(), &stdout, log.as_ref()).await
    }

    /// Of a firmware whose tests are known once it has run.
    async fn printed(&self, kind: PrintedTests, mut signals: Signals) -> Result<Outcome, Failure> {
        if kind == PrintedTests::Defmt && !self.logs.decodes() {
            let why = "the results of its tests are logged by defmt, which is not decoded here";
            return Err(Failure::Usage(why.to_owned()));
        }
        let name = firmware_name(self.run.firmware.as_deref());
        if kind == PrintedTests::One {
            let selection = Selection::new(vec![TestCase::named(&name)], self.options);
            if self.options.list {
                return print(selection.list(self.options)).await;
            }
            if selection.to_run().is_empty() {
                return self.listed(vec![TestCase::named(&name)], signals).await;
            }
        }
        let since = Instant::now();
        let stdout = stdout()?;
        let test_run = self.test_run()?;
        // Which of them ran what nobody knows: the firmware is one.
        let is_live = self.options.shows_live();
        let live = RefCell::new(LiveOutput::default());
        let progress = |progress: Progress<'_>| match progress {
            Progress::Executed(executed) => {
                *self.runs.borrow_mut() = Runs::of_one_test(name.clone(), executed.clone());
            }
            Progress::Output(_, bytes) if is_live && stdout.backlog() < MOST_BACKLOG => {
                let text = live.borrow_mut().push(&name, bytes, true);
                stdout.send(text.as_bytes());
            }
            _ => {}
        };
        let ended = tokio::select! {
            ended = test_run.run_printed(kind, &name, progress) => ended,
            signal = signals.next() => return Ok(interrupted(signal)),
            error = stdout.failed() => return closed(error),
        };
        stdout.send(live.borrow_mut().finish(&name).as_bytes());
        let (tests, results): (Vec<_>, Vec<_>) = ended
            .map_err(|error| self.explain(error))?
            .into_iter()
            .unzip();
        // As they are shown.
        let names = tests.iter().map(|test| escape::line(&test.name));
        let by_name = names.zip(results);
        let by_name: HashMap<_, TestResult> = by_name.collect();
        let selection = Selection::new(tests, self.options);
        if self.options.list {
            return print(selection.list(self.options)).await;
        }
        let log = log(self.run, self.settings)?;
        let mut report = Report::new(self.options, &selection, &stdout, log.as_ref(), since);
        report.begin();
        for (index, test) in selection.to_run().iter().enumerate() {
            report.started(index);
            report.finished(index, &by_name[&test.name]);
            self.say_bundle(&by_name[&test.name]);
        }
        self.end(report, &stdout, log.as_ref()).await
    }

    fn say_bundle(&self, result: &TestResult) {
        if let Some(written) = &result.bundle {
            // What cannot be written, the end says.
            let _ = bundle::say(written, self.reporter);
        }
    }

    fn test_run(&self) -> Result<TestRun, Failure> {
        let config = machine::config_for_tests(self.run, self.settings, &self.logs)?;
        let mut test_run = self.logs.of_tests(TestRun::new(config));
        if let Some(threads) = self.options.test_threads {
            test_run = test_run.threads(threads);
        }
        if let Some(Timeout::After(timeout)) = self.settings.timeout {
            test_run = test_run.deadline(timeout);
        }
        if self.settings.bundle().is_some() {
            let folder = bundle::folder(self.run.firmware.as_deref(), self.settings);
            test_run = test_run.bundles(folder, MOST_BUNDLES);
        }
        if let Some(path) = kept::path(self.run, self.settings) {
            test_run = test_run.keep_state(path, kept::SLOW_BOOT);
        }
        Ok(test_run)
    }

    /// Says how it went, once all is written.
    async fn end(
        &self,
        report: Report<'_>,
        stdout: &Writer,
        log: Option<&Writer>,
    ) -> Result<Outcome, Failure> {
        let failed = report.end();
        if let Some(log) = log {
            log.flush(None).await;
            if let (Some(source), Some(path)) = (log.error(), self.settings.log.clone()) {
                return Err(Failure::Log { path, source });
            }
        }
        Ok(match finished(stdout).await? {
            Some(outcome) => outcome,
            None => Outcome::Tested { failed },
        })
    }

    fn explain(&self, error: TestRunError) -> Failure {
        match error {
            TestRunError::Start(error) => not_started::explain(error, self.run, self.settings),
            error => Failure::TestRun(error),
        }
    }
}

/// The files that coverage must not be written over.
fn others<'a>(run: &'a Run, settings: &'a Settings) -> Vec<(&'a Path, &'static str)> {
    let mut others = run.inputs_and_json();
    others.extend(settings.log.as_deref().map(|log| (log, "the log")));
    others
}

fn interrupted(signal: u8) -> Outcome {
    let place = None;
    Outcome::Interrupted { signal, place }
}

/// The firmware's name as a test: without the folder, and without the hash that Cargo appends.
pub(crate) fn firmware_name(path: Option<&Path>) -> String {
    let path = path.unwrap_or(Path::new(""));
    let name = path.file_stem().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy();
    match name.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name.to_owned()
        }
        _ => name.into_owned(),
    }
}

/// `--log`: it gets what each test prints, whether that is shown or not.
fn log(run: &Run, settings: &Settings) -> Result<Option<Writer>, Failure> {
    let Some(path) = settings.log.clone() else {
        return Ok(None);
    };
    let mut others = run.inputs_and_json();
    let written = [
        (&run.coverage, "what --coverage writes"),
        (&run.coverage_by_test, "what --coverage-by-test writes"),
    ];
    others.extend(
        written
            .into_iter()
            .filter_map(|(path, what)| Some((path.as_deref()?, what))),
    );
    let opened = written::open(&path, &others).and_then(|file| {
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
