//! A real gdb-multiarch as the oracle of the session's debugger: the same firmware in two QEMUs,
//! stepped through by each.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use qemu_controller::bundle::{Account, MomentKind, Recorder};
use qemu_controller::debug::{HandOver, StopReason, Until};
use qemu_controller::{Endpoint, QemuConfig, Session, gdb_port};
use tokio::time::timeout;

const STEPS: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(60);
const NAMES: [&str; 17] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "sp", "lr",
    "pc", "xpsr",
];

fn config() -> QemuConfig {
    let tick = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware/tick/tick.elf");
    QemuConfig::default()
        .firmware(tick)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
}

/// What gdb shows after each step, a line each, and four bytes of the stack's and the counter's
/// memory at the end.
fn steps_of_gdb(address: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("steps.gdb");
    let format = ["%x"; NAMES.len()].join(" ");
    let values: Vec<String> = NAMES.iter().map(|name| format!("${name}")).collect();
    let values = values.join(", ");
    let text = format!(
        "set pagination off\nset architecture armv7\ntarget remote {address}\nset $i = 0\n\
         while $i < {STEPS}\nstepi\nprintf \"@ {format}\\n\", {values}\nset $i = $i + 1\nend\n\
         printf \"@ %x\\n\", *(unsigned int *) 0x20000000\ndetach\n"
    );
    std::fs::write(&script, text).unwrap();
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off", "-x"])
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .expect("gdb-multiarch is needed here: install the package of that name");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<String> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("@ ").map(str::to_owned))
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(lines.len(), STEPS + 1, "{errors}");
    lines
}

#[tokio::test]
async fn a_thousand_steps_are_as_gdb_takes_them() {
    let theirs = Session::start(config().gdb(Endpoint::free_port()))
        .await
        .unwrap();
    let Some(gdb_port::StubAddress::Tcp(address)) = theirs.gdb() else {
        panic!("no stub")
    };
    let expected = steps_of_gdb(&address.to_string());

    let session = Session::start(config()).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    for (step, expected) in expected[..STEPS].iter().enumerate() {
        debugger.step_instruction().await.unwrap();
        let registers = debugger.read_registers().await.unwrap();
        let values = NAMES.map(|name| format!("{:x}", registers.get(name).unwrap()));
        assert_eq!(values.join(" "), *expected, "after step {step}");
    }
    let counter = debugger.read_memory(0x2000_0000, 4).await.unwrap();
    let counter = u32::from_le_bytes(counter.try_into().unwrap());
    assert_eq!(format!("{counter:x}"), expected[STEPS]);
}

/// The line that a hand-over prints, as a shell runs it, with more for gdb.
fn gdb(hand_over: &HandOver, more: &str) -> Command {
    let line = hand_over.command();
    let (program, rest) = line.split_once(" -q ").unwrap();
    let quiet = "-iex 'set debuginfod enabled off' -iex 'set confirm off'";
    let mut shell = Command::new("sh");
    // The shell is gdb from then on: who kills it kills gdb.
    shell.args([
        "-c",
        &format!("exec {program} -q -nx {quiet} {rest} {more}"),
    ]);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    shell.stderr(Stdio::null());
    shell
}

/// Reads until gdb has printed a line with this.
fn until_printed(gdb: &mut Child, text: &str) {
    let mut lines = BufReader::new(gdb.stdout.as_mut().unwrap());
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "no {text:?}");
    }
}

#[tokio::test]
async fn a_real_gdb_gets_the_guest_and_gives_it_back() {
    let session = Session::start(config()).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    for at in [Endpoint::PrivateSocket, Endpoint::free_port()] {
        let mut hand_over = debugger.hand_over(at).await.unwrap();
        let more = "-batch -ex 'break tick' -ex continue -ex detach";
        let mut gdb = gdb(&hand_over, more);
        let output = tokio::task::spawn_blocking(move || gdb.output());
        let output = output.await.unwrap().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{printed}");
        assert!(
            printed.contains("Breakpoint 1, ") && printed.contains("detached"),
            "{printed}"
        );
        // It has come and gone before anybody asked.
        timeout(DEADLINE, hand_over.attached())
            .await
            .unwrap()
            .unwrap();
        assert!(timeout(DEADLINE, hand_over.left()).await.unwrap().unwrap());
        debugger = hand_over.take_back().await.unwrap();
        let stop = debugger
            .run_until([Until::reaches("tick")], DEADLINE)
            .await
            .unwrap();
        assert!(
            matches!(stop.reason, StopReason::Reached { hits: 1, .. }),
            "{stop}"
        );
    }
}

#[tokio::test]
async fn a_gdb_that_is_killed_in_any_phase_leaves_nothing() {
    let session = Session::start(config()).await.unwrap();
    for (more, runs) in [
        // At its prompt, the guest stopped at a breakpoint.
        (
            "-ex 'break tick' -ex continue -ex 'echo here\n'",
            Some(false),
        ),
        // While the guest runs.
        (
            "-ex 'break hard_fault' -ex 'echo here\n' -ex continue",
            None,
        ),
        // In the middle of steps.
        ("-ex 'echo here\n' -ex 'stepi 1000000'", None),
    ] {
        let debugger = session.debugger().await.unwrap();
        let mut hand_over = debugger.hand_over(Endpoint::PrivateSocket).await.unwrap();
        let mut gdb = gdb(&hand_over, more).spawn().unwrap();
        let killed = tokio::task::spawn_blocking(move || {
            until_printed(&mut gdb, "here");
            gdb.kill().unwrap();
            gdb.wait().unwrap();
        });
        killed.await.unwrap();
        let left = timeout(DEADLINE, hand_over.left()).await.unwrap().unwrap();
        assert!(runs.is_none_or(|runs| runs == left), "{more}");
        let mut debugger = hand_over.take_back().await.unwrap();
        let stop = debugger
            .run_until([Until::reaches("uart_get")], DEADLINE)
            .await
            .unwrap();
        assert!(
            matches!(stop.reason, StopReason::Reached { hits: 1, .. }),
            "{stop}"
        );
    }
}

/// gdb reads the core file of a failure: the registers and the memory of that moment.
#[tokio::test]
async fn gdb_reads_the_core_of_a_bundle() {
    let session = Session::start(config()).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let until = [Until::reaches("tick").skip(4)];
    debugger.run_until(until, DEADLINE).await.unwrap();
    let registers = debugger.read_registers().await.unwrap();
    drop(debugger);
    let mut recorder = Recorder::default();
    recorder.keep(&session, MomentKind::End).await.unwrap();
    let counter = session.read_u32("counter").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let written = recorder.write(&session, Account::new("tick", "stopped"), folder.path());
    let bundle = written.await.unwrap().folder;
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
        .args([
            "-ex",
            "printf \"@ %x %x %x %x\\n\", $pc, $sp, $r0, *(unsigned int *) &counter",
        ])
        .args([bundle.join("firmware"), bundle.join("core")])
        .stdin(Stdio::null())
        .output()
        .expect("gdb-multiarch is needed here: install the package of that name");
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name| registers.get(name).unwrap();
    let (pc, sp, r0) = (value("pc"), value("sp"), value("r0"));
    assert!(
        text.contains(&format!("@ {pc:x} {sp:x} {r0:x} {counter:x}")),
        "{text}"
    );
}
