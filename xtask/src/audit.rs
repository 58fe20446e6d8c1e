//! `cargo xtask audit`: what comes into the graph of dependencies, and what would be published.

use std::process::{Command, ExitCode, Stdio};

use crate::{
    setup::cargo_tool,
    steps::{self, Step},
    workspace,
};

/// Check licences, duplicates, sources and advisories of the dependencies, and build each crate as
/// it would be published
///
/// By cargo-deny and its settings in deny.toml; installed from crates.io where it is missing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: stop where cargo-deny is missing
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    cargo_tool::ensure("deny", args.no_install)?;
    let advisories = if has_advisories() {
        Step::cargo("advisories", "deny check advisories")
    } else {
        Step::left_out(
            "advisories",
            "their database cannot be fetched from github.com here",
        )
    };
    let steps = vec![
        Step::cargo("dependencies", "deny check licenses bans sources"),
        advisories,
        // Built from what is packed, as a user gets it; what is not yet committed is in it.
        Step::cargo(
            "packages",
            "package --workspace --exclude xtask --allow-dirty",
        ),
    ];
    Ok(steps::run_all(steps)?.into())
}

/// Whether the database of advisories is there, or could be fetched just now.
fn has_advisories() -> bool {
    let mut fetch = Command::new(workspace::cargo());
    fetch
        .args(["deny", "fetch", "db"])
        .current_dir(workspace::root());
    let status = fetch
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
