//! A verdict with what the firmware said before: for an assertion in a test.

use std::fmt;
use std::time::Duration;

use super::Verdict;
use crate::escape;
use crate::session::Session;

/// How a run ended, with the last lines of each port and of stderr; by
/// [`Session::report_of_run`].
///
/// Its `Display`, and its `Debug`, so that `unwrap` shows it, are for people: the verdict, and then
/// what was said last.
#[derive(Clone)]
#[non_exhaustive]
pub struct VerdictReport {
    /// How it ended.
    pub verdict: Verdict,
    /// What was said last: by whom, and its last lines, read or not; those who said nothing are left
    /// out.
    pub last_lines: Vec<(String, String)>,
}

impl Session {
    /// As [`run_to_end`](Self::run_to_end), with what the firmware said last.
    pub async fn report_of_run(&self, deadline: Duration) -> VerdictReport {
        let verdict = self.run_to_end(deadline).await;
        let ports = self.inner.serials.iter().enumerate();
        let ports = ports.filter_map(|(number, port)| {
            let name = format!("serial port {number}");
            Some((name, port.as_ref()?.last_lines()))
        });
        let console = self.inner.semihosting.iter();
        let console = console.map(|port| ("semihosting".to_owned(), port.last_lines()));
        let stderr = self.process().map(|process| {
            let said = process.stderr_tail().to_string_lossy();
            ("stderr".to_owned(), last(&said))
        });
        let last_lines = ports.chain(console).chain(stderr);
        VerdictReport {
            verdict,
            last_lines: last_lines
                .filter(|(_, lines)| !lines.trim().is_empty())
                .collect(),
        }
    }

    /// Runs the firmware to its end, and panics unless it ended
    /// [well](Verdict::success) within the deadline: with the verdict, and what it said last on
    /// each port and on stderr.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn test(session: qemu_controller::Session) {
    /// session.assert_success(Duration::from_secs(10)).await;
    /// # }
    /// ```
    ///
    /// # Panics
    /// See above.
    pub async fn assert_success(&self, deadline: Duration) {
        let report = self.report_of_run(deadline).await;
        assert!(report.verdict.success(), "{report}");
    }
}

/// How many lines of stderr are shown.
const SHOWN_LINES: usize = 10;

/// The last lines of a text, made safe to be shown.
fn last(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    shown.iter().map(|line| escape::line(line) + "\n").collect()
}

impl fmt::Display for VerdictReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict.fmt(f)?;
        if self.last_lines.is_empty() {
            return f.write_str("\nthe firmware had said nothing");
        }
        for (who, lines) in &self.last_lines {
            write!(f, "\nthe last lines on {who}:")?;
            for line in lines.lines() {
                // Those of a port are indented already.
                write!(f, "\n    {}", line.strip_prefix("  ").unwrap_or(line))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for VerdictReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
