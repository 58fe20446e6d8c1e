//! Cargo's runner: `cargo run` and `cargo test` of the embedded crate in `examples/` go through
//! QEMU.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::Said;

/// Runs Cargo in the example, as its user would; its build goes where ours does.
fn cargo(words: &[&str]) -> Output {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/embedded");
    let runner = Path::new(env!("CARGO_BIN_EXE_qemu-controller"))
        .parent()
        .unwrap()
        .to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(runner).chain(std::env::split_paths(&path))).unwrap();
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Told here once more: what calls us may have set the target or the flags for its own build.
    Command::new(cargo)
        .args(words)
        .current_dir(example)
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap()
}

#[test]
fn cargo_run_prints_what_the_firmware_prints() {
    let said = Said::of(&cargo(&["run"]), 0);
    assert_eq!(said.stdout, "hello from a Cortex-M3\n");
}

#[test]
fn cargo_s_further_words_reach_the_runner() {
    let said = Said::of(&cargo(&["run", "--", "--expect", "never"]), 1);
    assert_eq!(said.stdout, "hello from a Cortex-M3\n");
    assert!(
        said.stderr.contains("what was expected did not come"),
        "{}",
        said.stderr
    );
    let said = Said::of(&cargo(&["run", "--", "--machine", "no-such-board"]), 125);
    assert!(said.stderr.contains("no-such-board"), "{}", said.stderr);
}

#[test]
fn cargo_test_passes_when_the_tests_do() {
    let said = Said::of(&cargo(&["test"]), 0);
    assert!(
        said.stderr.contains("tests/multiplies.rs"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_failing_test_fails_cargo_test() {
    let said = Said::of(
        &cargo(&["test", "--no-fail-fast", "--features", "failing-test"]),
        101,
    );
    assert!(
        said.stdout.contains("two and two is five"),
        "{}",
        said.stdout
    );
    assert!(
        said.stderr.contains("the firmware exited with status 3"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("1 target failed"), "{}", said.stderr);
}
