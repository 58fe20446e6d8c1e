//! Tests that a firmware runs by itself, one after the other, and whose results it prints: their
//! names are known when it has run.

use std::time::{Duration, Instant};

use firmware_info::Architecture;
use tokio::sync::mpsc;

use super::TestCase;
use super::bundles::Bundles;
use super::capture::{Capture, Live};
use super::embedded_test::{MOST_TESTS, make_distinct};
use super::lines::{self, Ending, Said, plain, unity_name};
use super::machine::{LOOK, drain};
use super::outcome::{Failure, Outcome, TestResult};
use super::run::{Event, Progress, TestRun, TestRunError};
use crate::bundle::{MomentKind, Recorder};
use crate::session::Session;
use crate::source::RunReport;

/// A firmware that has run all its tests, and prints nothing for so long, has come to its end.
const SILENCE: Duration = Duration::from_secs(1);

/// A line that ends nowhere is taken for one here.
const LONGEST_LINE: usize = 64 * 1024;

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

/// One of them, as it was printed.
#[derive(Debug)]
struct Printed {
    name: String,
    ending: Ending,
    /// Why it failed, as far as it printed that.
    why: Option<String>,
    output: Capture,
}

/// What has been read of the firmware's output.
struct Reader {
    kind: PrintedTests,
    tests: Vec<Printed>,
    /// The line that has no end yet.
    line: Vec<u8>,
    /// What belongs to the next test.
    since: Capture,
    /// The last line that said nothing of a test, since the last one that did.
    last: Option<String>,
    /// All tests have run, as it printed; whether one of them failed.
    over: Option<bool>,
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
        let mut printed = reader.tests;
        let is_success = |report: &RunReport| report.verdict.success();
        let ended_well = report.as_ref().is_none_or(is_success) && reader.over != Some(true);
        if !ended_well
            && kind == PrintedTests::Unity
            && let Some(name) = unity_test(&session).await
            && printed.last().is_none_or(|last| last.name != name)
        {
            let mut test = Printed::new(&name, Ending::Begun);
            test.output = reader.since;
            printed.push(test);
        }
        let has_failed = |one: &Printed| matches!(one.ending, Ending::Failed | Ending::Begun);
        let is_told = printed.iter().any(has_failed) || !printed.is_empty() && ended_well;
        let failure = || match &report {
            Some(report) if !is_success(report) => Failure::Ended(Box::new(report.clone())),
            _ => Failure::Printed(None),
        };
        let mut results: Vec<_> = printed
            .into_iter()
            .map(|printed| printed.result(failure))
            .collect();
        if !is_told {
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

impl Printed {
    fn new(name: &str, ending: Ending) -> Self {
        Self {
            name: name.to_owned(),
            ending,
            why: None,
            output: Capture::default(),
        }
    }

    fn passes_if_begun(&mut self) {
        if self.ending == Ending::Begun {
            self.ending = Ending::Passed;
        }
    }

    fn result(self, failure: impl Fn() -> Failure) -> (TestCase, TestResult) {
        let outcome = match self.ending {
            Ending::Passed => Outcome::Passed,
            Ending::Ignored => Outcome::Ignored,
            Ending::Failed => Outcome::Failed(Failure::Printed(self.why)),
            Ending::Begun => Outcome::Failed(failure()),
        };
        let mut test = TestCase::named(self.name);
        test.ignored = matches!(outcome, Outcome::Ignored);
        (test, TestResult::new(outcome, self.output, Duration::ZERO))
    }
}

impl Reader {
    fn new(kind: PrintedTests) -> Self {
        Self {
            kind,
            tests: Vec::new(),
            line: Vec::new(),
            since: Capture::default(),
            last: None,
            over: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LONGEST_LINE {
                self.end_line();
            }
        }
    }

    /// Nothing more comes.
    fn end(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let line = plain(&std::mem::take(&mut self.line));
        let line = line.trim_end_matches(['\r', '\n']);
        let is_defmt = self.kind == PrintedTests::Defmt;
        let said = lines::read(self.kind, line);
        let last = match said {
            None if line.trim().is_empty() || line.starts_with("running ") => None,
            None => self.last.replace(line.trim().to_owned()),
            Some(_) => self.last.take(),
        };
        let why = || lines::reason(self.kind, line).map(str::to_owned).or(last);
        if let Some(Said::Over { failed }) = said {
            self.over = Some(self.over.unwrap_or(false) || failed);
        }
        let has_room = self.tests.len() < MOST_TESTS;
        match (said, self.tests.last_mut()) {
            // A test of defmt-test has passed when something else begins.
            (Some(Said::Over { .. }), last) if is_defmt => {
                last.into_iter().for_each(Printed::passes_if_begun);
            }
            (Some(Said::Test(name, ending)), last) if has_room => {
                let mut test = Printed::new(&name, ending);
                test.why = why();
                let since = std::mem::take(&mut self.since);
                if is_defmt {
                    last.into_iter().for_each(Printed::passes_if_begun);
                } else {
                    test.output = since;
                    test.output.push_line(line);
                }
                self.tests.push(test);
            }
            (Some(Said::Result(ending)), Some(last)) if last.ending == Ending::Begun => {
                last.ending = ending;
                last.why = why();
                last.output.push_line(line);
            }
            (_, Some(last)) if is_defmt || last.ending == Ending::Begun => {
                last.output.push_line(line);
            }
            _ => self.since.push_line(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: PrintedTests, output: &str) -> Reader {
        let mut reader = Reader::new(kind);
        // However it comes.
        output
            .as_bytes()
            .chunks(7)
            .for_each(|bytes| reader.push(bytes));
        reader.end();
        reader
    }

    #[test]
    fn why_a_test_failed_is_what_its_result_says_or_what_it_printed_last() {
        let output = "running 3 tests\ntest one ... FAILED\nit says\n\ntest two ... FAILED\n\
            test three ...\nit prints\nFAILED\n";
        let reasons = |reader: Reader| {
            let tests = reader.tests.into_iter();
            tests.map(|test| test.why).collect::<Vec<_>>()
        };
        let (says, prints) = (Some("it says".to_owned()), Some("it prints".to_owned()));
        assert_eq!(
            reasons(read(PrintedTests::Lines, output)),
            [None, says, prints]
        );
        let unity = read(
            PrintedTests::Unity,
            "t.c:1:a:FAIL: Expected 1 Was 2 \nt.c:2:b:FAIL\n",
        );
        let expected = [Some("Expected 1 Was 2".to_owned()), None];
        assert_eq!(reasons(unity), expected);
    }

    fn tests(reader: Reader) -> Vec<(String, Ending, String)> {
        let tests = reader.tests.into_iter();
        let test = |test: Printed| {
            let (output, _) = test.output.finish();
            let output = String::from_utf8(output).unwrap();
            (test.name, test.ending, output)
        };
        tests.map(test).collect()
    }

    fn row(name: &str, ending: Ending, output: &str) -> (String, Ending, String) {
        (name.to_owned(), ending, output.to_owned())
    }

    #[test]
    fn a_result_comes_behind_what_its_test_printed() {
        let output = "running 3 tests\ntest one ... ok\r\nit says\ntest two ... FAILED\n\
            a::three...\nit prints ... much\n[failed]\ntest result: FAILED.\ntest four ... ";
        let read = read(PrintedTests::Lines, output);
        assert_eq!(read.over, Some(true));
        let expected = [
            row("one", Ending::Passed, "running 3 tests\ntest one ... ok\n"),
            row("two", Ending::Failed, "it says\ntest two ... FAILED\n"),
            row(
                "a::three",
                Ending::Failed,
                "a::three...\nit prints ... much\n[failed]\n",
            ),
            row(
                "four",
                Ending::Begun,
                "test result: FAILED.\ntest four ... \n",
            ),
        ];
        assert_eq!(tests(read), expected);
    }

    #[test]
    fn a_test_of_defmt_test_passes_when_the_next_begins() {
        let mut output = "INFO it begins\n(1/4) running `one`...\nDEBUG (1/2) running\n\
            (2/4) ignoring `two`...\n(3/4) running `three`...\n(4/4) running `four`...\nERROR panicked\n"
            .to_owned();
        let mut expected = [
            row("one", Ending::Passed, "DEBUG (1/2) running\n"),
            row("two", Ending::Ignored, ""),
            row("three", Ending::Passed, ""),
            row("four", Ending::Begun, "ERROR panicked\n"),
        ];
        let begun = read(PrintedTests::Defmt, &output);
        assert_eq!(begun.over, None);
        assert_eq!(tests(begun), expected);
        output += "all tests passed!\n";
        expected[3].1 = Ending::Passed;
        let over = read(PrintedTests::Defmt, &output);
        assert_eq!(over.over, Some(false));
        assert_eq!(tests(over), expected);
    }
}
