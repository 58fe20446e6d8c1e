//! `cargo xtask fuzz`: the fuzz targets, each for a given time, from their seeds and what earlier
//! runs found.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use cargo_metadata::{MetadataCommand, TargetKind};

use crate::{
    setup::cargo_tool,
    steps::{self, Step},
    workspace,
};

/// Fuzz: every target for a time, from its seeds; installs cargo-fuzz where it is missing
///
/// Inputs that reach new code are kept in fuzz/corpus/TARGET (not in git) and are where the next
/// run begins. What makes a target fail is in fuzz/artifacts/TARGET: `cargo fuzz run TARGET FILE`
/// runs it again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets [default: all]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Say which targets there are, and run none
    #[arg(long)]
    list: bool,
    /// Install nothing: stop where cargo-fuzz is missing
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let known = targets(&root)?;
    if args.list {
        println!("{}", known.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!(
            "there is no fuzz target '{unknown}', only {}",
            known.join(", ")
        );
    }
    cargo_tool::ensure("fuzz", args.no_install)?;
    let targets = if args.targets.is_empty() {
        known
    } else {
        args.targets
    };
    for target in &targets {
        // Where new inputs go; libFuzzer does not make it.
        fs::create_dir_all(root.join("fuzz/corpus").join(target))?;
    }
    let steps = targets
        .iter()
        .map(|target| step(target, args.seconds))
        .collect();
    Ok(steps::run_all(steps)?.into())
}

/// The targets are the binaries of the fuzz workspace.
fn targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .cargo_path(workspace::cargo())
        .manifest_path(root.join("fuzz/Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let targets = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets);
    let targets = targets.filter(|target| target.kind.contains(&TargetKind::Bin));
    Ok(targets.map(|target| target.name.clone()).collect())
}

fn step(target: &str, seconds: u32) -> Step {
    let words = format!(
        "fuzz run {target} fuzz/corpus/{target} fuzz/seeds/{target} -- -max_total_time={seconds} -print_final_stats=1"
    );
    // libFuzzer's instrumentation is not in stable Rust, whose compiler has it all the same.
    Step::cargo(target, &words).with_env("RUSTC_BOOTSTRAP", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds_and_every_folder_of_seeds_a_target() {
        let root = workspace::root();
        let mut known = targets(&root).unwrap();
        known.sort();
        let folders = fs::read_dir(root.join("fuzz/seeds")).unwrap();
        let mut seeded: Vec<_> = folders
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        seeded.sort();
        assert_eq!(seeded, known);
    }
}
