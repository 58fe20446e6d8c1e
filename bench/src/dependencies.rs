//! What a user of `qemu-controller` pulls in and waits for, beside a user of `qapi`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::Bench;
use crate::report::{Limit, Report};
use crate::stats::{Contender, Spread, take_turns};

const OURS: &str = "qemu-controller";
const THEIRS: &str = "qapi 0.15 with its tokio features";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let users = [
        (
            OURS,
            format!(
                "qemu-controller = {{ path = {:?} }}",
                bench.root.join("qemu-controller")
            ),
        ),
        (
            THEIRS,
            r#"qapi = { version = "0.15.0", features = ["qmp", "async-tokio-all"] }"#.to_owned(),
        ),
    ];
    let folder = tempfile::tempdir_in(&bench.out)?;
    let mut manifests = Vec::new();
    for (number, (who, dependency)) in users.into_iter().enumerate() {
        let manifest = user(&folder.path().join(number.to_string()), &dependency)?;
        let crates = crates(&manifest)?.len() as f64;
        report.row("what a library user pulls in", ("crates", ""), who, crates);
        if who == OURS {
            let figure = Spread {
                median: crates,
                min: crates,
                max: crates,
            };
            report.aim(
                "crates that a user of qemu-controller pulls in",
                Some(figure),
                Limit::AtMost(45.0),
            );
        }
        manifests.push((who, manifest));
    }
    let what = "clean release build, against qapi with its tokio features";
    if bench.quick {
        report.aim(what, None, Limit::AtMost(1.0));
        report
            .left_out
            .push("the clean release builds: they take minutes, so not with --quick".to_owned());
        return Ok(());
    }
    let builds = manifests
        .iter()
        .map(|(who, manifest)| Contender::new(who, || Ok(vec![build(manifest)?])));
    let measured = take_turns(2, builds.collect())?;
    report.rows("clean release build", &[("time", "s")], &measured);
    report.ratio(what, &measured, (OURS, THEIRS), 0, Limit::AtMost(1.0));
    Ok(())
}

/// A package that depends on one crate, with the versions of our lock file.
fn user(folder: &Path, dependency: &str) -> Result<PathBuf> {
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("src/lib.rs"), "")?;
    let package =
        "[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n";
    let manifest = folder.join("Cargo.toml");
    fs::write(
        &manifest,
        format!("{package}\n[dependencies]\n{dependency}\n"),
    )?;
    fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"),
        folder.join("Cargo.lock"),
    )?;
    Ok(manifest)
}

/// All that are compiled for it on this system, the crate itself included.
fn crates(manifest: &Path) -> Result<BTreeSet<String>> {
    let mut cargo = Command::new(cargo());
    cargo.args([
        "tree",
        "--quiet",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--manifest-path",
    ]);
    let output = cargo.arg(manifest).output().context("cargo can't be run")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    // Name and version alone: the rest of the line may say where it lies, or that it stood above.
    let name = |line: &str| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(text
        .lines()
        .map(name)
        .filter(|name| !name.is_empty() && !name.starts_with("user "))
        .collect())
}

fn build(manifest: &Path) -> Result<f64> {
    let folder = manifest.parent().context("it has a folder")?;
    let target = folder.join("target");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let since = Instant::now();
    let mut cargo = Command::new(cargo());
    cargo
        .args(["build", "--quiet", "--release", "--manifest-path"])
        .arg(manifest);
    cargo
        .arg("--target-dir")
        .arg(&target)
        .current_dir(folder)
        .stdin(Stdio::null());
    let status = cargo.status().context("cargo can't be run")?;
    ensure!(status.success(), "{}: {status}", manifest.display());
    Ok(since.elapsed().as_secs_f64())
}

/// The Cargo that runs us.
fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
