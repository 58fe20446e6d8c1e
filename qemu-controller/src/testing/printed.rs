//! Tests that a firmware runs by itself, one after the other, and whose results it prints: their
//! names are known when it has run.

use std::time::{Duration, Instant};

use firmware_info::Architecture;
use tokio::sync::mpsc;

use super::TestCase;
use super::bundles::Bundles;
use super::capture::{Capture, Live};
use super::embedded_test::make_distinct;
use super::lines::unity_name;
use super::machine::{LOOK, drain};
use super::outcome::{Failure, Outcome, TestResult};
use super::reader::Reader;
use super::run::{Event, Progress, TestRun, TestRunError};
use crate::bundle::{MomentKind, Recorder};
use crate::session::Session;
use crate::source::RunReport;

/// A firmware that has run all its tests, and prints nothing for so long, has come to its end.
const SILENCE: Duration = Duration::from_secs(1);

/// A name of a test is not longer, in bytes.
const LONGEST_NAME: usize = 1024;

/// How a firmware prints the results of its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrintedTests {
    /// Not at all: the firmware is one test, which passes if it exits with status 0.
    One,
    /// As Rust's own test programs do, `test NAME ... ok`, or as a `#[test_runner]` of one's own
    /// often does, `NAME...  [ok]`.
    Lines,
    /// As [Unity](https://www.throwtheswitch.org/unity), the test framework for C, does:
    /// `FILE:LINE:NAME:PASS`; its fixture with `-v`: `TEST(GROUP, NAME) PASS`.
    Unity,
    /// As the crate [`defmt-test`](https://docs.rs/defmt-test) does, by defmt: needs
    /// `TestRun::defmt`.
    Defmt,
}

impl TestRun {
    /// Runs a firmware to its end, or to the [deadline](Self::deadline), and returns the tests whose
    /// results it printed on its first serial port and by semihosting, in their order. Where it has
    /// printed that all have run, and then nothing for a second, that is the end as well: few
    /// boards have somebody to tell that they have ended.
    ///
    /// One that had begun and printed no result failed with what ended the run. Where none of them
    /// failed, and the run did not end well, the firmware as a whole is a further test that failed;
    /// where there are none, it is the only one. Of the progress there are [`Progress::Output`], of
    /// test 0, and [`Progress::Executed`].
    ///
    /// # Errors
    /// [`TestRunError::Start`].
    pub async fn run_printed(
        self,
        kind: PrintedTests,
        firmware: &str,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<Vec<(TestCase, TestResult)>, TestRunError> {
        let bundles = self.bundles.clone();
        let mut recorder = bundles.as_ref().and_then(Bundles::recorder);
        let frames = self.frames.of_test();
        let (config, deadline) = self.for_whole_run();
        let session = Session::start(config).await?;
        let since = Instant::now();
        let (events, mut printed) = mpsc::unbounded_channel();
        let mut output = Capture::live(Live { test: 0, events }, frames);
        let mut reader = Reader::new(kind);
        let mut read = || {
            let mut has_printed = false;
            while let Ok(Event::Output(test, bytes)) = printed.try_recv() {
                progress(Progress::Output(test, &bytes));
                reader.push(&bytes);
                has_printed = true;
            }
            (has_printed, reader.over.is_some())
        };
        let run = run(&session, deadline, recorder.as_mut());
        let report = watch(run, &session, &mut output, &mut read).await;
        let took = since.elapsed();
        if let (None, Some(recorder)) = (&report, &mut recorder) {
            // What cannot be kept, the bundle says.
            let _ = recorder.keep(&session, MomentKind::Exit).await;
        }
        if let Ok(executed) = session.executed_code() {
            progress(Progress::Executed(&executed));
        }
        reader.end();
        let is_success = |report: &RunReport| report.verdict.success();
        let ended_well = report.as_ref().is_none_or(is_success) && reader.over != Some(true);
        if !ended_well
            && kind == PrintedTests::Unity
            && let Some(name) = unity_test(&session).await
        {
            reader.has_begun(&name);
        }
        let failure = || match &report {
            Some(report) if !is_success(report) => Failure::Ended(Box::new(report.clone())),
            _ => Failure::Printed(None),
        };
        let mut results = reader.results(failure);
        let has_failed = |(_, result): &(TestCase, TestResult)| !result.outcome.is_success();
        // None of them says how the run ended.
        if !results.iter().any(has_failed) && (results.is_empty() || !ended_well) {
            let outcome = match ended_well {
                true => Outcome::Passed,
                false => Outcome::Failed(failure()),
            };
            let result = TestResult::new(outcome, output, took);
            results.push((TestCase::named(firmware), result));
        }
        make_distinct(results.iter_mut().map(|(test, _)| test));
        // The firmware is one, so the first that failed has its bundle.
        let mut failed = results.iter_mut();
        let failed = failed.find(|(_, result)| !result.outcome.is_success());
        if let (Some(bundles), Some(recorder), Some((test, result))) = (bundles, recorder, failed) {
            let writing = bundles.write(&recorder, &session, &test.name, result);
            result.bundle = writing.await;
        }
        Ok(results)
    }
}

/// Runs it to its end, or the deadline.
async fn run(session: &Session, deadline: Duration, recorder: Option<&mut Recorder>) -> RunReport {
    match recorder {
        Some(recorder) => session.run_recorded(deadline, || false, recorder).await,
        None => session.run_watched(deadline, || false).await,
    }
}

/// Lets it run; `read` takes what it printed, and says whether there was anything, and whether its
/// tests are over. `None` where they are, and it goes on in silence.
async fn watch(
    run: impl Future<Output = RunReport>,
    session: &Session,
    output: &mut Capture,
    read: &mut impl FnMut() -> (bool, bool),
) -> Option<RunReport> {
    let mut silent_since = Instant::now();
    let report = {
        let mut run = std::pin::pin!(run);
        loop {
            let pause = tokio::time::sleep(LOOK);
            tokio::select! {
                report = &mut run => break Some(report),
                () = pause => {
                    drain(session, output);
                    let (has_printed, is_over) = read();
                    if has_printed {
                        silent_since = Instant::now();
                    } else if is_over && silent_since.elapsed() >= SILENCE {
                        break None;
                    }
                }
            }
        }
    };
    if report.is_none() {
        // What cannot be paused has ended.
        let _ = session.pause().await;
    }
    drain(session, output);
    output.end();
    read();
    report
}

/// The test that Unity runs: it prints the name with the result alone. Its variable `Unity` begins
/// with the names of the test's file and of the test.
async fn unity_test(session: &Session) -> Option<String> {
    let variable = session.ask_firmware(|firmware| {
        let is_wide = matches!(
            firmware.architecture(),
            Architecture::Aarch64 | Architecture::Riscv64
        );
        Some((firmware.raw_symbol("Unity")?.address, is_wide))
    });
    let (variable, is_wide) = variable.await.ok()??;
    let name = match is_wide {
        true => session.read_u64(variable.wrapping_add(8)).await.ok()?,
        false => session
            .read_u32(variable.wrapping_add(4))
            .await
            .ok()?
            .into(),
    };
    let text = session.ask_firmware(move |firmware| {
        let mut byte = [0];
        let bytes = (0..LONGEST_NAME as u64).map_while(|at| {
            let is_text = firmware.loaded(name.wrapping_add(at), &mut byte) && byte[0] != 0;
            is_text.then_some(byte[0])
        });
        String::from_utf8(bytes.collect()).ok()
    });
    let text = text.await.ok()??;
    (!text.is_empty()).then(|| unity_name(&text).into_owned())
}
