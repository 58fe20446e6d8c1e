//! The test suites themselves, again and again: none may fail, not even once.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::{
    figures::{Belongings, Row},
    progress::Progress,
};
use crate::workspace;

/// The kill matrix of the session, and that of saves and loads.
pub(super) async fn kills(times: u32) -> anyhow::Result<Row> {
    let command = session_tests(&["kill_matrix", "snapshots::killed"]);
    again("kills", "kill matrices", times, command).await
}

/// Each way in which a run of firmware ends, in fifty rounds where the tests do two.
pub(super) async fn verdicts(long: bool) -> anyhow::Result<Row> {
    let mut command = session_tests(&["verdicts"]);
    if long {
        command.env("QEMU_CONTROLLER_LONG", "1");
    }
    again(
        "verdicts",
        if long {
            "run of fifty rounds"
        } else {
            "run of two rounds"
        },
        1,
        command,
    )
    .await
}

/// Those of the session's tests on QEMU whose names have one of these words.
fn session_tests(words: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args("test --quiet --package qemu-controller --all-features --test qemu --".split(' '));
    command.args(words).current_dir(workspace::root());
    command
}

/// `cargo xtask test`, all of it.
pub(super) async fn tests(times: u32) -> anyhow::Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["test", "--no-install"]);
    again("tests", "runs of all tests", times, command).await
}

async fn again(
    part: &'static str,
    unit: &str,
    times: u32,
    mut command: Command,
) -> anyhow::Result<Row> {
    let mut progress = Progress::new(part, times.into());
    let before = Belongings::count();
    command.stdin(Stdio::null()).kill_on_drop(true);
    for number in 1..=times {
        let output = command
            .output()
            .await
            .with_context(|| format!("cannot run {part}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            let complained = String::from_utf8_lossy(&output.stderr);
            println!("{said}\n{complained}");
            bail!(
                "run {number} of {times} failed: {}; what it said is above",
                output.status
            );
        }
        progress.set(number.into());
    }
    let after = Belongings::settled(&before).await;
    Ok(Row {
        part: part.to_owned(),
        amount: format!("{times} {unit}"),
        before,
        after,
        ..Row::default()
    })
}
