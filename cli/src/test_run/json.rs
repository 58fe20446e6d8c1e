//! The format for programs: an object a line, as Rust's own test programs write them.

use std::time::Duration;

use qemu_controller::testing::Outcome;
use serde_json::json;

use super::options::Options;
use super::report::{Counts, Show, Shown, account};

pub(super) struct Json {
    shows_output: bool,
    shows_times: bool,
}

impl Json {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            shows_output: options.show_output || options.nocapture,
            shows_times: options.report_time,
        }
    }
}

impl Show for Json {
    fn begin(&mut self, tests: usize, seed: Option<u64>) -> String {
        let mut object = json!({ "type": "suite", "event": "started", "test_count": tests });
        if let Some(seed) = seed {
            object["shuffle_seed"] = json!(seed);
        }
        format!("{object}\n")
    }

    fn started(&mut self, name: &str) -> String {
        let object = json!({ "type": "test", "event": "started", "name": name });
        format!("{object}\n")
    }

    fn finished(&mut self, shown: &Shown<'_>) -> String {
        let event = match shown.result.map(|result| &result.outcome) {
            None | Some(Outcome::Ignored) => "ignored",
            Some(Outcome::Passed) => "ok",
            Some(_) => "failed",
        };
        let mut object = json!({ "type": "test", "event": event, "name": shown.name });
        if let Some(result) = shown.result {
            let account = account(result);
            if (event == "failed" || self.shows_output) && !account.is_empty() {
                object["stdout"] = json!(account);
            }
            if self.shows_times {
                object["exec_time"] = json!(result.duration.as_secs_f64());
            }
            if let Outcome::Failed(failure) = &result.outcome {
                object["reason"] = json!(failure.name());
            }
        }
        format!("{object}\n")
    }

    fn end(&mut self, counts: Counts, took: Duration) -> String {
        let object = json!({
            "type": "suite",
            "event": if counts.failed == 0 { "ok" } else { "failed" },
            "passed": counts.passed,
            "failed": counts.failed,
            "ignored": counts.ignored,
            "measured": 0,
            "filtered_out": counts.filtered_out,
            "exec_time": took.as_secs_f64(),
        });
        format!("{object}\n")
    }
}
