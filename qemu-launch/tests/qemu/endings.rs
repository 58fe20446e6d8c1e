//! How QEMU ends, each way distinguished; and ending it.

use std::time::Duration;

use qemu_launch::{Endpoint, ExitKind, MachineSpec, Process, Semihosting, StopPolicy, StopStep};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use test_support::procfs::{is_stopped, runs, status};
use test_support::{eventually, soon};

use crate::support::{machine, patient, start};

fn signal(process: &Process, signal: Signal) {
    kill_process(Pid::from_raw(process.pid() as i32).unwrap(), signal).unwrap();
}

fn ends(spec: &MachineSpec) -> ExitKind {
    let process = qemu_launch::spawn(spec).unwrap();
    process.wait_blocking(soon()).unwrap().kind().clone()
}

#[test]
fn sigterm_ends_it_with_status_0() {
    let (process, mut qmp) = start(&machine("tick"));
    assert!(qmp.run_state() == "running");
    let ended = process.end_blocking(patient()).unwrap();
    assert_eq!(ended.step, StopStep::Terminated);
    assert_eq!(ended.exit.kind(), &ExitKind::Exited(0));
    assert!(ended.exit.success());
}

/// Before it has a handler for SIGTERM, the signal itself ends it.
#[test]
fn sigterm_in_its_first_moments() {
    let process = qemu_launch::spawn(&machine("tick")).unwrap();
    let ended = process.end_blocking(patient()).unwrap();
    assert_eq!(ended.step, StopStep::Terminated);
    let kind = ended.exit.kind();
    assert!(
        matches!(kind, ExitKind::Signalled(15) | ExitKind::Exited(0)),
        "{kind:?}"
    );
    assert!(process.was_signalled());
}

#[test]
fn quit_takes_no_signal() {
    let (process, mut qmp) = start(&machine("tick"));
    qmp.execute("quit", json!({}));
    let ended = process
        .end_blocking(StopPolicy::default().after_quit(Duration::from_secs(30)))
        .unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Exited, &ExitKind::Exited(0))
    );
    // Ending what has ended is no error, and says the same.
    let again = process.end_blocking(StopPolicy::kill()).unwrap();
    assert_eq!(
        (again.step, again.exit.kind()),
        (StopStep::Exited, &ExitKind::Exited(0))
    );
}

#[test]
fn sigkill_at_once() {
    let (process, _qmp) = start(&machine("tick"));
    let ended = process.end_blocking(StopPolicy::kill()).unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Killed, &ExitKind::Signalled(9))
    );
}

#[test]
fn a_stopped_process_is_continued_and_ends() {
    let (process, _qmp) = start(&machine("tick"));
    signal(&process, Signal::STOP);
    eventually("stopped", || is_stopped(process.pid()));
    let ended = process.end_blocking(patient()).unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Terminated, &ExitKind::Exited(0))
    );
}

#[test]
fn a_stopped_process_is_killed() {
    let (process, _qmp) = start(&machine("tick"));
    signal(&process, Signal::STOP);
    let ended = process.end_blocking(StopPolicy::kill()).unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Killed, &ExitKind::Signalled(9))
    );
}

/// A serial port that nobody reads stalls QEMU's main loop: it reacts to neither its monitor nor
/// SIGTERM.
#[test]
fn a_wedged_process_is_killed() {
    let spec = machine("uart-flood")
        .serial(Endpoint::Inherited)
        .start_stopped(true);
    let (mut process, mut qmp) = start(&spec);
    let _unread = process.take_serial(0).unwrap();
    qmp.send("cont", json!({}));
    let deadline = soon();
    while qmp.answers_within(Duration::from_secs(1)) {
        assert!(std::time::Instant::now() < deadline, "it never wedged");
    }
    let policy = StopPolicy::default().terminate_within(Duration::from_millis(300));
    let ended = process.end_blocking(policy).unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Killed, &ExitKind::Signalled(9))
    );
}

#[test]
fn a_lockup_comes_with_its_registers() {
    let process = qemu_launch::spawn(&machine("lockup")).unwrap();
    let exit = process.wait_blocking(soon()).unwrap();
    let ExitKind::Lockup(dump) = exit.kind() else {
        panic!("{exit:?}")
    };
    assert!(
        dump.reason().contains("HardFault") || dump.reason().contains("escalate"),
        "{dump:?}"
    );
    assert!(
        dump.pc().is_some() && dump.register("r13").is_some() && dump.register("XPSR").is_some(),
        "{dump:?}"
    );
    assert_eq!(exit.signal(), Some(6));
    assert!(
        exit.to_string().starts_with("the guest locked up: "),
        "{exit}"
    );
}

#[test]
fn a_guest_can_exit_by_semihosting() {
    let ExitKind::Exited(code) =
        ends(&machine("semihosting-exit").semihosting(Semihosting::full()))
    else {
        panic!("not an exit")
    };
    assert_ne!(code, 0, "the image exits with a status of its own");
}

#[test]
fn a_reset_request_without_reboot_is_status_0() {
    assert_eq!(
        ends(&machine("reset-request").no_reboot()),
        ExitKind::Exited(0)
    );
}

#[test]
fn signals_from_outside_are_told_apart() {
    let rows = [
        (Signal::KILL, ExitKind::Signalled(9)),
        (Signal::SEGV, ExitKind::Crashed(11)),
        (Signal::ABORT, ExitKind::Aborted { line: None }),
        (Signal::INT, ExitKind::Exited(0)),
    ];
    for (sent, expected) in rows {
        let (process, _qmp) = start(&machine("tick"));
        signal(&process, sent);
        let exit = process.wait_blocking(soon()).unwrap();
        assert_eq!(exit.kind(), &expected, "{sent:?}");
    }
}

#[test]
fn an_assertion_of_qemu_is_named() {
    // On this board every restore of a snapshot fails an assertion in QEMU's SD card.
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (_source, mut qmp) = start(&machine("tick").extra_args(["-name", "source"]));
    qmp.execute("stop", json!({}));
    let socket = folder.path().join("migration");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    qmp.human(&format!("migrate -d unix:{}", socket.display()));
    let (mut stream, _) = listener.accept().unwrap();
    std::io::copy(&mut stream, &mut std::fs::File::create(&state).unwrap()).unwrap();

    let target = machine("tick")
        .start_stopped(true)
        .extra_args(["-incoming", "defer"]);
    let (target, mut qmp) = start(&target);
    let socket = folder.path().join("incoming");
    let uri = format!("unix:{}", socket.display());
    qmp.execute("migrate-incoming", json!({ "uri": uri }));
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    // QEMU aborts before it has read all of it.
    let _ = std::io::copy(&mut std::fs::File::open(&state).unwrap(), &mut stream);
    drop(stream);
    let exit = target.wait_blocking(soon()).unwrap();
    let ExitKind::Aborted { line: Some(line) } = exit.kind() else {
        panic!("{exit:?}")
    };
    assert!(
        line.contains("Assertion") && line.contains("CARD_POWER_UP"),
        "{line}"
    );
}

#[test]
fn dropping_ends_and_reaps() {
    let (process, _qmp) = start(&machine("tick"));
    let handle = process.handle();
    assert!(runs(handle.pid()) && handle.try_wait().is_none());
    drop(process);
    assert_eq!(
        handle.wait_blocking(soon()).unwrap().kind(),
        &ExitKind::Signalled(9)
    );
    assert_eq!(status(handle.pid(), "State"), None, "it is reaped");
    // To whoever keeps a watch, signals and ends are harmless from now on.
    handle.kill();
    handle.terminate();
}
