//! How far a run is, on the last line of a terminal; it is gone when anything else is shown.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

/// Where the terminal does not say how wide it is.
const COLUMNS: usize = 80;

/// Below that a test's time is not worth the room.
const LONG: Duration = Duration::from_secs(1);

/// A test that runs as long is named, also where there is no terminal.
const VERY_LONG: Duration = Duration::from_secs(60);

pub(super) struct ProgressLine {
    is_on: bool,
    is_shown: bool,
    running: Vec<RunningTest>,
}

struct RunningTest {
    name: String,
    since: Instant,
    is_named: bool,
}

impl ProgressLine {
    /// Shown where stdout is a terminal that can do it, and `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self {
            is_on: wanted && std::io::stdout().is_terminal() && !is_dumb,
            is_shown: false,
            running: Vec::new(),
        }
    }

    pub(super) fn started(&mut self, name: &str) {
        self.running.push(RunningTest {
            name: name.to_owned(),
            since: Instant::now(),
            is_named: false,
        });
    }

    pub(super) fn finished(&mut self, name: &str) {
        self.running.retain(|running| running.name != name);
    }

    /// No other test runs.
    pub(super) fn is_alone(&self) -> bool {
        self.running.len() < 2
    }

    /// Before anything else is shown.
    pub(super) fn cleared(&mut self) -> &'static str {
        match std::mem::take(&mut self.is_shown) {
            true => "\r\x1b[K",
            false => "",
        }
    }

    /// From time to time: the line, and who has been running for very long.
    pub(super) fn tick(&mut self, done: &str) -> String {
        let mut text = String::new();
        let mut running = self.running.iter_mut();
        let long = running
            .by_ref()
            .find(|running| !running.is_named && running.since.elapsed() >= VERY_LONG);
        if let Some(long) = long {
            long.is_named = true;
            let words = format!(
                "test {} has been running for over {} seconds\n",
                long.name,
                VERY_LONG.as_secs()
            );
            text += self.cleared();
            text += &words;
        }
        if !self.is_on || self.running.is_empty() {
            return text;
        }
        let names: Vec<_> = self.running.iter().map(RunningTest::shown).collect();
        let line = format!("{done}; running {}", names.join(", "));
        let line: String = line.chars().take(columns() - 1).collect();
        self.is_shown = true;
        text + "\r" + &line + "\x1b[K"
    }
}

impl RunningTest {
    fn shown(&self) -> String {
        match self.since.elapsed() {
            took if took < LONG => self.name.clone(),
            took => format!("{} ({} s)", self.name, took.as_secs()),
        }
    }
}

fn columns() -> usize {
    let size = tcgetwinsize(std::io::stdout());
    size.map_or(COLUMNS, |size| match size.ws_col {
        0 => COLUMNS,
        columns => columns.into(),
    })
}
