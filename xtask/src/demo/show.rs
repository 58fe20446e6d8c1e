//! How the demo shows a step: a line for people, or a JSON object for programs.

use std::fmt::Display;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Prints steps, each with the time since the one before.
pub(crate) struct Show {
    json: bool,
    since: Instant,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, since: Instant::now() }
    }

    /// A step that took time; `facts` is what a program would want of it, an object.
    pub(crate) fn step(&mut self, name: &str, text: impl Display, facts: Value) {
        let took = self.since.elapsed();
        self.print(name, text, facts, Some(took));
        self.since = Instant::now();
    }

    /// What is known without a step of its own.
    pub(crate) fn fact(&mut self, name: &str, text: impl Display, facts: Value) {
        self.print(name, text, facts, None);
    }

    fn print(&self, name: &str, text: impl Display, mut facts: Value, took: Option<Duration>) {
        let milliseconds = took.map(|took| took.as_secs_f64() * 1e3);
        if self.json {
            facts["step"] = json!(name);
            if let Some(milliseconds) = milliseconds {
                facts["took_ms"] = json!((milliseconds * 1e3).round() / 1e3);
            }
            println!("{facts}");
        } else {
            let took = milliseconds.map_or_else(String::new, |milliseconds| format!("{milliseconds:.1} ms"));
            println!("{took:>11}  {name:<7} {text}");
        }
    }
}
