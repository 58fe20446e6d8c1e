//! A firmware that has tests: what Cargo, nextest and editors ask of a test program.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::input::terminal;
use crate::support::{Call, Said, image};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu-controller/fixtures")
}

/// The 60 tests with these words, as Cargo passes them on.
fn call(words: &[&str]) -> Call {
    let firmware = fixtures().join("embedded-test/outcomes.elf");
    let words = words.iter().map(|word| (*word).to_owned());
    Call::new(std::iter::once(firmware.display().to_string()).chain(words))
}

fn ends_with(words: &[&str], status: i32) -> Said {
    call(words).ends_with(status)
}

/// The line of a pretty result for each test.
fn results(said: &Said) -> BTreeMap<&str, &str> {
    let lines = said
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("test "));
    let results = lines.filter_map(|line| line.split_once(" ... "));
    results.collect()
}

#[test]
fn the_list_is_that_of_a_test_program() {
    let said = ends_with(&["--list", "--format", "terse"], 0);
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 60);
    assert!(lines.contains(&"passes::adds: test") && lines.is_sorted());
    // As nextest asks for those that are ignored.
    let said = ends_with(&["--list", "--format", "terse", "--ignored"], 0);
    assert_eq!(
        said.stdout,
        "ignored::as_it_says: test\nignored::though_it_would_panic: test\nignored::though_it_would_pass: test\n"
    );
    let said = ends_with(&["--list", "passes::alone"], 0);
    assert!(
        said.stdout.ends_with("\n4 tests, 0 benchmarks\n"),
        "{}",
        said.stdout
    );
    assert_eq!(said.stderr, "");
}

#[test]
fn filters_as_a_test_program_takes_them() {
    for (words, expected) in [
        (
            &["passes::alone_1", "--exact"][..],
            "1 passed; 0 failed; 0 ignored; 0 measured; 59 filtered out",
        ),
        (
            &["alone_"],
            "4 passed; 0 failed; 0 ignored; 0 measured; 56 filtered out",
        ),
        (
            &["alone_", "adds"],
            "5 passed; 0 failed; 0 ignored; 0 measured; 55 filtered out",
        ),
        (
            &["alone_", "--skip", "_1", "--skip", "_2"],
            "2 passed; 0 failed; 0 ignored; 0 measured; 58 filtered out",
        ),
        (
            &["ignored"],
            "0 passed; 0 failed; 3 ignored; 0 measured; 57 filtered out",
        ),
        (
            &["ignored::though", "--ignored"],
            "2 passed; 0 failed; 0 ignored; 0 measured; 58 filtered out",
        ),
        (
            &["though", "alone_1", "--include-ignored"],
            "3 passed; 0 failed; 0 ignored; 0 measured; 57 filtered out",
        ),
        (
            &["passes", "--bench"],
            "0 passed; 0 failed; 29 ignored; 0 measured; 31 filtered out",
        ),
        (
            &["nothing_of_this_name"],
            "0 passed; 0 failed; 0 ignored; 0 measured; 60 filtered out",
        ),
        (
            &["alone", "--timeout", "30s", "--test-threads=1"],
            "4 passed; 0 failed; 0 ignored; 0 measured; 56 filtered out",
        ),
    ] {
        let said = ends_with(words, 0);
        let last = said.stdout.trim_end().lines().last().unwrap();
        let expected = format!("test result: ok. {expected}; finished in ");
        assert!(last.starts_with(&expected), "{words:?}: {last}");
        assert_eq!(said.stderr, "", "{words:?}");
    }
}

#[test]
fn a_failure_has_its_reason_and_its_output_and_the_next_test_runs() {
    let said = ends_with(
        &[
            "fails::with_output",
            "since_it_does_not",
            "hangs::in_a_loop",
            "locks_up::in",
            "resets::by",
            "alone_1",
        ],
        101,
    );
    let results = results(&said);
    assert_eq!(results["passes::alone_1"], "ok");
    assert_eq!(
        results["fails::since_it_does_not_panic - should panic"],
        "FAILED"
    );
    assert_eq!(results["hangs::in_a_loop"], "FAILED");
    for expected in [
        "---- fails::with_output_before stdout ----\nby uart first\nthen by semihosting\n",
        "panicked at tests/outcomes.rs:",
        "did not panic as expected",
        "timed out after 1s, at 0x",
        "the core locked up",
        "reset the machine",
        "\nfailures:\n    fails::since_it_does_not_panic\n    fails::with_output_before\n    hangs::in_a_loop\n",
        "test result: FAILED. 1 passed; 5 failed; 0 ignored; ",
    ] {
        assert!(
            said.stdout.contains(expected),
            "{expected:?} in {}",
            said.stdout
        );
    }
}

#[test]
fn what_a_test_prints_is_shown_where_that_is_asked_for_and_never_reaches_the_terminal() {
    let words = ["prints"];
    let said = ends_with(&words, 0);
    assert!(!said.stdout.contains("by uart\n"), "{}", said.stdout);
    for option in ["--nocapture", "--show-output"] {
        let said = ends_with(&[words[0], option], 0);
        for expected in [
            "by uart\n",
            "by semihosting\n",
            "on stderr\n",
            "\\u{1b}[31mred",
        ] {
            assert!(
                said.stdout.contains(expected),
                "{expected:?} in {}",
                said.stdout
            );
        }
        assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
    }
}

/// While the test still runs, a line that is not at its end included.
#[test]
fn what_a_test_prints_is_shown_as_it_comes() {
    let words = ["floods::by_uart", "--nocapture", "--timeout=60s"];
    let mut running = call(&words).start();
    running.prints("and on it goes\nand on");
    assert!(!running.stdout.as_ref().unwrap().text().contains("FAILED"));
    running.signal(Signal::INT);
    Said::of(&running.end(), 130);
    // Of a firmware that runs its tests by itself too; where it was shown, it is not shown again.
    let firmware = fixtures().join("embedded-test/printed.elf");
    let words = ["--tests=lines", firmware.to_str().unwrap(), "--nocapture"];
    let said = Call::new(words).ends_with(101);
    let (live, report) = said.stdout.rsplit_once("\nrunning ").unwrap();
    assert!(live.contains("it says something\n"), "{live}");
    assert!(!report.contains("it says something"), "{report}");
}

/// On a terminal the last line says how far it is, and is gone at the end.
#[test]
fn a_terminal_shows_how_far_it_is() {
    let (mut screen, terminal) = terminal();
    let words = ["hangs::in_a_loop", "hangs::asleep", "--color=never"];
    let running = call(&words).env("TERM", "xterm").stdout(terminal).start();
    let reader = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // A terminal whose program is gone is an error.
        let _ = screen.read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    });
    Said::of(&running.end(), 101);
    let shown = reader.join().unwrap();
    let first = "\r0/2 done; running hangs::";
    assert!(shown.contains(first), "{shown:?}");
    // Whichever is over first.
    assert!(shown.contains("\r\x1b[Ktest hangs::"), "{shown:?}");
    let (_, end) = shown.split_once("\nfailures:").unwrap();
    assert!(!end.contains("\x1b[K"), "{end:?}");
}

#[test]
fn the_formats() {
    let words = ["alone_1", "fails::by_a_panic", "ignored::as"];
    let with = |more: &[&str]| ends_with(&[&words, more].concat(), 101).stdout;
    let terse = with(&["--quiet", "--test-threads", "1"]);
    assert!(terse.contains("\nrunning 3 tests\nFi.\n"), "{terse}");
    let coloured = with(&["--color", "always"]);
    assert!(coloured.contains("\u{1b}[31mFAILED\u{1b}[0m"), "{coloured}");
    let json = with(&["--format", "json", "-Z", "unstable-options"]);
    let objects: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[0]["test_count"], 3);
    let of = |name: &str| {
        let mut events = objects.iter().filter(|object| object["name"] == name);
        events.next_back().unwrap()
    };
    assert_eq!(of("passes::alone_1")["event"], "ok");
    assert_eq!(of("ignored::as_it_says")["event"], "ignored");
    let failed = of("fails::by_a_panic");
    assert_eq!(
        (&failed["event"], &failed["reason"]),
        (&"failed".into(), &"exited".into())
    );
    assert!(failed["stdout"].as_str().unwrap().contains("on purpose"));
    let last = objects.last().unwrap();
    assert_eq!(
        (
            &last["event"],
            &last["passed"],
            &last["failed"],
            &last["ignored"]
        ),
        (&"failed".into(), &1.into(), &1.into(), &1.into())
    );
    let junit = with(&["--format", "junit"]);
    assert!(
        junit.contains("failures=\"1\" tests=\"3\" skipped=\"1\""),
        "{junit}"
    );
    assert!(
        junit.contains("<testcase classname=\"fails\" name=\"by_a_panic\" "),
        "{junit}"
    );
    assert!(
        junit.contains("<failure type=\"exited\" message=\"panicked (status 134)\"/>"),
        "{junit}"
    );
}

#[test]
fn an_order_by_chance_is_the_same_by_its_seed() {
    let order = |seed: &str| ends_with(&["--list", "--shuffle-seed", seed], 0).stdout;
    assert_eq!(order("7"), order("7"));
    assert_ne!(order("7"), order("8"));
    let said = ends_with(&["alone", "--shuffle"], 0);
    assert!(
        said.stdout.contains("running 4 tests (shuffle seed: "),
        "{}",
        said.stdout
    );
}

#[test]
fn the_other_isolations_and_the_slowest() {
    for isolation in ["fork", "boot"] {
        let said = ends_with(&["--isolation", isolation, "alone", "--report-time"], 0);
        assert!(
            said.stdout.contains("test passes::alone_4 ... ok <0."),
            "{}",
            said.stdout
        );
        assert!(
            said.stdout.contains("\nslowest:\n    0."),
            "{}",
            said.stdout
        );
    }
}

#[test]
fn what_is_no_option_of_a_test_program_is_refused() {
    let said = ends_with(&["--no-such-option"], 125);
    assert!(said.stderr.contains("--no-such-option"), "{}", said.stderr);
    // Behind `--` it would be QEMU's.
    assert!(!said.stderr.contains("use '--"), "{}", said.stderr);
    let said = ends_with(&["--test-threads", "0"], 125);
    assert!(said.stderr.contains("--test-threads"), "{}", said.stderr);
}

#[test]
fn a_firmware_without_tests_gets_all_words() {
    let words = "--machine virt --memory=128M arm.elf --list -q one --format";
    let folder = fixtures().join("semihosting");
    let said = Call::new(words.split(' ')).folder(&folder).ends_with(7);
    assert_eq!(said.stdout, "arm.elf --list -q one --format");
    // And one with tests where it is to be run as if it had none: it exits with an error.
    let said = ends_with(&["--tests", "none", "run_addr"], 134);
    assert!(said.stdout.contains("INFO booted"), "{}", said.stdout);
}

#[test]
fn ctrl_c_and_a_closed_stdout_end_it_and_leave_nothing() {
    let mut running = call(&["hangs", "--test-threads", "1", "--timeout", "60s"]).start();
    running.qemu();
    running.signal(Signal::INT);
    Said::of(&running.end(), 130);
    let mut running = call(&[]).start();
    drop(running.stdout.take());
    running.wait();
    running.leaves_nothing();
    let closed = std::os::unix::net::UnixStream::pair().unwrap().0;
    let output = call(&["alone"])
        .stdout(std::os::fd::OwnedFd::from(closed))
        .output();
    Said::of(&output, 141);
}

#[test]
fn a_qemu_that_is_killed_fails_its_test_alone() {
    let words = "hangs::asleep passes::alone --test-threads 1 --format json";
    let mut running = call(&words.split(' ').collect::<Vec<_>>()).start();
    let begun = r#""event":"started","name":"hangs::asleep""#;
    running.prints(begun);
    let qemu = Pid::from_raw(running.qemu().cast_signed()).unwrap();
    kill_process(qemu, Signal::KILL).unwrap();
    let said = Said::of(&running.end(), 101);
    for expected in [r#""passed":4"#, r#""failed":1"#, "signal 9"] {
        assert!(said.stdout.contains(expected), "{}", said.stdout);
    }
}

#[test]
fn a_firmware_that_prints_its_results_is_run_once() {
    let run = |kind: &str, words: &[&str], status| {
        let firmware = fixtures().join("embedded-test/printed.elf");
        let firmware = firmware.display().to_string();
        let words = [&["--tests", kind, &firmware][..], words].concat();
        Call::new(words).ends_with(status)
    };
    let said = run("lines", &["--test-threads=1"], 101);
    for expected in [
        "test lines::one ... ok\n",
        "test lines::two ... FAILED\n",
        "test lines::three ... ignored\n",
        "test lines::four ... FAILED\n",
        "---- lines::two stdout ----\nit says something\n",
        "the firmware exited with status 1\n",
        "test result: FAILED. 1 passed; 2 failed; 1 ignored;",
    ] {
        assert!(
            said.stdout.contains(expected),
            "{expected:?} in {}",
            said.stdout
        );
    }
    // The whole as one test, by its exit.
    let said = run("one", &["--list", "--format=terse"], 0);
    assert_eq!(said.stdout, "printed: test\n");
    let said = run("one", &[], 101);
    assert!(
        said.stdout.contains("test printed ... FAILED\n"),
        "{}",
        said.stdout
    );
    assert!(
        said.stdout.contains("the firmware exited with status 1"),
        "{}",
        said.stdout
    );
}

#[test]
fn what_a_firmware_prints_of_a_failure_counts_though_it_exits_with_0() {
    let firmware = fixtures().join("embedded-test/contradicts.elf");
    let firmware = firmware.display().to_string();
    let run = |kind| Call::new(["--tests", kind, &firmware, "--include-ignored"]).ends_with(101);
    for (kind, expected) in [
        ("lines", "test twin ... FAILED\ntest twin#2 ... ok\n"),
        ("lines", "1 passed; 1 failed; 1 ignored;"),
        (
            "unity",
            "test test_adds ... ok\ntest contradicts ... FAILED\n",
        ),
        ("unity", "1 passed; 1 failed; 0 ignored;"),
    ] {
        let said = run(kind);
        assert!(said.stdout.contains(expected), "{kind}: {}", said.stdout);
    }
}

/// A handful of tests on RISC-V and AArch64, whose registers do not tell when a fault's handler was
/// left.
#[test]
fn tests_on_cores_that_are_no_cortex_m() {
    for (image, isolations) in [
        ("riscv32imac.elf", &["restore"][..]),
        ("riscv64gc.elf", &["restore", "fork"]),
        ("aarch64.elf", &["restore"]),
    ] {
        for isolation in isolations {
            let firmware = fixtures().join("embedded-test-cores").join(image);
            let firmware = firmware.display().to_string();
            let call = Call::new(["--isolation", isolation, &firmware, "--test-threads=2"]);
            let said = call.ends_with(101);
            let ends: Vec<_> = results(&said).into_iter().collect();
            let expected = [
                ("outcomes::adds", "ok"),
                ("outcomes::handles_its_fault", "ok"),
                ("outcomes::hangs", "FAILED"),
                ("outcomes::hangs_after_a_fault", "FAILED"),
                ("outcomes::is_an_error", "FAILED"),
                ("outcomes::is_left_out", "ignored"),
                ("outcomes::panics", "FAILED"),
                ("outcomes::panics_as_it_should - should panic", "ok"),
                ("outcomes::prints", "ok"),
                ("outcomes::stays_in_a_fault", "FAILED"),
            ];
            assert_eq!(ends, expected, "{image}: {}", said.stdout);
            for expected in [
                "---- outcomes::hangs_after_a_fault stdout ----\ntimed out after 1s",
                "assertion `left == right` failed: a sum\n",
                "---- outcomes::stays_in_a_fault stdout ----\nit faults\nstays in the handler of ",
                // Where RISC-V's functions that never return save no return address, and elsewhere.
                match image.starts_with("riscv") {
                    true => "\npanicked; the stack does not show where\n",
                    false => {
                        "\npanicked, in panics at /fixtures/other-cores/tests/outcomes.rs:36:9\n"
                    }
                },
                ", in other_cores::fault at /fixtures/other-cores/src/lib.rs:",
            ] {
                let stdout = &said.stdout;
                assert!(
                    stdout.contains(expected),
                    "{image}: {expected:?} in {stdout}"
                );
            }
        }
    }
}

/// Images with the real Unity, which their files show: most of them stay in a loop at their end.
#[test]
fn tests_of_unity_have_their_names() {
    let run = |image: &str, words: &[&str], status| {
        let firmware = fixtures().join("unity").join(image);
        let firmware = firmware.display().to_string();
        let words = [&["--timeout=4s", &firmware][..], words].concat();
        Call::new(words).ends_with(status)
    };
    let all = [
        "test test_adds ... ok\n",
        "test test_carries ... FAILED\n",
        "test test_is_left_out ... ignored\ntest test_is_left_out_for_a_reason ... ignored\n",
        "test test_takes(2, \"a:b\") ... ok\n",
        "---- test_prints stdout ----\nit prints a line\nand a half: tests.c:15:test_prints:FAIL: Expected 'two' Was 'three'",
    ];
    let ends = [
        (
            "uart.elf",
            "test_ends_otherwise ... ok",
            "3 passed; 2 failed; 2 ignored;",
        ),
        (
            "semihosting.elf",
            "test_ends_otherwise ... ok",
            "3 passed; 2 failed; 2 ignored;",
        ),
        (
            "colours.elf",
            "test_ends_otherwise ... ok",
            "3 passed; 2 failed; 2 ignored;",
        ),
        (
            "hangs.elf",
            "---- test_ends_otherwise stdout ----\nthe run was not over after 4s",
            "2 passed; 3 failed; 2 ignored;",
        ),
        (
            "faults.elf",
            "---- test_ends_otherwise stdout ----\nit reads where nothing is\n\
             a core stays in the handler of HardFault: UsageFault: an undefined instruction \
             (UNDEFINSTR), in test_ends_otherwise at ./tests.c:37:5\n",
            "2 passed; 3 failed; 2 ignored;",
        ),
    ];
    for (image, end, counts) in ends {
        let said = run(image, &[], 101);
        for expected in all.into_iter().chain([end, counts]) {
            let stdout = &said.stdout;
            assert!(
                stdout.contains(expected),
                "{image}: {expected:?} in {stdout}"
            );
        }
    }
    let said = run("groups.elf", &["sums::"], 101);
    for expected in [
        "test sums::adds ... ok\ntest sums::carries ... FAILED\ntest sums::prints ... ok\n",
        "sums::says_that_it_is_left_out ... ignored\ntest sums::is_left_out ... ignored\n",
        "2 passed; 1 failed; 2 ignored; 0 measured; 1 filtered out",
    ] {
        assert!(said.stdout.contains(expected), "{}", said.stdout);
    }
    let junit = run("uart.elf", &["--format=junit", "test_carries"], 101).stdout;
    let why = "message=\"Expected 1 Was 2. the carry: lost\"";
    assert!(junit.contains(why), "{junit}");
    let said = run("groups.elf", &["--exact", "others::adds"], 0);
    assert!(
        said.stdout.contains("1 passed; 0 failed"),
        "{}",
        said.stdout
    );
    let said = run("semihosting.elf", &["--list", "--format=terse", "takes"], 0);
    assert_eq!(said.stdout, "test_takes(2, \"a:b\"): test\n");
}

/// What somebody tries first where a word is at the wrong place, or the firmware has no tests.
#[test]
fn an_option_of_tests_at_a_wrong_place_is_named() {
    let tests = fixtures().join("embedded-test/empty.elf");
    let said = Call::new([tests]).qemu_args(&["--list"]).ends_with(125);
    let expected = "--list came behind `--`, where QEMU's own arguments are";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    let tick = image("tick").display().to_string();
    let said = Call::new([&*tick, "--nocapture", "--timeout=300ms"]).ends_with(124);
    let expected = "--nocapture went to the firmware, as its command line";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    let said = Call::new([&*tick, "--exact", "--tests=none", "--expect=tick 1"]).ends_with(0);
    assert!(!said.stderr.contains("--exact"), "{}", said.stderr);
}

/// `defmt-test` runs its tests by itself, and logs what comes of them by defmt.
#[test]
fn defmt_test_is_known_by_its_file() {
    for way in ["rtt", "semihosting"] {
        let call = |what: &str, words: &[&str]| {
            let firmware = fixtures().join(format!("defmt/test-{way}-{what}.elf"));
            Call::new([&[firmware.to_str().unwrap()][..], words].concat())
        };
        let said = call("passes", &[]).ends_with(0);
        for expected in [
            "test sums::adds ... ok\n",
            "test sums::is_last ... ok\n",
            " 3 passed; 0 failed; 1 ignored;",
        ] {
            assert!(said.stdout.contains(expected), "{way}: {}", said.stdout);
        }
        let said = call("fails", &[]).ends_with(101);
        for expected in [
            "test sums::is_an_error ... ok\ntest sums::carries ... FAILED\n",
            "---- sums::carries stdout ----\n0.000007 ERROR panicked at 'assertion failed: ",
            "\npanicked, in defmt_test::sums::carries at /fixtures/defmt/tests/defmt_test.rs:49:9\n",
            " 2 passed; 1 failed; 1 ignored;",
        ] {
            assert!(said.stdout.contains(expected), "{way}: {}", said.stdout);
        }
        let said = call("passes", &["--list", "is_", "--format", "terse"]).ends_with(0);
        assert_eq!(
            said.stdout,
            "sums::is_left_out: test\nsums::is_an_error: test\nsums::is_last: test\n"
        );
        // As an editor's buttons ask for one, and for a module.
        let one = ["sums::carries", "--exact", "--show-output"];
        let said = call("fails", &one).ends_with(101);
        assert!(
            said.stdout.contains(" 0 passed; 1 failed;"),
            "{}",
            said.stdout
        );
        let said = call("fails", &["sums", "--show-output"]).ends_with(101);
        assert!(
            said.stdout.contains(" 2 passed; 1 failed; 1 ignored;"),
            "{}",
            said.stdout
        );
        let said = call("passes", &["--defmt=off"]).ends_with(125);
        assert!(said.stderr.contains("not decoded here"), "{}", said.stderr);
    }
}

/// What each test logs by RTT is its own, and nothing is missing.
#[test]
fn tests_that_log_by_defmt_have_their_lines() {
    let firmware = fixtures().join("defmt/embedded-rtt.elf");
    let output = |isolation: &str, words: &[&str]| {
        let firmware = firmware.to_str().unwrap();
        let words = [
            &["--isolation", isolation, firmware, "--format=json"],
            words,
        ]
        .concat();
        let said = Call::new(words).output();
        let said = String::from_utf8(said.stdout).unwrap();
        let objects = said
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_tests = objects.filter(|object| object["stdout"].is_string());
        let texts = of_tests.map(|object| {
            let text = |field: &str| object[field].as_str().unwrap().to_owned();
            (text("name"), text("stdout"))
        });
        texts.collect::<BTreeMap<_, _>>()
    };
    let many: String = (0..500)
        .map(|n| format!("INFO  line {n} of many\n"))
        .collect();
    for isolation in ["restore", "fork", "boot"] {
        let said = output(isolation, &["--show-output", "--test-threads=1"]);
        let ended = "INFO  Test exited with () or Ok(..)\n";
        let line = |line: &str| format!("{line}\n{ended}");
        assert_eq!(
            said["logs::a_line"],
            line("INFO  one line of its own"),
            "{isolation}"
        );
        assert_eq!(
            said["logs::another_line"],
            line("DEBUG another line"),
            "{isolation}"
        );
        assert_eq!(
            said["logs::many_lines"],
            many.clone() + ended,
            "{isolation}"
        );
        let told = &said["logs::a_failure"];
        assert!(
            told.starts_with("WARN  soon\nERROR panicked at 'assertion"),
            "{told}"
        );
        let told = &said["logs::an_end_in_a_fault"];
        assert!(
            told.starts_with("INFO  before the fault\nstays in the handler of HardFault"),
            "{told}"
        );
    }
    let said = output("restore", &["--show-output", "--log-filter=warn"]);
    assert!(!said.contains_key("logs::a_line"), "{said:?}");
    let said = output("restore", &["--show-output", "--log-format={L}|{s}"]);
    assert!(said["logs::a_line"].starts_with("INFO |one line"));
}
