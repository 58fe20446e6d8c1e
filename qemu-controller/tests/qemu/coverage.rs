//! Which lines ran: beside a debugger that steps through the same run, beside gcov, over snapshots
//! and forks, and of a guest that makes up code for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use qemu_controller::coverage::{Coverage, CoverageError, ExecutedCode, SourceMap};
use qemu_controller::debug::StopReason;
use qemu_controller::firmware_info::Firmware;
use qemu_controller::semihosting::{Event, Request};
use qemu_controller::testing::{Isolation, Progress, TestCase, TestRun, embedded_tests};
use qemu_controller::{AfterLoad, QemuConfig, Semihosting, Session, StartError, Verdict};

use crate::support::{DEADLINE, config, image, symbol};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/coverage")
        .join(name)
}

fn covered(image: &Path) -> QemuConfig {
    QemuConfig::default()
        .firmware(image)
        .semihosting(Semihosting::console())
        .coverage(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
}

/// The lines of each file that ran.
fn lines_hit(coverage: &Coverage) -> BTreeMap<String, BTreeSet<u32>> {
    let mut hit = BTreeMap::new();
    for (path, file) in coverage.files() {
        let lines = file.lines.iter().filter(|(_, count)| **count > 0);
        let lines: BTreeSet<u32> = lines.map(|(line, _)| *line).collect();
        if !lines.is_empty() {
            hit.insert(path.to_owned(), lines);
        }
    }
    hit
}

async fn whole_run(image: &Path) -> Session {
    let session = Session::start(covered(image)).await.unwrap();
    let verdict = session.run_to_end(DEADLINE).await;
    assert!(
        matches!(verdict, Verdict::Exited { status: 0 }),
        "{verdict}"
    );
    session
}

/// Every address that the debugger comes by, instruction by instruction, with another QEMU.
async fn stepped_run(image: &Path) -> BTreeSet<u64> {
    let config = covered(image).coverage(false).start_paused(true);
    let session = Session::start(config).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let mut visited = BTreeSet::from([debugger.read_register("pc").await.unwrap()]);
    loop {
        let stop = debugger.step_instruction().await.unwrap();
        match stop.reason {
            StopReason::Stepped => visited.extend(stop.pc),
            StopReason::Ended(verdict) if verdict.success() => return visited,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_lines_are_those_that_a_debugger_steps_through() {
    for name in ["c-o0.elf", "c-o2.elf", "rust-debug.elf", "rust-release.elf"] {
        let image = fixture(name);
        let (session, visited) = tokio::join!(whole_run(&image), stepped_run(&image));
        let executed = session.executed_code().unwrap();
        let firmware = Firmware::open(&image).unwrap();
        let coverage = SourceMap::of(&firmware).unwrap().coverage(&executed);
        check(name, &firmware, &coverage, &executed, &visited);
    }
}

/// The lines are those of the addresses that were stepped through.
fn check(
    name: &str,
    firmware: &Firmware,
    coverage: &Coverage,
    executed: &ExecutedCode,
    visited: &BTreeSet<u64>,
) {
    // What the debugger shows at each stop. Lines where no statement begins are no lines of the
    // report, and code that the compiler made up has none; gdb shows them.
    let listed = coverage.files();
    let mut stepped = BTreeMap::<String, BTreeSet<u32>>::new();
    for address in visited {
        let frames = firmware.source_frames(*address).unwrap();
        let location = frames.first().and_then(|frame| frame.location.as_ref());
        let Some(location) = location.filter(|location| !location.approximate) else {
            continue;
        };
        let file = listed.get(&*location.file);
        if file.is_some_and(|file| file.lines.contains_key(&location.line)) {
            let lines = stepped.entry(location.file.to_string()).or_default();
            lines.insert(location.line);
        }
    }
    assert_eq!(lines_hit(coverage), stepped, "{name}");
    // And address by address: it steps through nothing that is not in the log.
    for address in visited {
        let range = *address..address + 1;
        assert!(executed.overlaps(&range), "{name} at {address:#x}");
    }
}

/// The fixture whose tests end in every way.
fn tests_fixture() -> PathBuf {
    fixture("../embedded-test/outcomes.elf")
}

/// Every address that each of these tests comes by, with a machine of their own.
async fn stepped_tests(tests: &[TestCase]) -> Vec<BTreeSet<u64>> {
    let config = covered(&tests_fixture()).coverage(false).start_paused(true);
    let session = Session::start(config).await.unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let question = loop {
        match host.next(DEADLINE).await.unwrap() {
            Event::Call(call) if matches!(call.request, Request::CommandLine { .. }) => break call,
            Event::Call(call) => host.answer_console(&call).await.unwrap(),
            other => panic!("{other:?}"),
        };
    };
    session.save_snapshot("booted").await.unwrap();
    let mut all = Vec::new();
    for test in tests {
        let load = session.load_snapshot("booted");
        load.then(AfterLoad::Paused).await.unwrap();
        let line = format!("run_addr {}", test.address());
        host.answer_command_line(&question, &line).await.unwrap();
        let mut visited = BTreeSet::new();
        loop {
            let stop = host.debugger().step_instruction().await.unwrap();
            assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
            visited.extend(stop.pc);
            let at = stop.pc.unwrap();
            if !host.sites().contains(&at) {
                continue;
            }
            let call = host.current().await.unwrap().unwrap();
            if matches!(call.request, Request::Exit { .. }) {
                break;
            }
            host.answer_console(&call).await.unwrap();
            visited.extend(host.debugger().read_register("pc").await);
        }
        all.push(visited);
    }
    all
}

/// One machine runs all of them, restored before each: what an earlier test ran, a later one has
/// translated anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_each_test_are_those_that_a_debugger_steps_through() {
    let wanted = [
        "passes::adds",
        "passes::alone_1",
        "passes::sums_a_slice",
        "passes::with_status_0",
        "fails::since_it_does_not_panic",
    ];
    let tests = embedded_tests(tests_fixture()).unwrap().unwrap();
    let tests: Vec<_> = tests
        .into_iter()
        .filter(|test| wanted.contains(&&*test.name))
        .collect();
    assert_eq!(tests.len(), wanted.len());
    let visited = stepped_tests(&tests).await;
    let firmware = Firmware::open(tests_fixture()).unwrap();
    let lines = SourceMap::of(&firmware).unwrap();
    let mut boots = Vec::new();
    for (isolation, threads) in [
        (Isolation::Restore, 1),
        (Isolation::Restore, 2),
        (Isolation::Fork, 2),
        (Isolation::Boot, 2),
    ] {
        let run = TestRun::new(covered(&tests_fixture())).isolation(isolation);
        let mut boot = ExecutedCode::default();
        let keep = |progress: Progress<'_>| {
            if let Progress::Executed(executed) = progress {
                boot.merge(executed);
            }
        };
        let results = run.threads(threads).run(&tests, keep).await.unwrap();
        for ((test, result), visited) in tests.iter().zip(&results).zip(&visited) {
            let executed = result.executed.as_ref().unwrap();
            let name = format!("{} by {isolation:?}", test.name);
            check(
                &name,
                &firmware,
                &lines.coverage(executed),
                executed,
                visited,
            );
        }
        assert!(!boot.is_empty());
        boots.push(boot);
        let all: Vec<_> = results
            .iter()
            .filter_map(|result| result.executed.as_ref())
            .collect();
        let mut one_by_one = Coverage::default();
        for run in &all {
            one_by_one.merge(&lines.coverage(run));
        }
        assert_eq!(lines.coverage_of_runs(&all), one_by_one);
    }
    assert!(boots.windows(2).all(|two| two[0] == two[1]));
}

/// `8*:   11:    if (by == 0) {`, `#####:   12:`, `-:   13:`: by line, whether it ran.
fn gcov(text: &str) -> BTreeMap<u32, bool> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').map(str::trim);
        let (Some(count), Some(Ok(number))) = (fields.next(), fields.next().map(str::parse)) else {
            continue;
        };
        if count != "-" && number > 0 {
            lines.insert(number, count != "#####");
        }
    }
    lines
}

#[tokio::test]
async fn the_lines_of_unoptimised_c_are_those_of_gcov() {
    let image = fixture("c-o0.elf");
    let coverage = whole_run(&image).await.coverage().await.unwrap();
    let ours: BTreeMap<u32, bool> = coverage.files()["/fixtures/coverage/main.c"]
        .lines
        .iter()
        .map(|(line, count)| (*line, *count > 0))
        .collect();
    let theirs = gcov(&std::fs::read_to_string(fixture("main.gcov")).unwrap());
    assert!(theirs.len() > 30);
    // A `}` at a function's end has code (the return) and is no line of gcov's; `case` labels have
    // none, and are lines of gcov's; so is one where all is the code of an inlined function, for
    // which GCC writes no row.
    let source = std::fs::read_to_string(fixture("main.c")).unwrap();
    let text = |line: &u32| source.lines().nth(*line as usize - 1).unwrap().trim();
    for (line, ran) in &ours {
        match theirs.get(line) {
            Some(theirs) => assert_eq!(ran, theirs, "line {line}: {}", text(line)),
            None => assert_eq!(text(line), "}", "line {line}"),
        }
    }
    for line in theirs.keys().filter(|line| !ours.contains_key(line)) {
        let text = text(line);
        let no_code = text.starts_with("case ") || text == "default:" || text.contains("rotate(");
        assert!(no_code, "line {line}: {text}");
    }
}

#[tokio::test]
async fn functions_ran_or_did_not() {
    let image = fixture("rust-debug.elf");
    let coverage = whole_run(&image).await.coverage().await.unwrap();
    let files = coverage.files();
    let functions = &files["/fixtures/coverage/src/main.rs"].functions;
    let ran = |name: &str| {
        let of_name = functions.iter().filter(|(full, _)| full.contains(name));
        let counts: Vec<u64> = of_name.map(|(_, function)| function.count).collect();
        assert!(!counts.is_empty(), "{name} of {functions:?}");
        counts.iter().any(|count| *count > 0)
    };
    // Inlined, generic, a trait's method; and two that never ran.
    for name in ["rotate", "largest", "Square"] {
        assert!(ran(name), "{name}: {functions:#?}");
    }
    assert!(!ran("never_called") && !ran("rust_begin_unwind"));
}

/// Waits until the firmware has gone around its loop some thousand times more.
async fn counts_on(session: &Session) {
    let before = u64::from(session.read_u32("counter").await.unwrap());
    let counts = |count: u64| count.wrapping_sub(before) > 100_000;
    session.wait_for_value("counter", counts).await.unwrap();
}

/// Each load makes QEMU translate everything anew, so that each test has all of its own lines.
#[tokio::test]
async fn each_run_from_a_snapshot_has_its_own_lines() {
    let session = Session::start(covered(&image("tick"))).await.unwrap();
    session
        .wait_for_value("counter", |count| count > 0)
        .await
        .unwrap();
    session.pause().await.unwrap();
    session.save_snapshot("booted").await.unwrap();
    let boot = session.take_executed_code().unwrap();
    // Only the boot calls it.
    let init = symbol("tick", "uart_init") & !1;
    let init = init..init + 2;
    assert!(boot.overlaps(&init));
    let mut runs = Vec::new();
    for _ in 0..3 {
        session.load_snapshot("booted").await.unwrap();
        assert!(
            session.take_executed_code().unwrap().is_empty(),
            "nothing runs while it loads"
        );
        session.resume().await.unwrap();
        counts_on(&session).await;
        session.pause().await.unwrap();
        let run = session.take_executed_code().unwrap();
        assert!(!run.is_empty() && !run.overlaps(&init));
        runs.push(run);
    }
    let fork = session.fork(1).await.unwrap().remove(0);
    fork.resume().await.unwrap();
    counts_on(&fork).await;
    let its_own = fork.executed_code().unwrap();
    assert!(!its_own.is_empty() && !its_own.overlaps(&init));
    let mut all = boot;
    runs.iter().chain([&its_own]).for_each(|run| all.merge(run));
    assert!(runs[0].pieces().all(|piece| all.overlaps(&piece)));
    session.stop().await.unwrap();
    assert_eq!(
        session.executed_code().unwrap(),
        ExecutedCode::default(),
        "all was taken"
    );
}

#[tokio::test]
async fn there_is_none_without_being_asked_for_or_beside_another_log() {
    let session = Session::start(config("tick")).await.unwrap();
    let error = session.executed_code().unwrap_err();
    assert!(matches!(error, CoverageError::NotRecorded), "{error}");
    let log = qemu_launch::Log::items(["int"]);
    for config in [
        covered(&image("tick")).extra_args(["-d", "int"]),
        covered(&image("tick")).with_spec(|spec| spec.log(log)),
    ] {
        let error = Session::start(config).await.unwrap_err();
        assert!(
            matches!(error, StartError::Config(_) | StartError::Launch(_)),
            "{error}"
        );
    }
}
