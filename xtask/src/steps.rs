//! Runs `cargo` commands one after the other with their output live, goes on after a failure, and
//! sums up at the end.

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::{interrupts::Interrupts, workspace};

/// How long a step's processes have to end by themselves when the user interrupts.
const GRACE: Duration = Duration::from_secs(3);

/// `cargo` with these arguments and further environment variables, or the reason why it is skipped.
pub(crate) struct Step {
    /// What the summary calls it.
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) skipped: Option<String>,
}

impl Step {
    /// A step that runs `cargo` with these words (none of which contains a space).
    pub(crate) fn cargo(name: &str, words: &str) -> Self {
        Self {
            name: name.to_owned(),
            args: words.split_whitespace().map(str::to_owned).collect(),
            env: Vec::new(),
            skipped: None,
        }
    }

    /// A step that is not run.
    pub(crate) fn skipped(name: &str, why: &str) -> Self {
        Self {
            skipped: Some(why.to_owned()),
            ..Self::cargo(name, "")
        }
    }

    /// Sets an environment variable.
    pub(crate) fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// The command as a shell takes it.
    fn shown(&self) -> String {
        let env = self.env.iter();
        let env = env.map(|(name, value)| format!("{name}='{}' ", value.to_string_lossy()));
        format!("{}cargo {}", env.collect::<String>(), self.args.join(" "))
    }
}

/// How a step ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
    /// With the exit status that says by which signal.
    Interrupted(u8),
}

struct Row {
    name: String,
    outcome: Outcome,
    time: Duration,
}

/// Runs all steps and prints the summary. SIGINT and SIGTERM end the running step's processes and
/// skip the rest.
pub(crate) fn run_all(steps: Vec<Step>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(run_steps(steps))?;
    let (text, status) = summary(&rows);
    println!("{text}");
    Ok(ExitCode::from(status))
}

async fn run_steps(steps: Vec<Step>) -> anyhow::Result<Vec<Row>> {
    let mut interrupts = Interrupts::listen()?;
    let count = steps.len();
    let mut rows = Vec::with_capacity(count);
    for (number, step) in (1..).zip(steps) {
        println!("\n==> {number}/{count} {}", step.name);
        let start = Instant::now();
        let outcome = run(&step, &mut interrupts).await?;
        let interrupted = matches!(outcome, Outcome::Interrupted(_));
        rows.push(Row {
            name: step.name,
            outcome,
            time: start.elapsed(),
        });
        if interrupted {
            break;
        }
    }
    Ok(rows)
}

async fn run(step: &Step, interrupts: &mut Interrupts) -> anyhow::Result<Outcome> {
    if let Some(why) = &step.skipped {
        println!("    skipped: {why}");
        return Ok(Outcome::Skipped(why.clone()));
    }
    println!("    $ {}", step.shown());
    let program = workspace::cargo();
    let mut child = Command::new(&program)
        .args(&step.args)
        .envs(step.env.iter().map(|(name, value)| (name, value)))
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        // A group of its own: Cargo, the compilers and the tests can be ended together, and the
        // terminal's Ctrl-C reaches us alone.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    tokio::select! {
        biased;
        status = interrupts.next() => {
            end(&mut child, GRACE).await?;
            Ok(Outcome::Interrupted(status))
        }
        status = child.wait() => Ok(outcome(status?)),
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    if status.success() {
        Outcome::Passed
    } else {
        Outcome::Failed(status.to_string())
    }
}

/// Ends a child and all that it started: by SIGTERM, then by SIGKILL.
async fn end(child: &mut Child, grace: Duration) -> anyhow::Result<()> {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Some(group) = group else { return Ok(()) }; // it has ended already
    println!("interrupted: ending the running step");
    kill_process_group(group, Signal::TERM).context("cannot end the running step")?;
    let all_gone = async {
        child.wait().await?;
        // Compilers and tests outlive Cargo by a moment; only the kernel knows when the last is
        // gone.
        while test_kill_process_group(group).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(grace, all_gone).await {
        Ok(ended) => ended,
        Err(_) => {
            // The last of them may have ended by itself just now.
            let _ = kill_process_group(group, Signal::KILL);
            child.wait().await?;
            Ok(())
        }
    }
}

/// The table of all steps with the closing line, which counts steps, and the exit status.
fn summary(rows: &[Row]) -> (String, u8) {
    let width = rows.iter().map(|row| row.name.len()).max();
    let width = width.unwrap_or_default();
    let mut lines = vec![String::new(), "summary".to_owned()];
    let (mut passed, mut failed, mut skipped, mut interrupted) = (0, 0, 0, None);
    for row in rows {
        let (word, note) = match &row.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(note) => ("FAILED", note.as_str()),
            Outcome::Skipped(note) => ("skipped", note.as_str()),
            Outcome::Interrupted(_) => ("interrupted", ""),
        };
        match row.outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(_) => failed += 1,
            Outcome::Skipped(_) => skipped += 1,
            Outcome::Interrupted(status) => interrupted = Some(status),
        }
        let seconds = row.time.as_secs_f64();
        let line = format!(
            "  {:<width$}  {word:<11}  {seconds:>6.1} s  {note}",
            row.name
        );
        lines.push(line.trim_end().to_owned());
    }
    let total: Duration = rows.iter().map(|row| row.time).sum();
    let seconds = total.as_secs_f64();
    lines.push(format!("  {:<width$}  {:11}  {seconds:>6.1} s", "all", ""));
    if interrupted.is_some() {
        lines.push("interrupted: the steps that follow were not run".to_owned());
    }
    let skipped = match skipped {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    lines.push(format!("{passed} passed, {failed} failed{skipped}"));
    let status = interrupted.unwrap_or(u8::from(failed > 0));
    (lines.join("\n"), status)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn row(name: &'static str, outcome: Outcome) -> Row {
        Row {
            name: name.to_owned(),
            outcome,
            time: Duration::from_millis(1250),
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn the_closing_line_counts_steps_and_the_table_names_them() {
        let (text, status) = summary(&[
            row("format", Outcome::Passed),
            row("clippy", Outcome::Failed("exit status: 101".to_owned())),
            row("tests with GDB", Outcome::Skipped("no GDB here".to_owned())),
        ]);
        assert_eq!(status, 1);
        assert_eq!(
            text,
            "\nsummary\n\
             \u{20} format          passed          1.2 s\n\
             \u{20} clippy          FAILED          1.2 s  exit status: 101\n\
             \u{20} tests with GDB  skipped         1.2 s  no GDB here\n\
             \u{20} all                             3.8 s\n\
             1 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn all_passed_and_interrupted_are_distinguished() {
        let (text, status) = summary(&[row("format", Outcome::Passed)]);
        assert!(text.ends_with("\n1 passed, 0 failed"), "{text}");
        assert_eq!(status, 0);
        let rows = [
            row("format", Outcome::Passed),
            row("clippy", Outcome::Interrupted(130)),
        ];
        let (text, status) = summary(&rows);
        assert!(text.contains("the steps that follow"), "{text}");
        assert_eq!(status, 130);
    }

    #[test]
    fn a_failing_step_does_not_keep_the_next_from_running() {
        let steps = vec![
            Step::cargo("bad", "--no-such-option"),
            Step::cargo("good", "--version"),
        ];
        let rows = block_on(run_steps(steps)).unwrap();
        let passed = rows.iter().map(|row| row.outcome == Outcome::Passed);
        assert_eq!(passed.collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_step_passes_with_status_0_only() {
        let rows = [
            (0, Outcome::Passed),
            (101 << 8, Outcome::Failed("exit status: 101".to_owned())),
            (15, Outcome::Failed("signal: 15 (SIGTERM)".to_owned())),
        ];
        for (raw, expected) in rows {
            assert_eq!(outcome(ExitStatus::from_raw(raw)), expected);
        }
    }

    #[test]
    fn an_interrupted_step_leaves_no_process() {
        block_on(async {
            // The second ignores SIGTERM and outlives the first.
            let script = "sh -c 'trap \"\" TERM; echo started; while :; do sleep 0.1; done' & wait";
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let mut output = child.stdout.take().unwrap();
            output.read_u8().await.unwrap();
            end(&mut child, Duration::from_millis(100)).await.unwrap();
            // Both write ends of the pipe are closed when both processes are gone.
            let mut rest = Vec::new();
            output.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"tarted\n");
        });
    }
}
