//! Runs steps one after the other with their output live, goes on after a failure, and sums up at
//! the end.

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::{interrupts::Interrupts, workspace};

/// How long a step's processes have to end by themselves when the user interrupts.
const GRACE: Duration = Duration::from_secs(3);

/// One step, with the name that the summary shows.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) action: Action,
}

/// What a step does.
pub(crate) enum Action {
    /// `cargo` with these arguments, and with more environment variables where somebody takes
    /// settings there.
    Cargo {
        args: Vec<String>,
        env: Vec<(&'static str, OsString)>,
    },
    /// A check of ours; its report is on stdout, its fault in the error.
    Check(fn() -> anyhow::Result<()>),
    /// Nothing: why it is left out, in plain words.
    LeftOut(String),
}

impl Step {
    /// A step that runs `cargo` with these words (none of which contains a space).
    pub(crate) fn cargo(name: &str, words: &str) -> Self {
        let args = words.split_whitespace().map(str::to_owned).collect();
        Self {
            name: name.to_owned(),
            action: Action::Cargo {
                args,
                env: Vec::new(),
            },
        }
    }

    /// A step that runs a check of ours.
    pub(crate) fn check(name: &str, check: fn() -> anyhow::Result<()>) -> Self {
        Self {
            name: name.to_owned(),
            action: Action::Check(check),
        }
    }

    /// A step that is not run.
    pub(crate) fn left_out(name: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            action: Action::LeftOut(why.to_owned()),
        }
    }

    /// Sets an environment variable for a step that runs `cargo`.
    pub(crate) fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        if let Action::Cargo { env, .. } = &mut self.action {
            env.push((name, value.into()));
        }
        self
    }
}

/// How a step ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    Passed,
    Failed(String),
    LeftOut(String),
    Interrupted(u8),
}

struct Row {
    name: String,
    outcome: Outcome,
    time: Duration,
}

/// How all steps together ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// With the exit status that says by which signal.
    Interrupted(u8),
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::SUCCESS,
            Verdict::Failed => Self::FAILURE,
            Verdict::Interrupted(status) => Self::from(status),
        }
    }
}

/// Runs all steps and prints the summary. SIGINT and SIGTERM end the running step's processes and
/// skip the rest.
pub(crate) fn run_all(steps: Vec<Step>) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(run_steps(steps))?;
    let (text, verdict) = summary(&rows);
    println!("{text}");
    Ok(verdict)
}

async fn run_steps(steps: Vec<Step>) -> anyhow::Result<Vec<Row>> {
    let mut interrupts = Interrupts::listen()?;
    let count = steps.len();
    let mut rows = Vec::with_capacity(count);
    for (number, Step { name, action }) in (1..).zip(steps) {
        println!("\n==> {number}/{count} {name}");
        let start = Instant::now();
        let outcome = match action {
            Action::Check(check) => match check() {
                Ok(()) => Outcome::Passed,
                Err(error) => {
                    println!("{error:#}");
                    Outcome::Failed("see above".to_owned())
                }
            },
            Action::Cargo { args, env } => cargo(&args, &env, &mut interrupts).await?,
            Action::LeftOut(why) => {
                println!("    left out: {why}");
                Outcome::LeftOut(why)
            }
        };
        // A check of ours takes a moment and cannot be ended half way.
        let outcome = match (outcome, interrupts.pending().await) {
            (Outcome::Passed, Some(status)) => Outcome::Interrupted(status),
            (outcome, _) => outcome,
        };
        let interrupted = matches!(outcome, Outcome::Interrupted(_));
        rows.push(Row {
            name,
            outcome,
            time: start.elapsed(),
        });
        if interrupted {
            break;
        }
    }
    Ok(rows)
}

async fn cargo(
    args: &[String],
    env: &[(&'static str, OsString)],
    interrupts: &mut Interrupts,
) -> anyhow::Result<Outcome> {
    let prefix: String = env
        .iter()
        .map(|(name, value)| format!("{name}='{}' ", value.to_string_lossy()))
        .collect();
    println!("    $ {prefix}cargo {}", args.join(" "));
    let program = workspace::cargo();
    let mut child = Command::new(&program)
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(workspace::root())
        .stdin(std::process::Stdio::null())
        // A group of its own, so that Cargo, the compilers and the tests can be ended together, and
        // so that the terminal's Ctrl-C reaches us alone.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    tokio::select! {
        status = child.wait() => Ok(outcome(status?)),
        status = interrupts.next() => {
            end(&mut child, GRACE).await?;
            Ok(Outcome::Interrupted(status))
        }
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    if status.success() {
        Outcome::Passed
    } else {
        Outcome::Failed(status.to_string())
    }
}

/// Ends a child and all that it started: politely, then for good.
async fn end(child: &mut Child, grace: Duration) -> anyhow::Result<()> {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Some(group) = group else { return Ok(()) }; // it has ended already
    println!("interrupted: ending the running step");
    kill_process_group(group, Signal::TERM).context("cannot end the running step")?;
    let all_gone = async {
        child.wait().await?;
        // Compilers and tests outlive Cargo by a moment; nobody but the kernel can tell when the
        // last is gone.
        while test_kill_process_group(group).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(grace, all_gone).await {
        Ok(ended) => ended,
        Err(_) => {
            // Whoever is left may also have just ended.
            let _ = kill_process_group(group, Signal::KILL);
            child.wait().await?;
            Ok(())
        }
    }
}

/// The table of all steps and the closing line, which counts steps.
fn summary(rows: &[Row]) -> (String, Verdict) {
    let width = rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or_default();
    let mut lines = vec![String::new(), "summary".to_owned()];
    let (mut passed, mut failed, mut left_out, mut interrupted) = (0, 0, 0, None);
    for Row {
        name,
        outcome,
        time,
    } in rows
    {
        let (word, note) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(note) => ("FAILED", note.as_str()),
            Outcome::LeftOut(note) => ("left out", note.as_str()),
            Outcome::Interrupted(_) => ("interrupted", ""),
        };
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(_) => failed += 1,
            Outcome::LeftOut(_) => left_out += 1,
            Outcome::Interrupted(status) => interrupted = Some(*status),
        }
        let line = format!(
            "  {name:<width$}  {word:<11}  {:>6.1} s  {note}",
            time.as_secs_f64()
        );
        lines.push(line.trim_end().to_owned());
    }
    let total: Duration = rows.iter().map(|row| row.time).sum();
    lines.push(format!(
        "  {:<width$}  {:11}  {:>6.1} s",
        "all",
        "",
        total.as_secs_f64()
    ));
    if interrupted.is_some() {
        lines.push("interrupted: the steps that follow were not run".to_owned());
    }
    let skipped = if left_out > 0 {
        format!(", {left_out} skipped")
    } else {
        String::new()
    };
    lines.push(format!("{passed} passed, {failed} failed{skipped}"));
    let verdict = match (interrupted, failed) {
        (Some(status), _) => Verdict::Interrupted(status),
        (None, 0) => Verdict::Passed,
        (None, _) => Verdict::Failed,
    };
    (lines.join("\n"), verdict)
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

    #[test]
    fn the_closing_line_counts_steps_and_the_table_names_them() {
        let (text, verdict) = summary(&[
            row("format", Outcome::Passed),
            row("clippy", Outcome::Failed("exit status: 101".to_owned())),
            row("tests with GDB", Outcome::LeftOut("no GDB here".to_owned())),
        ]);
        assert_eq!(verdict, Verdict::Failed);
        assert_eq!(
            text,
            "\nsummary\n\
             \u{20} format          passed          1.2 s\n\
             \u{20} clippy          FAILED          1.2 s  exit status: 101\n\
             \u{20} tests with GDB  left out        1.2 s  no GDB here\n\
             \u{20} all                             3.8 s\n\
             1 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn all_passed_and_interrupted_are_told_apart() {
        let (text, verdict) = summary(&[row("format", Outcome::Passed)]);
        assert!(text.ends_with("\n1 passed, 0 failed"), "{text}");
        assert_eq!(verdict, Verdict::Passed);
        let (text, verdict) = summary(&[
            row("format", Outcome::Passed),
            row("clippy", Outcome::Interrupted(130)),
        ]);
        assert!(
            text.contains("interrupted: the steps that follow"),
            "{text}"
        );
        assert_eq!(verdict, Verdict::Interrupted(130));
    }

    #[test]
    fn a_failing_step_does_not_keep_the_next_from_running() {
        let steps = vec![
            Step::check("bad", || anyhow::bail!("on purpose")),
            Step::check("good", || Ok(())),
            Step::cargo("cargo", "--version"),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let rows = runtime.block_on(run_steps(steps)).unwrap();
        let passed = rows
            .iter()
            .map(|row| row.outcome == Outcome::Passed)
            .collect::<Vec<_>>();
        assert_eq!(passed, [false, true, true]);
    }

    #[test]
    fn a_step_passes_with_status_0_only() {
        let outcomes = [0, 101 << 8, 15].map(|raw| outcome(ExitStatus::from_raw(raw)));
        let failed = |text: &str| Outcome::Failed(text.to_owned());
        assert_eq!(
            outcomes,
            [
                Outcome::Passed,
                failed("exit status: 101"),
                failed("signal: 15 (SIGTERM)")
            ]
        );
    }

    #[test]
    fn an_interrupted_step_leaves_no_process() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // The second ignores SIGTERM and outlives the first.
            let script = "sh -c 'trap \"\" TERM; echo started; while :; do sleep 0.1; done' & wait";
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .stdout(std::process::Stdio::piped())
                .process_group(0);
            let mut child = command.spawn().unwrap();
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
