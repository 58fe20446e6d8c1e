//! `cargo xtask coverage`: how much of each crate the tests run, as a figure; it is no gate.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    setup::{self, cargo_tool},
    workspace,
};

/// Measure how much of each crate its tests run, those on real QEMU included
///
/// By cargo-llvm-cov, which is installed from crates.io where it is missing, as is the toolchain's
/// component llvm-tools. Everything is built once more for it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: stop where something is missing
    #[arg(long)]
    no_install: bool,
    /// Write a report to read beside the source, target/llvm-cov/html
    #[arg(long)]
    html: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    setup::ensure_qemu(args.no_install)?;
    cargo_tool::ensure("llvm-cov", args.no_install)?;
    if !args.no_install {
        // Where there is no rustup, the tools may be there all the same; cargo-llvm-cov says if
        // not.
        let mut component = Command::new("rustup");
        component
            .args(["component", "add", "llvm-tools"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        drop(component.status());
    }
    let tests =
        "llvm-cov --no-report --workspace --all-features --no-fail-fast --lib --bins --tests";
    cargo(&tests.split(' ').collect::<Vec<_>>())?;
    if args.html {
        cargo(&["llvm-cov", "report", "--html"])?;
    }
    let report = Command::new(workspace::cargo())
        .args(["llvm-cov", "report", "--json", "--summary-only"])
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        report.status.success(),
        "cargo llvm-cov report failed: {}",
        report.status
    );
    let report = serde_json::from_slice(&report.stdout).context("the report is no JSON")?;
    println!("{}", table(&report, &workspace::root())?);
    Ok(())
}

fn cargo(args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(workspace::cargo());
    let status = command
        .args(args)
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .status()?;
    ensure!(
        status.success(),
        "cargo {} failed: {status}",
        args.join(" ")
    );
    Ok(())
}

/// Lines that the tests run, of lines that could be run.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Lines {
    run: u64,
    all: u64,
}

/// Of each crate and of all; sources alone, not the tests themselves.
fn table(report: &Value, root: &Path) -> anyhow::Result<String> {
    let mut crates = BTreeMap::<String, Lines>::new();
    let mut total = Lines::default();
    for file in report["data"][0]["files"]
        .as_array()
        .context("the report names no files")?
    {
        let path = file["filename"].as_str().context("a file without a name")?;
        let Ok(path) = Path::new(path).strip_prefix(root) else {
            continue;
        };
        let mut parts = path.iter().map(|part| part.to_string_lossy());
        let (Some(name), Some(folder)) = (parts.next(), parts.next()) else {
            continue;
        };
        if folder != "src" {
            continue;
        }
        let lines = &file["summary"]["lines"];
        for sum in [crates.entry(name.into_owned()).or_default(), &mut total] {
            sum.run += lines["covered"].as_u64().unwrap_or_default();
            sum.all += lines["count"].as_u64().unwrap_or_default();
        }
    }
    let rows = crates
        .into_iter()
        .chain([("all".to_owned(), total)])
        .map(|(name, lines)| {
            let percent = lines.run as f64 * 100.0 / lines.all.max(1) as f64;
            format!(
                "{name:<16} {percent:>5.1} %  {} of {} lines",
                lines.run, lines.all
            )
        });
    Ok(rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_summed_by_crate_and_tests_are_no_source() {
        let file = |name: &str, covered: u64, count: u64| json!({ "filename": name, "summary": { "lines": { "covered": covered, "count": count } } });
        let files = [
            file("/w/a/src/lib.rs", 1, 2),
            file("/w/a/src/b/c.rs", 2, 2),
            file("/w/a/tests/t.rs", 0, 9),
            file("/w/b/src/lib.rs", 0, 4),
            file("/elsewhere/src/lib.rs", 9, 9),
        ];
        let table = table(&json!({ "data": [{ "files": files }] }), Path::new("/w")).unwrap();
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "a 75.0 % 3 of 4 lines",
                "b 0.0 % 0 of 4 lines",
                "all 37.5 % 3 of 8 lines"
            ]
        );
    }
}
