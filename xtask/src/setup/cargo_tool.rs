//! Subcommands of Cargo that some verbs need: installed from crates.io where they are missing.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::workspace;

/// Makes sure that `cargo NAME` is there; installs the crate `cargo-NAME` where that is allowed.
pub(crate) fn ensure(name: &str, no_install: bool) -> anyhow::Result<()> {
    let quiet = Command::new(workspace::cargo())
        .args([name, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if quiet.success() {
        return Ok(());
    }
    let install = format!("cargo install --locked cargo-{name}");
    ensure!(
        !no_install,
        "cargo-{name} is not installed; install it with `{install}`"
    );
    eprintln!("cargo-{name} is not installed. It is installed now, with: {install}");
    let status = Command::new(workspace::cargo())
        .args(install.split(' ').skip(1))
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo-{name} could not be installed");
    Ok(())
}
