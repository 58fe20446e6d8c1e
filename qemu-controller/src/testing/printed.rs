//! Tests that a firmware runs by itself, one after the other, and whose results it prints: their
//! names are known when it has run.

use std::time::{Duration, Instant};

use super::TestCase;
use tokio::sync::mpsc;

use super::bundles::Bundles;
use super::capture::{Capture, Live};
use super::machine::drain;
use super::outcome::{Failure, Outcome, TestResult};
use super::run::{Event, Progress, TestRun, TestRunError};
use crate::bundle::Recorder;
use crate::session::Session;
use crate::source::RunReport;

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
    /// `FILE:LINE:NAME:PASS`.
    Unity,
    /// As the crate [`defmt-test`](https://docs.rs/defmt-test) does, by defmt: needs
    /// `TestRun::defmt`.
    Defmt,
}

/// One of them, as it was printed.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    name: String,
    ending: Ending,
    /// What was printed since the one before, its own line included.
    output: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Passed,
    Failed,
    Ignored,
    /// It began, and that is all.
    Begun,
}

impl TestRun {
    /// Runs a firmware to its end, or to the [deadline](Self::deadline), and returns the tests whose
    /// results it printed on its first serial port and by semihosting, in their order. One that had
    /// begun and printed no result failed with what ended the run. Where none of them failed, and
    /// the run did not end well, the firmware as a whole is a further test that failed; where there
    /// are none, it is the only one. Of the progress there are
    /// [`Progress::Output`], of test 0, and [`Progress::Executed`].
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
        let mut pass_on = || {
            while let Ok(Event::Output(test, bytes)) = printed.try_recv() {
                progress(Progress::Output(test, &bytes));
            }
        };
        let run = run(&session, deadline, recorder.as_mut());
        let report = watch(run, &session, &mut output, &mut pass_on).await;
        let took = since.elapsed();
        if let Ok(executed) = session.executed_code() {
            progress(Progress::Executed(&executed));
        }
        let printed = match kind {
            PrintedTests::One => Vec::new(),
            PrintedTests::Lines => parse(output.bytes(), rust_line),
            PrintedTests::Unity => parse(output.bytes(), unity_line),
            PrintedTests::Defmt => parse_defmt(output.bytes()),
        };
        let has_failed = |one: &Printed| matches!(one.ending, Ending::Failed | Ending::Begun);
        let is_told =
            printed.iter().any(has_failed) || !printed.is_empty() && report.verdict.success();
        let mut results: Vec<_> = printed
            .into_iter()
            .map(|printed| printed.result(&report))
            .collect();
        if !is_told {
            let outcome = match report.verdict.success() {
                true => Outcome::Passed,
                false => Outcome::Failed(Failure::Ended(Box::new(report))),
            };
            let result = TestResult::new(outcome, output, took);
            results.push((TestCase::named(firmware), result));
        }
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

/// Lets it run; what it prints without end is bounded.
async fn watch(
    run: impl Future<Output = RunReport>,
    session: &Session,
    output: &mut Capture,
    pass_on: &mut impl FnMut(),
) -> RunReport {
    let mut run = std::pin::pin!(run);
    let report = loop {
        let pause = tokio::time::sleep(Duration::from_millis(50));
        tokio::select! {
            report = &mut run => break report,
            () = pause => {
                drain(session, output);
                pass_on();
            }
        }
    };
    drain(session, output);
    output.end();
    pass_on();
    report
}

impl Printed {
    fn result(self, report: &RunReport) -> (TestCase, TestResult) {
        let outcome = match self.ending {
            Ending::Passed => Outcome::Passed,
            Ending::Ignored => Outcome::Ignored,
            Ending::Failed => Outcome::Failed(Failure::Printed),
            Ending::Begun => Outcome::Failed(Failure::Ended(Box::new(report.clone()))),
        };
        let mut test = TestCase::named(&self.name);
        test.ignored = matches!(outcome, Outcome::Ignored);
        let mut result = TestResult::without_run(outcome);
        result.output = self.output;
        (test, result)
    }
}

/// What a line says of a test.
type Line<'a> = Option<(&'a str, Ending)>;

fn parse(output: &[u8], line_of: fn(&str) -> Line<'_>) -> Vec<Printed> {
    let text = String::from_utf8_lossy(output);
    let mut tests: Vec<Printed> = Vec::new();
    let mut since = String::new();
    for line in text.lines() {
        let line = line.trim_end_matches('\r');
        since += line;
        since.push('\n');
        match line_of(line) {
            Some((name, ending)) => {
                let output = std::mem::take(&mut since).into_bytes();
                let name = name.to_owned();
                tests.push(Printed {
                    name,
                    ending,
                    output,
                });
            }
            // The result of one that has begun, behind what it printed itself.
            None => {
                if let (Some(last), Some(ending)) = (tests.last_mut(), ending(line))
                    && last.ending == Ending::Begun
                {
                    last.ending = ending;
                    last.output.extend(std::mem::take(&mut since).into_bytes());
                }
            }
        }
    }
    // What came last belongs to the one that did not end.
    if let Some(last) = tests.last_mut().filter(|last| last.ending == Ending::Begun) {
        last.output.extend(since.into_bytes());
    }
    tests
}

/// Of `defmt-test`: a test has passed when the next one begins, or all are said to have. One that is
/// ignored it runs all the same, and takes no notice of what comes of it.
fn parse_defmt(output: &[u8]) -> Vec<Printed> {
    let text = String::from_utf8_lossy(output);
    let mut tests: Vec<Printed> = Vec::new();
    for line in text.lines() {
        let begun = defmt_line(line);
        let ended = begun.is_some() || line.ends_with("all tests passed!");
        match tests.last_mut() {
            Some(last) if ended && last.ending == Ending::Begun => last.ending = Ending::Passed,
            Some(last) if !ended => {
                last.output.extend_from_slice(line.as_bytes());
                last.output.push(b'\n');
            }
            _ => {}
        }
        if let Some((name, ending)) = begun {
            tests.push(Printed {
                name: name.to_owned(),
                ending,
                output: Vec::new(),
            });
        }
    }
    tests
}

/// ``(1/4) running `NAME`...``, whatever the log format has before it.
fn defmt_line(line: &str) -> Line<'_> {
    let (before, name) = line.strip_suffix("`...")?.rsplit_once(" `")?;
    let (count, ending) = match before.rsplit_once(") ")? {
        (count, "running") => (count, Ending::Begun),
        (count, "ignoring") => (count, Ending::Ignored),
        _ => return None,
    };
    let (_, count) = count.rsplit_once('(')?;
    let (number, all) = count.split_once('/')?;
    let are_numbers = [number, all].iter().all(|text| text.parse::<u32>().is_ok());
    are_numbers.then_some((name, ending))
}

/// `test NAME ... ok` and `NAME... [ok]`.
fn rust_line(line: &str) -> Line<'_> {
    let (name, rest) = match line.strip_prefix("test ") {
        Some(test) => test.split_once(" ...")?,
        None => {
            let (name, rest) = line.split_once("...")?;
            // Other lines have three dots too.
            let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
            let is_result = rest.trim_start().is_empty() || ending(rest).is_some();
            (is_name && is_result && name.contains("::")).then_some((name, rest))?
        }
    };
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    Some((name, ending(rest).unwrap_or(Ending::Begun)))
}

/// The word for a result, alone on what is left of a line.
fn ending(rest: &str) -> Option<Ending> {
    let word = rest.trim().trim_start_matches('[').trim_end_matches(']');
    let word = word.split([',', '<']).next().unwrap_or_default().trim();
    match word.to_ascii_lowercase().as_str() {
        "ok" | "passed" => Some(Ending::Passed),
        "failed" => Some(Ending::Failed),
        "ignored" => Some(Ending::Ignored),
        _ => None,
    }
}

/// `FILE:LINE:NAME:PASS`, `…:FAIL: why`, `…:IGNORE: why`.
fn unity_line(line: &str) -> Line<'_> {
    let mut fields = line.splitn(5, ':');
    let (_file, number, name, word) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    number.parse::<u32>().ok()?;
    let ending = match word {
        "PASS" => Ending::Passed,
        "FAIL" => Ending::Failed,
        "IGNORE" => Ending::Ignored,
        _ => return None,
    };
    Some((name, ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(output: &str, line_of: fn(&str) -> Line<'_>) -> Vec<(String, Ending)> {
        let tests = parse(output.as_bytes(), line_of).into_iter();
        tests.map(|test| (test.name, test.ending)).collect()
    }

    #[test]
    fn lines_as_of_rust() {
        let output = "\nrunning 4 tests\ntest a::one ... ok\r\ntest two ... FAILED\ntest three - should panic ... ignored\n\
            crate::four...\t[ok]\ncrate::five...\nit prints ... much\n[failed]\ntest six ... ";
        let expected = [
            ("a::one", Ending::Passed),
            ("two", Ending::Failed),
            ("three", Ending::Ignored),
            ("crate::four", Ending::Passed),
            ("crate::five", Ending::Failed),
            ("six", Ending::Begun),
        ];
        assert_eq!(
            names(output, rust_line),
            expected.map(|(name, ending)| (name.to_owned(), ending))
        );
        assert_eq!(names("waiting... ok\nloading file...\n", rust_line), []);
    }

    #[test]
    fn lines_as_of_defmt_test() {
        let output = "INFO it begins\n(1/5) running `one`...\nDEBUG (1/2) running\n(2/5) ignoring `two`...\n\
            0.7 (3/5) running `three`...\n(4/5) running `four`...\nERROR panicked\n";
        let tests = |output: &str| -> Vec<(String, Ending)> {
            let tests = parse_defmt(output.as_bytes()).into_iter();
            tests.map(|test| (test.name, test.ending)).collect()
        };
        let mut expected = [
            ("one", Ending::Passed),
            ("two", Ending::Ignored),
            ("three", Ending::Passed),
            ("four", Ending::Begun),
        ]
        .map(|(name, ending)| (name.to_owned(), ending));
        assert_eq!(tests(output), expected);
        assert_eq!(
            parse_defmt(output.as_bytes())[0].output,
            b"DEBUG (1/2) running\n"
        );
        expected[3].1 = Ending::Passed;
        assert_eq!(tests(&format!("{output}all tests passed!\n")), expected);
    }

    #[test]
    fn lines_as_of_unity() {
        let output = "test/t.c:12:test_adds:PASS\nx\ntest/t.c:20:test_fails:FAIL: Expected 1 Was 2\n\
            t.c:30:test_later:IGNORE\n-----------------------\n3 Tests 1 Failures 1 Ignored \nFAIL\n";
        let expected = [
            ("test_adds", Ending::Passed),
            ("test_fails", Ending::Failed),
            ("test_later", Ending::Ignored),
        ];
        assert_eq!(
            names(output, unity_line),
            expected.map(|(name, ending)| (name.to_owned(), ending))
        );
        let tests = parse(output.as_bytes(), unity_line);
        assert_eq!(
            tests[1].output,
            b"x\ntest/t.c:20:test_fails:FAIL: Expected 1 Was 2\n"
        );
    }
}
