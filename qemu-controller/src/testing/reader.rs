//! The tests of a firmware that runs them by itself, read from what it prints.

use std::time::Duration;

use super::capture::Capture;
use super::embedded_test::MOST_TESTS;
use super::lines::{self, Ending, Said, plain};
use super::outcome::{Failure, Outcome, TestResult};
use super::{PrintedTests, TestCase};

/// A line that ends nowhere is taken for one here.
const LONGEST_LINE: usize = 64 * 1024;

/// So much of the reason for a failure is kept, in characters: there may be very many tests.
const LONGEST_REASON: usize = 1024;

/// A test, as it was printed.
#[derive(Debug)]
struct Printed {
    name: String,
    ending: Ending,
    /// Why it failed, as far as it printed that.
    why: Option<String>,
    output: Capture,
}

/// What has been read of the firmware's output.
pub(super) struct Reader {
    kind: PrintedTests,
    tests: Vec<Printed>,
    /// The line that has no end yet.
    line: Vec<u8>,
    /// What belongs to the next test.
    since: Capture,
    /// The last line that said nothing of a test, since the last one that did.
    last: Option<String>,
    /// All tests have run, as it printed; whether one of them failed.
    pub(super) over: Option<bool>,
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
    pub(super) fn new(kind: PrintedTests) -> Self {
        Self {
            kind,
            tests: Vec::new(),
            line: Vec::new(),
            since: Capture::default(),
            last: None,
            over: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LONGEST_LINE {
                self.end_line();
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    /// This test has begun, and has printed no result, unless it is the last one that did.
    pub(super) fn has_begun(&mut self, name: &str) {
        if self.tests.last().is_none_or(|last| last.name != name) {
            let mut test = Printed::new(name, Ending::Begun);
            test.output = std::mem::take(&mut self.since);
            self.tests.push(test);
        }
    }

    /// What became of them; of those that printed no result, this.
    pub(super) fn results(self, failure: impl Fn() -> Failure) -> Vec<(TestCase, TestResult)> {
        let tests = self.tests.into_iter();
        tests.map(|test| test.result(&failure)).collect()
    }

    fn end_line(&mut self) {
        let line = plain(&std::mem::take(&mut self.line));
        let line = line.trim_end_matches(['\r', '\n']);
        let is_defmt = self.kind == PrintedTests::Defmt;
        let said = lines::read(self.kind, line);
        let last = match said {
            None if line.trim().is_empty() => None,
            // What came before was no test's.
            None if line.starts_with("running ") => {
                self.last = None;
                None
            }
            None => self.last.replace(shortened(line.trim())),
            Some(_) => self.last.take(),
        };
        let why = |ending| match ending {
            Ending::Failed => lines::reason(self.kind, line).map(shortened).or(last),
            _ => None,
        };
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
                test.why = why(ending);
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
                last.why = why(ending);
                last.output.push_line(line);
            }
            (_, Some(last)) if is_defmt || last.ending == Ending::Begun => {
                last.output.push_line(line);
            }
            _ => self.since.push_line(line),
        }
    }
}

fn shortened(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).collect()
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
        let output = "booting\nrunning 3 tests\ntest one ... FAILED\nit says\n\ntest two ... FAILED\n\
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
