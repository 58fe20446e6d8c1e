//! Cargo's runner: `cargo run` and `cargo test` of the embedded crate in `examples/` go through
//! QEMU.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Call, Said};

/// Runs Cargo in the example.
fn cargo(words: &[&str]) -> Output {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/embedded");
    cargo_in(&example, words)
}

/// Runs Cargo in an embedded crate, as its user would; its build goes where ours does.
fn cargo_in(folder: &Path, words: &[&str]) -> Output {
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
        .current_dir(folder)
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
    assert_eq!(
        said.stdout,
        "hello from a Cortex-M3\nchecksum of abcde: 0xc8f0\n"
    );
}

#[test]
fn cargo_s_further_words_reach_the_runner() {
    let said = Said::of(&cargo(&["run", "--", "--expect", "never"]), 1);
    assert!(said.stdout.starts_with("hello from a Cortex-M3\n"));
    assert!(
        said.stderr.contains("what was expected did not come"),
        "{}",
        said.stderr
    );
    let said = Said::of(&cargo(&["run", "--", "--machine", "no-such-board"]), 125);
    assert!(said.stderr.contains("no-such-board"), "{}", said.stderr);
}

#[test]
fn cargo_test_runs_each_test_of_each_target() {
    let said = Said::of(&cargo(&["test"]), 0);
    for expected in [
        "test tests::known_values ... ok",
        "test tests::of_a_megabyte ... ignored",
        "test tests::an_index_out_of_bounds_panics - should panic ... ok",
        "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out;",
        "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out;",
    ] {
        assert!(
            said.stdout.contains(expected),
            "{expected:?} in {}",
            said.stdout
        );
    }
}

#[test]
fn cargo_test_with_a_name_a_list_and_benches() {
    let said = Said::of(&cargo(&["test", "known"]), 0);
    assert!(
        said.stdout
            .contains("1 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out;"),
        "{}",
        said.stdout
    );
    let said = Said::of(&cargo(&["test", "--test", "images", "--", "--list"]), 0);
    assert!(
        said.stdout
            .starts_with("tests::a_damaged_one_is_not: test\n"),
        "{}",
        said.stdout
    );
    let said = Said::of(&cargo(&["bench"]), 0);
    assert!(
        said.stdout.contains("0 passed; 0 failed; 3 ignored;"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_failing_test_fails_cargo_test() {
    let said = Said::of(
        &cargo(&["test", "--no-fail-fast", "--features", "failing-test"]),
        101,
    );
    for expected in [
        "two and two is not five",
        "timed out after 1s, at 0x",
        "reset the machine",
        "0 passed; 3 failed;",
    ] {
        assert!(
            said.stdout.contains(expected),
            "{expected:?} in {}",
            said.stdout
        );
    }
    assert!(said.stderr.contains("1 target failed"), "{}", said.stderr);
}

#[test]
fn a_new_crate_builds_runs_and_passes_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let make = || {
        Call::verb("new", ["my-firmware"])
            .folder(parent.path())
            .plain()
    };
    let said = Said::of(&make(), 0);
    assert!(said.stdout.contains("cd my-firmware\n"), "{}", said.stdout);
    let folder = parent.path().join("my-firmware");
    let said = Said::of(&cargo_in(&folder, &["run", "--locked"]), 0);
    let expected = "hello from a Cortex-M3\nchecksum of abcde: 0xc8f0\n";
    assert_eq!(said.stdout, expected);
    let said = Said::of(&cargo_in(&folder, &["test", "--locked"]), 0);
    assert_eq!(said.stdout.matches("test result: ok.").count(), 2);
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    let said = Said::of(&make(), 125);
    assert!(said.stderr.contains("is there already"), "{}", said.stderr);
}
