//! The formats for people: a line for each test, or a character.

use std::io::IsTerminal as _;
use std::time::Duration;

use qemu_controller::testing::Outcome;

use super::live::LiveOutput;
use super::options::{Color, Options};
use super::progress::ProgressLine;
use super::report::{Counts, Show, Shown, account, reason};

/// After so many characters of the terse format comes a new line, with how far it is.
const TERSE_WIDTH: usize = 88;

/// How many of the slowest tests are named.
const SLOWEST: usize = 5;

pub(super) struct Pretty {
    is_terse: bool,
    is_coloured: bool,
    shows_output: bool,
    /// What tests print, where it is shown as it comes.
    live: Option<LiveOutput>,
    progress: ProgressLine,
    failed: usize,
    shows_times: bool,
    tests: usize,
    done: usize,
    failures: Vec<(String, String)>,
    successes: Vec<(String, String)>,
    times: Vec<(Duration, String)>,
}

impl Pretty {
    pub(super) fn new(options: &Options, is_terse: bool) -> Self {
        let is_coloured = match options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
            }
        };
        Self {
            is_terse,
            is_coloured,
            shows_output: options.show_output,
            live: options.shows_live().then(LiveOutput::default),
            progress: ProgressLine::new(!is_terse && !options.shows_live()),
            failed: 0,
            shows_times: options.report_time,
            tests: 0,
            done: 0,
            failures: Vec::new(),
            successes: Vec::new(),
            times: Vec::new(),
        }
    }

    fn coloured(&self, text: &str, colour: u8) -> String {
        match self.is_coloured {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn line(&self, shown: &Shown<'_>, word: &str, colour: u8) -> String {
        let panics = if shown.should_panic {
            " - should panic"
        } else {
            ""
        };
        let time = match shown.result {
            Some(result) if self.shows_times => format!(" <{:.3}s>", result.duration.as_secs_f64()),
            _ => String::new(),
        };
        let word = self.coloured(word, colour);
        format!("test {}{panics} ... {word}{time}\n", shown.name)
    }
}

impl Show for Pretty {
    fn begin(&mut self, tests: usize, seed: Option<u64>) -> String {
        self.tests = tests;
        let plural = if tests == 1 { "" } else { "s" };
        let seed = seed.map_or(String::new(), |seed| format!(" (shuffle seed: {seed})"));
        format!("\nrunning {tests} test{plural}{seed}\n")
    }

    fn started(&mut self, name: &str) -> String {
        self.progress.started(name);
        String::new()
    }

    fn output(&mut self, name: &str, bytes: &[u8]) -> String {
        let is_alone = self.progress.is_alone();
        let live = self.live.as_mut();
        live.map_or_else(String::new, |live| live.push(name, bytes, is_alone))
    }

    fn tick(&mut self) -> String {
        let done = format!("{}/{} done", self.done, self.tests);
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.progress.tick(&(done + &failed))
    }

    fn cut_short(&mut self) -> String {
        self.progress.cleared().to_owned()
    }

    fn finished(&mut self, shown: &Shown<'_>) -> String {
        let (word, letter, colour) = match shown.result.map(|result| &result.outcome) {
            None | Some(Outcome::Ignored) => ("ignored", "i", 33),
            Some(Outcome::Passed) => ("ok", ".", 32),
            Some(_) => ("FAILED", "F", 31),
        };
        self.progress.finished(&shown.name);
        let mut text = self.progress.cleared().to_owned();
        if let Some(result) = shown.result {
            // What was shown as it came is not shown again.
            let account = match &mut self.live {
                Some(live) => {
                    text += &live.finish(&shown.name);
                    reason(result)
                }
                None => account(result),
            };
            self.times.push((result.duration, shown.name.clone()));
            match result.outcome {
                Outcome::Failed(_) => {
                    self.failed += 1;
                    self.failures.push((shown.name.clone(), account));
                }
                _ if self.shows_output && !account.is_empty() => {
                    self.successes.push((shown.name.clone(), account));
                }
                _ => {}
            }
        }
        self.done += 1;
        if !self.is_terse {
            return text + &self.line(shown, word, colour);
        }
        text += &self.coloured(letter, colour);
        if self.done.is_multiple_of(TERSE_WIDTH) && self.done < self.tests {
            text += &format!(" {}/{}\n", self.done, self.tests);
        }
        text
    }

    fn end(&mut self, counts: Counts, took: Duration) -> String {
        let mut text = self.progress.cleared().to_owned();
        if self.is_terse {
            text.push('\n');
        }
        for (title, those) in [("successes", &self.successes), ("failures", &self.failures)] {
            if those.is_empty() {
                continue;
            }
            text += &format!("\n{title}:\n\n");
            for (name, account) in those {
                text += &format!("---- {name} stdout ----\n{account}\n");
            }
            text += &format!("\n{title}:\n");
            let mut names: Vec<_> = those.iter().map(|(name, _)| name).collect();
            names.sort();
            for name in names {
                text += &format!("    {name}\n");
            }
        }
        if self.shows_times {
            self.times.sort_by(|a, b| b.cmp(a));
            text += "\nslowest:\n";
            for (time, name) in self.times.iter().take(SLOWEST) {
                text += &format!("    {:.3}s {name}\n", time.as_secs_f64());
            }
        }
        let word = match counts.failed {
            0 => self.coloured("ok", 32),
            _ => self.coloured("FAILED", 31),
        };
        let Counts {
            passed,
            failed,
            ignored,
            filtered_out,
        } = counts;
        text + &format!(
            "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; \
             {filtered_out} filtered out; finished in {:.2}s\n\n",
            took.as_secs_f64()
        )
    }
}
