//! The tests of an `embedded-test` binary, one by one on machines that boot once.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use qemu_controller::testing::{
    FirmwareTests, Isolation, Outcome, PrintedTests, TestCase, TestResult, TestRun, embedded_tests,
    firmware_tests,
};
use qemu_controller::{QemuConfig, Semihosting};

use crate::support::{DEADLINE, image, long};

fn fixture(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/embedded-test");
    folder.join(format!("{name}.elf"))
}

fn config(firmware: PathBuf) -> QemuConfig {
    QemuConfig::default()
        .firmware(firmware)
        .semihosting(Semihosting::console())
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

fn tests() -> Vec<TestCase> {
    embedded_tests(fixture("outcomes")).unwrap().unwrap()
}

async fn run(isolation: Isolation, tests: &[TestCase]) -> BTreeMap<String, TestResult> {
    let run = TestRun::new(config(fixture("outcomes")))
        .isolation(isolation)
        .threads(4);
    let results = run.run(tests, |_| {}).await.unwrap();
    let names = tests.iter().map(|test| test.name.clone());
    names.zip(results).collect()
}

/// One word for how a test ended.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Failed(failure) => failure.name(),
        _ => "?",
    }
}

/// What a test is to end as, by what it is called.
fn expected(name: &str) -> &'static [&'static str] {
    match name.split_once("::").unwrap().0 {
        "passes" => &["ok"],
        "fails" => &["exited", "did-not-panic"],
        "hangs" | "floods" => &["timed-out"],
        // Where nothing is, QEMU reads zeros, which are instructions.
        _ if name == "faults::by_running_where_nothing_is" => &["timed-out"],
        "faults" => &["faulted"],
        "locks_up" => &["locked-up"],
        "resets" => &["reset"],
        _ if name == "ignored::as_it_says" => &["exited"],
        "ignored" => &["ok"],
        other => panic!("{other}"),
    }
}

fn check(results: &BTreeMap<String, TestResult>) {
    for (name, result) in results {
        let word = word(&result.outcome);
        assert!(expected(name).contains(&word), "{name}: {}", result.outcome);
    }
}

#[test]
fn the_list_is_what_the_binary_says() {
    let tests = tests();
    assert_eq!(tests.len(), 60);
    let find = |name: &str| tests.iter().find(|test| test.name == name).unwrap();
    let test = find("passes::by_a_panic");
    assert!(test.should_panic && !test.ignored);
    assert_eq!(test.timeout, Some(Duration::from_secs(10)));
    assert_eq!(find("hangs::asleep").timeout, Some(Duration::from_secs(1)));
    assert!(find("ignored::as_it_says").ignored);
    assert!(embedded_tests(image("tick")).unwrap().is_none());
}

#[test]
fn a_firmware_s_file_shows_what_tests_it_has() {
    let printed = |kind| Some(FirmwareTests::Printed(kind));
    for (name, expected) in [
        ("outcomes", Some(FirmwareTests::Listed(tests()))),
        ("printed", None),
        ("../unity/uart", printed(PrintedTests::Unity)),
        ("../unity/groups", printed(PrintedTests::Unity)),
        ("../defmt/test-rtt-fails", printed(PrintedTests::Defmt)),
        // It logs by defmt, and has no tests.
        ("../defmt/uart", None),
    ] {
        assert_eq!(firmware_tests(fixture(name)).unwrap(), expected, "{name}");
    }
}

/// Of what a test costs, what is asked of QEMU is nearly all.
#[tokio::test]
async fn before_a_test_qemu_is_asked_nothing_but_to_load() {
    let mut transcript = tempfile::NamedTempFile::new().unwrap();
    let config = config(fixture("empty")).qmp_transcript_to(transcript.reopen().unwrap());
    let tests = embedded_tests(fixture("empty")).unwrap().unwrap();
    let results = TestRun::new(config).threads(1).run(&tests, |_| {}).await;
    let results = results.unwrap();
    assert!(results.iter().all(|result| result.outcome.is_success()));
    let mut text = String::new();
    transcript.read_to_string(&mut text).unwrap();
    let sent = |command: &str| text.matches(&format!(r#""execute":"{command}""#)).count();
    let (loads, dismissals) = (sent("snapshot-load"), sent("job-dismiss"));
    assert_eq!((loads, dismissals), (tests.len() - 1, tests.len()));
    let others = text.matches(r#""execute""#).count() - loads - dismissals;
    assert!(others < tests.len(), "{others} other commands");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_test_ends_as_it_is_called_and_as_on_a_machine_of_its_own() {
    let mut tests = tests();
    let restored = run(Isolation::Restore, &tests).await;
    check(&restored);
    let booted = run(Isolation::Boot, &tests).await;
    let forked = run(Isolation::Fork, &tests).await;
    for (name, result) in &restored {
        for other in [&booted[name], &forked[name]] {
            assert_eq!(word(&result.outcome), word(&other.outcome), "{name}");
            if !name.starts_with("floods") {
                let text =
                    |result: &TestResult| String::from_utf8_lossy(&result.output).into_owned();
                assert_eq!(text(result), text(other), "{name}");
            }
        }
    }
    for seed in 0..if long() { 20 } else { 1 } {
        fastrand::Rng::with_seed(seed).shuffle(&mut tests);
        check(&run(Isolation::Restore, &tests).await);
    }
}

/// What a failure tells: who panicked, and not the test crate's handler of panics; and of a fault
/// loop which fault it was, long before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_the_code_that_did_it() {
    let mut tests = tests();
    let wanted = ["fails::by_an_index", "faults::by_an_undefined_instruction"];
    tests.retain(|test| wanted.contains(&&*test.name));
    let results = run(Isolation::Boot, &tests).await;
    for (name, expected) in [
        (
            wanted[0],
            "panicked, in outcomes::fails::by_an_index at /fixtures/embedded-test/tests/outcomes.rs:186:17",
        ),
        (
            wanted[1],
            "stays in the handler of HardFault: UsageFault: an undefined instruction",
        ),
    ] {
        let told = results[name].outcome.to_string();
        assert!(told.contains(expected), "{told}");
    }
    let took = results[wanted[1]].duration;
    assert!(took < Duration::from_secs(15), "{took:?} of 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_state_is_used_where_it_fits_and_replaced_where_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target/booted.state");
    let tests = tests();
    let one: Vec<_> = tests
        .into_iter()
        .filter(|test| test.name == "passes::alone_1")
        .collect();
    let run = async || {
        let run = TestRun::new(config(fixture("outcomes"))).keep_state(&path, Duration::ZERO);
        let results = run.run(&one, |_| {}).await.unwrap();
        assert!(results[0].outcome.is_success(), "{}", results[0].outcome);
        path.metadata().unwrap().modified().unwrap()
    };
    let first = run().await;
    assert_eq!(run().await, first, "it is used");
    // Of another firmware, damaged, and no state at all.
    let other = TestRun::new(config(fixture("empty"))).keep_state(&path, Duration::ZERO);
    let empty = embedded_tests(fixture("empty")).unwrap().unwrap();
    let results = other.run(&empty[..1], |_| {}).await.unwrap();
    assert!(results[0].outcome.is_success());
    let second = run().await;
    assert_ne!(second, first, "it is replaced");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    for wrong in [&*bytes, b"nothing of the kind"] {
        std::fs::write(&path, wrong).unwrap();
        run().await;
        assert_ne!(std::fs::read(&path).unwrap(), wrong, "it is replaced");
    }
}
