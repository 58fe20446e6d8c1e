//! What is shown of a run while it goes on and at its end, in the format that was asked for.

use std::time::{Duration, Instant};

use qemu_controller::testing::{Outcome, TestResult};

use super::json::Json;
use super::junit::Junit;
use super::options::{Format, Options};
use super::pretty::Pretty;
use super::select::{Selected, Selection};
use crate::writer::Writer;

/// So much may wait for stdout before what tests print is left out.
pub(super) const MOST_BACKLOG: usize = 1024 * 1024;

/// One test's result, as a format shows it.
pub(super) struct Shown<'a> {
    pub(super) name: String,
    pub(super) should_panic: bool,
    /// `None` where it was ignored.
    pub(super) result: Option<&'a TestResult>,
}

/// How many came to which end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) ignored: usize,
    pub(super) filtered_out: usize,
}

/// A format.
pub(super) trait Show {
    /// Before the first test.
    fn begin(&mut self, tests: usize, seed: Option<u64>) -> String;
    /// A test begins.
    fn started(&mut self, name: &str) -> String;
    /// A test has printed this.
    fn output(&mut self, _name: &str, _bytes: &[u8]) -> String {
        String::new()
    }
    /// From time to time while tests run.
    fn tick(&mut self) -> String {
        String::new()
    }
    /// The run ends here, for another reason than its tests.
    fn cut_short(&mut self) -> String {
        String::new()
    }
    /// A test is over, or ignored.
    fn finished(&mut self, shown: &Shown<'_>) -> String;
    /// After the last test.
    fn end(&mut self, counts: Counts, took: Duration) -> String;
}

pub(super) struct Report<'a> {
    tests: &'a [Selected],
    seed: Option<u64>,
    /// Of those that are run, where they are among all.
    positions: Vec<usize>,
    /// How many of the ignored have been shown: all before this position.
    shown_ignored: usize,
    counts: Counts,
    since: Instant,
    show: Box<dyn Show>,
    stdout: &'a Writer,
    log: Option<&'a Writer>,
    /// How many bytes that tests printed stdout was not asked to take.
    not_shown: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        options: &Options,
        selection: &'a Selection,
        stdout: &'a Writer,
        log: Option<&'a Writer>,
        since: Instant,
    ) -> Self {
        let tests = &*selection.tests;
        let positions = (0..tests.len()).filter(|&at| !tests[at].is_ignored);
        let show: Box<dyn Show> = match options.format() {
            Format::Pretty => Box::new(Pretty::new(options, false)),
            Format::Terse => Box::new(Pretty::new(options, true)),
            Format::Json => Box::new(Json::new(options)),
            Format::Junit => Box::<Junit>::default(),
        };
        Self {
            tests,
            seed: selection.seed,
            positions: positions.collect(),
            shown_ignored: 0,
            counts: Counts {
                filtered_out: selection.filtered_out,
                ..Counts::default()
            },
            since,
            show,
            stdout,
            log,
            not_shown: 0,
        }
    }

    pub(super) fn begin(&mut self) {
        let text = self.show.begin(self.tests.len(), self.seed);
        self.send(&text);
    }

    pub(super) fn started(&mut self, index: usize) {
        let position = self.positions[index];
        self.show_ignored(position);
        let text = self.show.started(&name(&self.tests[position]));
        self.stdout.send(text.as_bytes());
    }

    /// A stdout that takes it too slowly does not get all.
    pub(super) fn output(&mut self, index: usize, bytes: &[u8]) {
        if self.stdout.backlog() > MOST_BACKLOG {
            self.not_shown += bytes.len();
            return;
        }
        let name = name(&self.tests[self.positions[index]]);
        let mut text = String::new();
        if let missing @ 1.. = std::mem::take(&mut self.not_shown) {
            let words = format!("\n[{missing} bytes are not shown: stdout is too slow]\n");
            text += &self.show.output(&name, words.as_bytes());
        }
        text += &self.show.output(&name, bytes);
        self.send(&text);
    }

    pub(super) fn tick(&mut self) {
        let text = self.show.tick();
        self.send(&text);
    }

    pub(super) fn cut_short(&mut self) {
        let text = self.show.cut_short();
        self.send(&text);
    }

    fn send(&self, text: &str) {
        if !text.is_empty() {
            self.stdout.send(text.as_bytes());
        }
    }

    pub(super) fn finished(&mut self, index: usize, result: &TestResult) {
        match result.outcome {
            Outcome::Passed => self.counts.passed += 1,
            Outcome::Ignored => self.counts.ignored += 1,
            _ => self.counts.failed += 1,
        }
        let position = self.positions[index];
        if let Some(log) = self.log.filter(|_| !result.output.is_empty()) {
            log.send(format!("---- {} ----\n", name(&self.tests[position])).as_bytes());
            log.send(&result.output);
        }
        self.show(position, Some(result));
    }

    /// Whether one has failed.
    pub(super) fn end(mut self) -> bool {
        self.show_ignored(self.tests.len());
        let text = self.show.end(self.counts, self.since.elapsed());
        self.stdout.send(text.as_bytes());
        self.counts.failed > 0
    }

    /// The ignored ones before this position, which are in their place so.
    fn show_ignored(&mut self, before: usize) {
        for at in self.shown_ignored..before {
            if self.tests[at].is_ignored {
                self.counts.ignored += 1;
                self.show(at, None);
            }
        }
        self.shown_ignored = self.shown_ignored.max(before);
    }

    fn show(&mut self, at: usize, result: Option<&TestResult>) {
        let test = &self.tests[at];
        let text = self.show.finished(&Shown {
            name: name(test),
            should_panic: test.test.should_panic,
            result,
        });
        self.stdout.send(text.as_bytes());
    }
}

fn name(test: &Selected) -> String {
    test.test.name.clone()
}

/// What a test printed and why it failed, for people.
pub(super) fn account(result: &TestResult) -> String {
    printed(result) + &reason(result)
}

fn printed(result: &TestResult) -> String {
    let mut text = String::new();
    if result.dropped > 0 {
        text += &format!("[{} bytes before are not shown]\n", result.dropped);
    }
    for line in String::from_utf8_lossy(&result.output).lines() {
        text += &crate::escape::line(line.trim_end_matches('\r'));
        text.push('\n');
    }
    text
}

/// Why it failed.
pub(super) fn reason(result: &TestResult) -> String {
    let mut text = String::new();
    if let Outcome::Failed(failure) = &result.outcome {
        for line in failure.to_string().lines() {
            text += &crate::escape::line(line);
            text.push('\n');
        }
    }
    text
}
