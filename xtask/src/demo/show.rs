//! How the demo shows a step: a line for people, or a JSON object for programs.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Prints steps, each with the time since the one before.
pub(crate) struct Show {
    json: bool,
    since: Instant,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            since: Instant::now(),
        }
    }

    /// A step that took time; `facts` is what a program would want of it, an object.
    pub(crate) fn step(&mut self, name: &str, text: impl Display, facts: Value) -> io::Result<()> {
        let took = self.since.elapsed();
        self.print(name, text, facts, Some(took))?;
        self.since = Instant::now();
        Ok(())
    }

    /// What is known without a step of its own.
    pub(crate) fn fact(&mut self, name: &str, text: impl Display, facts: Value) -> io::Result<()> {
        self.print(name, text, facts, None)
    }

    /// Not by `println`, which panics when whoever reads has gone.
    fn print(
        &self,
        name: &str,
        text: impl Display,
        mut facts: Value,
        took: Option<Duration>,
    ) -> io::Result<()> {
        let milliseconds = took.map(|took| took.as_secs_f64() * 1e3);
        if self.json {
            facts["step"] = json!(name);
            if let Some(milliseconds) = milliseconds {
                facts["took_ms"] = json!((milliseconds * 1e3).round() / 1e3);
            }
            writeln!(io::stdout(), "{facts}")
        } else {
            let took = milliseconds
                .map_or_else(String::new, |milliseconds| format!("{milliseconds:.1} ms"));
            writeln!(io::stdout(), "{took:>11}  {name:<7} {text}")
        }
    }
}
