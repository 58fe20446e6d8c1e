//! The crates depend on each other only as docs/architecture.md says: arrows go down.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cargo_metadata::MetadataCommand;

/// Every crate of the workspace and those of the workspace that it may depend on.
const LAYERS: [(&str, &[&str]); 9] = [
    ("qmp-proto", &["test-support"]),
    ("qemu-launch", &["test-support"]),
    ("gdb-remote", &["test-support"]),
    ("gdb-port", &["gdb-remote", "test-support"]),
    ("firmware-info", &["test-support"]),
    (
        "qemu-controller",
        &[
            "qmp-proto",
            "qemu-launch",
            "gdb-port",
            "gdb-remote",
            "firmware-info",
            "test-support",
        ],
    ),
    (
        "qemu-controller-cli",
        &["qemu-controller", "gdb-remote", "test-support"],
    ),
    ("xtask", &["qemu-controller", "qemu-launch", "test-support"]),
    ("test-support", &[]),
];

#[test]
fn each_crate_depends_on_lower_ones_alone() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let packages = metadata.workspace_packages();
    let members: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    assert_eq!(members, LAYERS.iter().map(|(name, _)| *name).collect());
    for package in packages {
        let name = package.name.as_str();
        let (_, allowed) = LAYERS.iter().find(|(layer, _)| *layer == name).unwrap();
        for dependency in &package.dependencies {
            let other = dependency.name.as_str();
            assert!(
                !members.contains(other) || allowed.contains(&other),
                "{name} must not depend on {other}"
            );
        }
    }
}

/// The names of all crates that one pulls in with these features. Asked of `cargo tree`: `cargo
/// metadata` mixes in the features that other crates ask for.
fn pulled_in(package: &str, features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--features", features])
        .args(["--edges", "normal", "--target", "all", "--prefix", "none"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    text.lines().filter_map(first).collect()
}

#[test]
fn the_sans_io_crates_pull_in_no_runtime_and_no_socket() {
    for (package, known) in [("qmp-proto", "serde_core"), ("gdb-remote", "quick-xml")] {
        let names = pulled_in(package, "");
        assert!(names.contains(known), "{names:?}");
        for forbidden in ["tokio", "mio", "socket2", "async-io", "smol"] {
            assert!(!names.contains(forbidden), "{forbidden} in {names:?}");
        }
    }
}

/// What `qemu-controller`'s Cargo.toml says of its features.
#[test]
fn a_feature_that_is_off_costs_no_crate() {
    let crates = |features| pulled_in("qemu-controller", features);
    let (none, source) = (crates(""), crates("source"));
    assert!(
        none.contains("object") && !none.contains("gimli"),
        "{none:?}"
    );
    assert_eq!(crates("debugger"), none);
    assert!(source.contains("gimli") && source.is_superset(&none));
    assert_eq!(source.len(), none.len() + 6, "{source:?}");
    for features in ["bundle", "coverage", "rtt", "tests"] {
        assert!(crates(features).is_subset(&source), "{features}");
    }
}

/// Folders of `qemu-controller/src` and what they must not name, as the head of `client/mod.rs` says.
const FOLDERS: [(&str, &[&str]); 9] = [
    ("client", &["session", "guest", "snapshot", "fork"]),
    ("guest", &["snapshot", "fork"]),
    ("snapshot", &["guest", "fork"]),
    ("fork", &["guest", "debug", "semihosting", "testing"]),
    (
        "serial",
        &["session", "guest", "snapshot", "fork", "verdict"],
    ),
    // A debugger forks the guest that it has stopped.
    ("debug", &["snapshot", "semihosting", "testing"]),
    ("source", &["snapshot", "fork", "semihosting", "testing"]),
    ("semihosting", &["snapshot", "fork", "testing"]),
    ("bundle", &["semihosting", "testing"]),
];

#[test]
fn each_folder_of_the_session_names_lower_ones_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu-controller/src");
    for (folder, forbidden) in FOLDERS {
        for entry in std::fs::read_dir(src.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for other in forbidden {
                let named = text.contains(&format!("crate::{other}"));
                assert!(!named, "{} names {other}", path.display());
            }
        }
    }
}
