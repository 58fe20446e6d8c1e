//! `--coverage`: a file in lcov's form and a summary, over several runs, and what stands in its way.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// `qemu-controller coverage` with these words, in this folder.
fn verb(folder: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-controller"));
    let output = command.arg("coverage").args(words).current_dir(folder);
    let output = output.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    (status, text(output.stdout), text(output.stderr))
}

/// Of a firmware's tests: by each way of keeping them apart the same, together and each by itself;
/// and as several machines have them, added up.
#[test]
fn tests_have_coverage_together_and_each_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let firmware = fixture("../embedded-test/outcomes.elf");
    let names = ["passes::divides", "fails::by_an_index", "locks_up::in_a"];
    let run = |words: &[&str], names: &[&str], status| {
        let call = Call::new(
            words
                .iter()
                .chain([&firmware.to_str().unwrap()])
                .chain(names),
        );
        call.folder(folder.path()).ends_with(status)
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let mut before: Option<[String; 2]> = None;
    for isolation in [
        "--isolation=restore",
        "--isolation=fork",
        "--isolation=boot",
    ] {
        let words = [isolation, "--coverage=all", "--coverage-by-test=each"];
        let said = run(&words, &names, 101);
        assert!(said.stderr.contains("coverage: "), "{}", said.stderr);
        let files = [read("all"), read("each")];
        if let Some(before) = before.replace(files.clone()) {
            assert_eq!(before, files, "{isolation}");
        }
    }
    // In a process for each test, as nextest has them.
    for name in names {
        let status = if name.starts_with("passes") { 0 } else { 101 };
        run(
            &["--coverage-by-test=merged", "--coverage-merge"],
            &[name],
            status,
        );
        run(&[&format!("--coverage-by-test={name}")], &[name], status);
    }
    let of_tests = |name: &str| {
        let text = read(name);
        let at = text.find("TN:f").unwrap();
        text[at..].to_owned()
    };
    assert_eq!(of_tests("each"), of_tests("merged"));
    let (status, said, _) = verb(folder.path(), &[&["merge", "out"][..], &names].concat());
    assert_eq!((status, of_tests("out")), (0, of_tests("each")), "{said}");
    let (status, summary, _) = verb(folder.path(), &["summary", "out"]);
    assert_eq!((status, &summary), (0, &said));
    assert!(summary.contains("tests/outcomes.rs"), "{summary}");
    // The line of `divides`, that of `by_an_index` among those that fail, and one that none ran.
    for (place, expected) in [
        ("outcomes.rs:63", "passes__divides\n"),
        ("tests/outcomes.rs:186", "fails__by_an_index\n"),
        ("outcomes.rs:68", ""),
        ("comes.rs:63", ""),
    ] {
        let (status, tests, _) = verb(folder.path(), &["tests", place, "each"]);
        assert_eq!((status, &*tests), (0, expected), "{place}");
    }
    for (words, expected) in [
        (
            &["summary", "missing"][..],
            "cannot read the coverage in missing: ",
        ),
        (
            &["merge", "x", "all", "."],
            "cannot read the coverage in .: ",
        ),
        (&["merge", "out"], "<IN>"),
        (&["tests", "outcomes.rs", "all"], "src/main.rs:12"),
        (
            &["merge", "no/out", "all"],
            "cannot write the coverage into no/out",
        ),
    ] {
        let (status, _, said) = verb(folder.path(), words);
        assert!(
            status == 125 && said.contains(expected),
            "{words:?}: {said}"
        );
    }
}

/// Tests that a firmware runs by itself, and a firmware that is none, count as one of its name.
#[test]
fn a_firmware_as_a_whole_is_one_test() {
    let folder = tempfile::tempdir().unwrap();
    for words in [&[][..], &["--tests=one"]] {
        let words = [words, &["--coverage-by-test=lcov.info"]].concat();
        call(&words, &fixture("c-o0.elf"))
            .folder(folder.path())
            .ends_with(0);
        let written = std::fs::read_to_string(folder.path().join("lcov.info")).unwrap();
        assert!(
            written.contains("TN:c_o0\nSF:/fixtures/coverage/main.c\n"),
            "{written}"
        );
        assert!(written.contains("FNDA:1,hash\n"), "{written}");
    }
}
