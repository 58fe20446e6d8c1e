//! `--coverage`: a file in lcov's form and a summary, over several runs, and what stands in its way.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Call, DEADLINE, image};

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu-controller/fixtures/coverage");
    folder.join(name)
}

fn call(words: &[&str], firmware: &Path) -> Call {
    let firmware = firmware.to_str().unwrap();
    Call::new(words.iter().copied().chain([firmware]))
}

#[test]
fn one_run_is_a_file_and_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    let said = call(&["--coverage", "lcov.info"], &fixture("c-o0.elf"))
        .folder(folder.path())
        .ends_with(0);
    assert!(
        said.stderr
            .contains("coverage: 41 of 55 lines (74.5 %), 8 of 10 functions")
    );
    assert!(said.stderr.contains("36/47   76.6 %"), "{}", said.stderr);
    let written = std::fs::read_to_string(folder.path().join("lcov.info")).unwrap();
    for record in [
        "SF:/fixtures/coverage/main.c",
        "FN:52,never_called",
        "FNDA:0,never_called",
        "FNDA:1,hash",
        "DA:20,1",
        "DA:53,0",
        "LF:47\nLH:36",
    ] {
        assert!(written.contains(record), "{record} is not in\n{written}");
    }
    let said = call(&["--coverage=x.info", "--json"], &fixture("c-o0.elf"))
        .folder(folder.path())
        .ends_with(0);
    let object: Value = serde_json::from_str(said.stderr.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&object["event"], &object["lines_hit"]),
        (&"coverage".into(), &41.into())
    );
    assert_eq!(object["files"][0]["path"], "/fixtures/coverage/main.c");
}

/// As tests are run by nextest: several programs write one file.
#[test]
fn runs_add_up_also_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let started: Vec<_> = (0..4)
        .map(|_| {
            let words = ["--coverage=lcov.info", "--coverage-merge"];
            call(&words, &fixture("rust-release.elf"))
                .folder(folder.path())
                .start()
        })
        .collect();
    for running in started {
        assert!(running.end().status.success());
    }
    let written = std::fs::read_to_string(folder.path().join("lcov.info")).unwrap();
    assert!(written.contains("FNDA:4,lines::leave\n"), "{written}");
    assert!(
        written.contains("FNDA:0,lines::never_called\n"),
        "{written}"
    );
    assert!(
        !written.contains("/rustc/"),
        "the standard library is left out"
    );
    let other = call(
        &["--coverage=lcov.info", "--coverage-merge", "--coverage-all"],
        &fixture("c-o2.elf"),
    );
    other.folder(folder.path()).ends_with(0);
    let written = std::fs::read_to_string(folder.path().join("lcov.info")).unwrap();
    assert!(written.contains("FNDA:4,lines::leave\n") && written.contains("FNDA:1,hash\n"));
}

#[test]
fn a_run_that_is_cut_short_has_its_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--coverage=lcov.info", "--timeout=300ms"];
    let said = call(&words, &image("tick"))
        .folder(folder.path())
        .ends_with(124);
    // That one has no debug information, which does not make another failure of it.
    assert!(
        said.stderr.contains("no line information"),
        "{}",
        said.stderr
    );
    let start = std::time::Instant::now();
    let words = ["--coverage=lcov.info", "--expect=never"];
    call(&words, &fixture("rust-debug.elf"))
        .folder(folder.path())
        .ends_with(1);
    assert!(start.elapsed() < DEADLINE);
    let written = std::fs::read_to_string(folder.path().join("lcov.info")).unwrap();
    assert!(written.contains("FNDA:1,lines::total\n"), "{written}");
}

#[test]
fn what_stands_in_its_way_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let firmware = folder.path().join("a.elf");
    std::fs::copy(fixture("c-o0.elf"), &firmware).unwrap();
    std::fs::write(folder.path().join("text"), "no lcov\n").unwrap();
    let rows: [(&[&str], &[&str], &str); 5] = [
        (&["--coverage=a.elf"], &[], "it is the firmware"),
        (
            &["--coverage=missing/x"],
            &[],
            "cannot write the coverage into missing/x",
        ),
        (
            &["--coverage=x"],
            &["-d", "int"],
            "-d is not passed on to QEMU: --coverage",
        ),
        (
            &["--coverage=text", "--coverage-merge"],
            &[],
            "line 1 is no record of lcov's: no lcov",
        ),
        (&["--coverage-merge"], &[], "--coverage"),
    ];
    for (words, qemu_args, expected) in rows {
        let said = call(words, &firmware)
            .folder(folder.path())
            .qemu_args(qemu_args)
            .ends_with(125);
        assert!(said.stderr.contains(expected), "{words:?}: {}", said.stderr);
    }
    assert_eq!(
        std::fs::read(firmware).unwrap(),
        std::fs::read(fixture("c-o0.elf")).unwrap()
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join("text")).unwrap(),
        "no lcov\n"
    );
    let said = call(&["--coverage=x"], &image("semihosting-print")).folder(folder.path());
    let said = said.ends_with(125);
    assert!(
        said.stderr
            .contains("there is no coverage: the firmware has no line information")
    );
}
