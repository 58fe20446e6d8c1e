//! `cargo xtask layers`: checks that the crates depend on each other only as the architecture says.
//!
//! Read from Cargo itself, so that no kind of dependency escapes: normal, build, dev, optional, for
//! one target.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use cargo_metadata::{Metadata, Package};

use crate::workspace;

/// Check that the crates depend on each other only as the architecture says
#[derive(clap::Args, Default)]
pub(crate) struct Args {}

/// Every crate of the workspace and its layer. A crate may depend on crates of lower layers, never
/// of its own: so the three lowest know nothing of each other.
const LAYERS: [(&str, u8); 5] = [
    ("qmp-proto", 0),
    ("qemu-launch", 0),
    ("gdb-port", 0),
    ("qemu-controller", 1),
    ("xtask", 2),
];

/// Crates that keep off sockets, clocks and tasks, and what therefore is not among their normal
/// dependencies, at whatever depth, unless somebody asks for it by a feature.
const SANS_IO: [(&str, &[&str]); 1] = [(
    "qmp-proto",
    &["tokio", "mio", "socket2", "async-io", "async-std", "smol"],
)];

pub(crate) fn run(Args {}: Args) -> anyhow::Result<()> {
    let metadata = workspace::metadata()?;
    let mut faults = layer_faults(&direct_dependencies(&metadata));
    for (name, forbidden) in SANS_IO {
        let found = normal_closure(name)?;
        for dependency in forbidden
            .iter()
            .filter(|dependency| found.contains(**dependency))
        {
            faults.push(format!(
                "{name} does no I/O, yet {dependency} is among its normal dependencies"
            ));
        }
    }
    if faults.is_empty() {
        let layers = LAYERS
            .map(|(name, layer)| format!("{name} ({layer})"))
            .join(", ");
        println!("the layers hold: {layers}");
        return Ok(());
    }
    bail!("the layers do not hold:\n  {}", faults.join("\n  "))
}

/// For each crate of the workspace the names of all that its manifest mentions as a dependency, of
/// any kind.
fn direct_dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let names = |package: &Package| {
        package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.clone())
            .collect()
    };
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.to_string(), names(package)))
        .collect()
}

fn layer_faults(dependencies: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let layer = |name: &str| {
        LAYERS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, layer)| *layer)
    };
    let mut faults = Vec::new();
    for (name, dependencies) in dependencies {
        let Some(own) = layer(name) else {
            faults.push(format!(
                "{name} has no layer yet: give it one in xtask/src/layers.rs"
            ));
            continue;
        };
        for dependency in dependencies {
            if let Some(other) = layer(dependency)
                && other >= own
            {
                faults.push(format!(
                    "{name} (layer {own}) must not depend on {dependency} (layer {other})"
                ));
            }
        }
    }
    for (name, _) in LAYERS
        .iter()
        .filter(|(name, _)| !dependencies.contains_key(*name))
    {
        faults.push(format!("{name} has a layer, but is not in the workspace"));
    }
    faults
}

/// All that gets linked into whoever uses a crate with its default features, on any target: its
/// normal dependencies, and theirs. Asked of `cargo tree`, because `cargo metadata` mixes in the
/// features that other crates of the workspace ask for.
fn normal_closure(name: &str) -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new(workspace::cargo())
        .current_dir(workspace::root())
        .args([
            "tree",
            "--package",
            name,
            "--edges",
            "normal",
            "--target",
            "all",
            "--prefix",
            "none",
        ])
        .output()
        .context("cannot run cargo tree")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    // A line is a name, a version, and perhaps notes in brackets.
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(changes: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let mut crates: BTreeMap<String, BTreeSet<String>> = LAYERS
            .iter()
            .map(|(name, _)| ((*name).to_owned(), BTreeSet::new()))
            .collect();
        for (name, dependencies) in changes {
            crates.insert(
                (*name).to_owned(),
                dependencies.iter().map(|name| (*name).to_owned()).collect(),
            );
        }
        crates
    }

    #[test]
    fn arrows_that_go_down_hold_and_others_do_not() {
        let table: [(&str, &[&str], &[&str]); 7] = [
            (
                "qemu-controller",
                &["qmp-proto", "qemu-launch", "gdb-port", "tokio"],
                &[],
            ),
            ("xtask", &["qemu-controller", "qmp-proto"], &[]),
            ("qmp-proto", &["serde", "bytes"], &[]),
            (
                "qmp-proto",
                &["gdb-port"],
                &["qmp-proto (layer 0) must not depend on gdb-port (layer 0)"],
            ),
            (
                "gdb-port",
                &["qemu-launch"],
                &["gdb-port (layer 0) must not depend on qemu-launch (layer 0)"],
            ),
            (
                "qemu-launch",
                &["qemu-controller"],
                &["qemu-launch (layer 0) must not depend on qemu-controller (layer 1)"],
            ),
            (
                "extra",
                &[],
                &["extra has no layer yet: give it one in xtask/src/layers.rs"],
            ),
        ];
        for (name, dependencies, expected) in table {
            assert_eq!(
                layer_faults(&workspace(&[(name, dependencies)])),
                expected,
                "{name} -> {dependencies:?}"
            );
        }
    }

    #[test]
    fn a_crate_that_left_the_workspace_leaves_the_table_too() {
        let mut crates = workspace(&[]);
        crates.remove("gdb-port");
        assert_eq!(
            layer_faults(&crates),
            ["gdb-port has a layer, but is not in the workspace"]
        );
    }

    #[test]
    fn the_closure_follows_normal_dependencies_to_any_depth_and_no_others() {
        let closure = normal_closure("xtask").unwrap();
        assert!(
            closure.contains("tokio"),
            "a direct dependency: {closure:?}"
        );
        assert!(
            closure.contains("clap_builder"),
            "a dependency of a dependency: {closure:?}"
        );
        let closure = normal_closure("qmp-proto").unwrap();
        assert!(
            closure.contains("serde_core"),
            "a dependency of a dependency: {closure:?}"
        );
        assert!(
            !closure.contains("proptest"),
            "a dependency of the tests alone: {closure:?}"
        );
        assert!(normal_closure("no-such-crate").is_err());
    }
}
