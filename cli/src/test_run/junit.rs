//! JUnit's XML, all of it at the end.

use std::fmt::Write as _;
use std::time::Duration;

use qemu_controller::testing::Outcome;

use super::report::{Counts, Show, Shown, account};

#[derive(Default)]
pub(super) struct Junit {
    cases: String,
}

impl Show for Junit {
    fn begin(&mut self, _: usize, _: Option<u64>) -> String {
        String::new()
    }

    fn started(&mut self, _: &str) -> String {
        String::new()
    }

    fn finished(&mut self, shown: &Shown<'_>) -> String {
        let (class, name) = shown.name.rsplit_once("::").unwrap_or(("", &shown.name));
        let time = shown
            .result
            .map_or(0.0, |result| result.duration.as_secs_f64());
        // A `String` takes all that is written to it.
        let _ = write!(
            self.cases,
            "<testcase classname=\"{}\" name=\"{}\" time=\"{time:.6}\"",
            escaped(class),
            escaped(name)
        );
        let inner = match shown.result {
            None => "<skipped/>".to_owned(),
            Some(result) => {
                let account = escaped(&account(result));
                match &result.outcome {
                    Outcome::Failed(failure) => {
                        let message = escaped(&failure.summary());
                        let kind = failure.name();
                        format!(
                            "<failure type=\"{kind}\" message=\"{message}\"/><system-out>{account}</system-out>"
                        )
                    }
                    _ if account.is_empty() => String::new(),
                    _ => format!("<system-out>{account}</system-out>"),
                }
            }
        };
        self.cases += &match inner.as_str() {
            "" => "/>\n".to_owned(),
            inner => format!(">{inner}</testcase>\n"),
        };
        String::new()
    }

    fn end(&mut self, counts: Counts, took: Duration) -> String {
        let Counts {
            passed,
            failed,
            ignored,
            ..
        } = counts;
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n\
             <testsuite name=\"test\" package=\"test\" id=\"0\" errors=\"0\" failures=\"{failed}\" \
             tests=\"{}\" skipped=\"{ignored}\" time=\"{:.6}\">\n{}</testsuite>\n</testsuites>\n",
            passed + failed + ignored,
            took.as_secs_f64(),
            self.cases
        )
    }
}

/// A text in XML. What is no character of XML was made visible before.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
