//! The test suites themselves, again and again: none may fail, not even once.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::{
    figures::{Belongings, Row},
    progress::Progress,
};
use crate::workspace;

/// The session's tests on QEMU whose names have one of these words, with as many rounds as they are
/// meant to have (`long`) or a few.
pub(super) fn session_tests(words: &[&str], long: bool) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args("test --quiet --package qemu-controller --all-features --test qemu --".split(' '));
    command.args(words).current_dir(workspace::root());
    command.envs(long.then_some(("QEMU_CONTROLLER_LONG", "1")));
    command
}

/// `cargo xtask test`, all of it.
pub(super) fn all_tests() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["test", "--no-install"]);
    Ok(command)
}

/// Runs a command so many times; its output is shown if it fails.
pub(super) async fn again(
    part: &'static str,
    times: u64,
    mut command: Command,
) -> anyhow::Result<Row> {
    let mut progress = Progress::new(part, times);
    let before = Belongings::count();
    command.stdin(Stdio::null()).kill_on_drop(true);
    for number in 1..=times {
        let output = command
            .output()
            .await
            .with_context(|| format!("cannot run {part}"))?;
        if !output.status.success() {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            println!("{stdout}\n{stderr}");
            let status = output.status;
            bail!("run {number} of {times} failed: {status}; its output is above");
        }
        progress.set(number);
    }
    Ok(Row {
        part: part.to_owned(),
        amount: format!("{times} runs"),
        before,
        after: Belongings::settled(&before).await,
        ..Row::default()
    })
}
