//! The demo as a user meets it: its steps, its errors, its end. Needs `qemu-system-arm`, and fails
//! where it is missing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sweep;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Ample, and still an end.
const DEADLINE: Duration = Duration::from_secs(30);

fn demo(arguments: &[&str]) -> Command {
    test_support::heed_signals();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(["demo", "--no-install"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    demo(arguments).output().unwrap()
}

/// The demo with `--json`, and its steps as they come.
fn steps(child: &mut Child) -> impl Iterator<Item = Value> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// Whether a process is gone; it may take QEMU a moment.
fn gone(pid: u64) -> bool {
    let until = Instant::now() + DEADLINE;
    while Path::new(&format!("/proc/{pid}")).exists() {
        if Instant::now() > until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Whether every process with this folder for its temporary files is gone; QEMU inherits the
/// variable.
fn all_gone(folder: &Path) -> bool {
    let wanted = format!("TMPDIR={}", folder.display());
    let until = Instant::now() + DEADLINE;
    let is_left = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut environments =
            processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
        environments.any(|environment| {
            environment
                .split(|&byte| byte == 0)
                .any(|entry| entry == wanted.as_bytes())
        })
    };
    while is_left() {
        if Instant::now() > until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn signal(pid: u64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn every_step_is_shown_on_both_boards() {
    for board in ["lm3s6965evb", "mps2-an385"] {
        let mut child = demo(&["--json", "--machine", board]).spawn().unwrap();
        let steps: Vec<_> = steps(&mut child).collect();
        assert!(child.wait().unwrap().success(), "{board}");
        let names: Vec<_> = steps
            .iter()
            .map(|step| step["step"].as_str().unwrap())
            .collect();
        let expected =
            "qemu argv ready state cpus gdb probe serial serial pause resume reset serial stop"
                .split(' ')
                .collect::<Vec<_>>();
        assert_eq!(names, expected, "{board}");
        for step in steps.iter().filter(|step| step["step"] != "argv") {
            assert!(step["took_ms"].is_f64(), "{step}");
        }
        let step = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap();
        for look in ["gdb", "probe"] {
            assert_eq!(step(look)["can_attach"], true);
            assert_eq!(
                step(look)["run_state_before"],
                step(look)["run_state_after"]
            );
        }
        assert_eq!(step("pause")["run_state"], "paused");
        assert_eq!(step("resume")["run_state"], "running");
        assert!(gone(step("argv")["pid"].as_u64().unwrap()));
    }
}

#[test]
fn people_see_the_same_as_lines() {
    let output = run(&[]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        " qemu ",
        " argv ",
        " ready ",
        "run state running",
        "127.0.0.1:",
        "'boot'",
        "'tick ",
        "run state paused",
        "status 0 (by quit)",
    ] {
        assert!(text.contains(words), "no '{words}' in:\n{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let mut text = tempfile::NamedTempFile::new().unwrap();
    text.write_all(b"int main(void) {}\n").unwrap();
    let text = text.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let host = std::env::current_exe().unwrap();
    let rows: [(&[&str], &[&str]); 9] = [
        (
            &["--firmware", "/no/such.elf"],
            &["no file", "/no/such.elf"],
        ),
        (&["--firmware", "/"], &["folder"]),
        (&["--firmware", text], &["text file", "ELF"]),
        (&["--firmware", host.to_str().unwrap()], &["another CPU"]),
        (
            &["--machine", "no-such-board"],
            &["knows no machine 'no-such-board'"],
        ),
        (&["--cpu", "no-such-cpu"], &["no-such-cpu"]),
        (
            &["--gdb", &taken],
            &["Address already in use", &taken[10..]],
        ),
        (&["--gdb", "0.0.0.0:1234"], &["loopback"]),
        (&["--qemu", "/no/such/qemu"], &["/no/such/qemu"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in rows {
        let output = demo(arguments)
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        assert!(all_gone(folder.path()), "{arguments:?} left a process");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        for word in words {
            assert!(said.contains(word), "{arguments:?}: no '{word}' in: {said}");
        }
    }
}

#[test]
fn interrupts_leave_no_qemu() {
    let folder = tempfile::tempdir().unwrap();
    for (interrupt, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        // While QEMU starts, in the middle of the steps, and while it waits for a debugger.
        for last in ["qemu", "argv", "pause", "wait"] {
            let mut child = demo(&["--json", "--wait"])
                .env("TMPDIR", folder.path())
                .spawn()
                .unwrap();
            let mut steps = steps(&mut child);
            assert!(steps.any(|step| step["step"] == last), "{last}");
            signal(child.id().into(), interrupt);
            let rest = steps.last();
            assert_eq!(child.wait().unwrap().code(), Some(status), "{last}");
            assert!(last == "qemu" || rest.unwrap()["step"] == "stop", "{last}");
            assert!(all_gone(folder.path()), "{last} left a process");
        }
    }
}

#[test]
fn a_qemu_that_is_killed_meanwhile_is_told() {
    let mut child = demo(&["--json", "--wait"]).spawn().unwrap();
    let mut steps = steps(&mut child);
    let pid = steps.find_map(|step| step["pid"].as_u64()).unwrap();
    let wait = steps.find(|step| step["step"] == "wait").unwrap();
    assert!(
        wait["attach"]
            .as_str()
            .unwrap()
            .starts_with("gdb-multiarch -q "),
        "{wait}"
    );
    signal(pid, Signal::KILL);
    steps.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("signal 9"), "{said}");
    assert!(gone(pid));
}
