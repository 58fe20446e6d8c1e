//! Processes that no real QEMU can be made to be: deaf ones, ones with children, ones that are no
//! program. Small shell scripts take QEMU's place.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod fake;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fake::Fake;
use qemu_launch::discover::{FindError, find};
use qemu_launch::{ExitKind, Process, StopPolicy, StopStep};
use test_support::procfs::runs;
use test_support::{eventually, soon};

/// Starts it and waits for its first line on stdout.
fn start(fake: &Fake) -> (Process, String) {
    let process = qemu_launch::spawn(&fake.spec()).unwrap();
    let line = process
        .stdout_lines()
        .next_line_blocking(soon())
        .unwrap()
        .expect("a line");
    (process, line.text)
}

#[test]
fn one_that_is_deaf_to_sigterm_is_killed() {
    let fake = Fake::new("trap '' TERM; echo ready; while :; do sleep 1; done");
    let (process, _) = start(&fake);
    let ended = process
        .end_blocking(StopPolicy::default().terminate_within(Duration::from_millis(100)))
        .unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Killed, &ExitKind::Signalled(9))
    );
    assert!(
        ended.took >= Duration::from_millis(100),
        "SIGTERM had its time"
    );
}

#[test]
fn one_that_takes_its_time_is_waited_for() {
    let fake = Fake::new("trap 'sleep 0.2; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    let (process, _) = start(&fake);
    let ended = process
        .end_blocking(StopPolicy::default().terminate_within(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Terminated, &ExitKind::Exited(3))
    );
}

/// No patience is too long for the clock.
#[test]
fn one_that_may_take_for_ever_is_waited_for() {
    let fake = Fake::new("echo ready; sleep 0.1; exit 3");
    let (process, _) = start(&fake);
    let (tell, told) = std::sync::mpsc::channel();
    let handle = process.handle();
    std::thread::spawn(move || {
        let policy = StopPolicy::default().after_quit(Duration::MAX);
        tell.send(
            handle.end_blocking(
                policy
                    .terminate_within(Duration::MAX)
                    .kill_within(Duration::MAX),
            ),
        )
    });
    let ended = told
        .recv_timeout(Duration::from_secs(30))
        .expect("it is told")
        .unwrap();
    assert_eq!(
        (ended.step, ended.exit.kind()),
        (StopStep::Exited, &ExitKind::Exited(3))
    );
}

#[test]
fn its_children_end_with_it() {
    let fake = Fake::new("sleep 1000 & echo $!; wait");
    let (process, child) = start(&fake);
    assert!(runs(child.parse().unwrap()));
    process.kill();
    process.wait_blocking(soon()).unwrap();
    eventually("the child is gone", || !runs(child.parse().unwrap()));
    // The other way round: it exits by itself, and a child that stays is ended before the exit is
    // published.
    let fake = Fake::new("sleep 1000 & echo $!; exit 7");
    let (process, child) = start(&fake);
    assert_eq!(
        process.wait_blocking(soon()).unwrap().kind(),
        &ExitKind::Exited(7)
    );
    eventually("the child is gone", || !runs(child.parse().unwrap()));
}

/// A script that runs QEMU without `exec` has it in its group.
#[test]
fn a_wrapper_s_child_gets_the_signal_too() {
    let fake = Fake::new(
        "trap 'wait $!; exit 5' TERM; \
         sh -c 'trap \"echo heard; exit 0\" TERM; echo ready; while :; do sleep 0.05; done' & \
         wait $!",
    );
    let (process, _) = start(&fake);
    let ended = process
        .end_blocking(StopPolicy::default().terminate_within(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(ended.exit.kind(), &ExitKind::Exited(5));
    assert_eq!(process.stdout_tail().to_string_lossy(), "ready\nheard\n");
}

#[test]
fn its_current_folder() {
    let fake = Fake::new("pwd");
    let folder = fake.folder.path().canonicalize().unwrap();
    let process = qemu_launch::spawn(&fake.spec().current_dir(&folder)).unwrap();
    process.wait_blocking(soon()).unwrap();
    let said = process.stdout_tail().to_string_lossy();
    assert_eq!(Path::new(said.trim_end()), folder);
    let error = qemu_launch::spawn(&fake.spec().current_dir(folder.join("absent"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not enter the current folder for QEMU"
    );
}

/// A child that has left the group keeps the pipes open; the exit is published all the same.
#[test]
fn a_child_that_left_the_group_holds_up_nobody() {
    let fake = Fake::new(
        "left=$(dirname \"$0\")/left; setsid sh -c 'touch \"$1\"; exec sleep 1000' left \"$left\" & echo $!; \
         while ! [ -e \"$left\" ]; do sleep 0.01; done; echo last words >&2; exit 7",
    );
    let (process, child) = start(&fake);
    let exit = process.wait_blocking(soon()).unwrap();
    assert_eq!(
        (exit.kind(), exit.stderr().bytes()),
        (&ExitKind::Exited(7), &b"last words\n"[..])
    );
    let pid = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// As long as something comes, the exit is not published without it.
#[test]
fn output_that_comes_late_is_waited_for() {
    let late =
        "touch \"$1\"; i=0; while [ $i -lt 50 ]; do sleep 0.02; echo late $i >&2; i=$((i+1)); done";
    let fake = Fake::new(&format!(
        "left=$(dirname \"$0\")/left; setsid sh -c '{late}' late \"$left\" & \
         while ! [ -e \"$left\" ]; do sleep 0.01; done; exit 7"
    ));
    let process = qemu_launch::spawn(&fake.spec()).unwrap();
    let exit = process.wait_blocking(soon()).unwrap();
    assert!(
        exit.stderr().to_string_lossy().ends_with("late 49\n"),
        "{}",
        exit.stderr()
    );
}

#[test]
fn the_last_of_the_output_is_kept_and_the_rest_counted() {
    let fake = Fake::new(
        "i=0; while [ $i -lt 3000 ]; do echo line $i of many that are all alike >&2; i=$((i+1)); done",
    );
    let process = qemu_launch::spawn(&fake.spec()).unwrap();
    let exit = process.wait_blocking(soon()).unwrap();
    let tail = exit.stderr();
    assert_eq!(tail.bytes().len(), 64 * 1024);
    assert!(
        tail.to_string_lossy()
            .ends_with("line 2999 of many that are all alike\n")
    );
    let total: u64 = (0..3000)
        .map(|i| format!("line {i} of many that are all alike\n").len() as u64)
        .sum();
    assert_eq!(tail.dropped() + tail.bytes().len() as u64, total);
    let first = process
        .stderr_lines()
        .next_line_blocking(soon())
        .unwrap()
        .expect("a line");
    assert_eq!(first.dropped_before, tail.dropped());
}

#[test]
fn signals_are_as_after_a_login() {
    let fake = Fake::new(
        "grep SigBlk /proc/self/status; ulimit -c; umask; ps -o pgid= -p $$ | tr -d ' '; echo $$",
    );
    let process = qemu_launch::spawn(&fake.spec()).unwrap();
    process.wait_blocking(soon()).unwrap();
    let output = process.stdout_tail().to_string_lossy();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..3],
        ["SigBlk:\t0000000000000000", "0", "0077"],
        "{output}"
    );
    assert_eq!(lines[3], lines[4], "the leader of its own group");
}

#[test]
fn exit_status_1_is_an_option_error_only_with_a_line_of_qemu() {
    let ends = |script: &str| {
        let fake = Fake::new(script);
        let process = qemu_launch::spawn(&fake.spec()).unwrap();
        process.wait_blocking(soon()).unwrap().kind().clone()
    };
    let line = |line: &str| ExitKind::OptionError {
        line: line.to_owned(),
    };
    assert_eq!(
        ends("echo qemu-system-arm: -foo: invalid option >&2; exit 1"),
        line("-foo: invalid option")
    );
    let warned =
        "echo qemu-system-arm: warning: w >&2; echo Timer with period zero, disabling >&2; exit 1";
    assert_eq!(ends(warned), ExitKind::Exited(1));
    assert_eq!(
        ends("echo qemu-system-arm: too late >&2; exit 2"),
        ExitKind::Exited(2)
    );
    let aborted = "echo 'qemu-system-arm: ../a.c:1: f: Assertion `x` failed.' >&2; kill -ABRT $$";
    let ExitKind::Aborted { line: Some(line) } = ends(aborted) else {
        panic!("no assertion")
    };
    assert!(line.ends_with("Assertion `x` failed."), "{line}");
}

#[test]
fn three_errors_for_what_can_not_be_run() {
    let fake = Fake::new("exit 0");
    let absent = fake.folder.path().join("qemu-system-none");
    let error = find(&absent).unwrap_err();
    assert!(
        matches!(&error, FindError::Missing { program, .. } if *program == absent),
        "{error:?}"
    );

    fake.write("#!/bin/sh\n", 0o644);
    let error = find(fake.program()).unwrap_err();
    if !fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        assert!(error.to_string().contains("chmod +x"), "{error}");
    }
    assert!(
        matches!(error, FindError::NotExecutable { .. }),
        "{error:?}"
    );

    for (contents, found) in [
        ("just some text", "a file of another kind"),
        ("", "an empty file"),
    ] {
        fake.write(contents, 0o755);
        let error = find(fake.program()).unwrap_err();
        assert!(
            matches!(&error, FindError::NotAProgram { found: f, .. } if *f == found),
            "{error:?}"
        );
    }
    assert!(matches!(
        find(fake.folder.path()).unwrap_err(),
        FindError::NotAProgram {
            found: "a folder",
            ..
        }
    ));
    // To open it would wait for whoever writes into it.
    let pipe = fake.folder.path().join("qemu-system-pipe");
    let made = Command::new("mkfifo")
        .args(["-m", "755"])
        .arg(&pipe)
        .status();
    assert!(made.unwrap().success());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(find(pipe)));
    assert!(matches!(
        told.recv_timeout(Duration::from_secs(30))
            .expect("it does not hang"),
        Err(FindError::NotAProgram {
            found: "a device, pipe or socket",
            ..
        })
    ));
}

/// The environment decides where a bare name is looked up, so this needs processes of its own.
#[test]
fn a_bare_name_is_looked_up_in_its_variable_then_in_path() {
    const NAME: &str = "a_bare_name_is_looked_up_in_its_variable_then_in_path";
    if std::env::var_os("QEMU_LAUNCH_ROLE").is_some() {
        match find("qemu-system-arm") {
            Ok(path) => println!("found {}", path.display()),
            Err(error) => println!("found {error}"),
        }
        return;
    }
    let (a, b) = (Fake::new("exit 0"), Fake::new("exit 0"));
    let lookup = |variable: Option<&Path>, path: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", NAME, "--nocapture"])
            .env("QEMU_LAUNCH_ROLE", "finder")
            .env("PATH", path);
        command
            .env_remove("QEMU_SYSTEM_ARM")
            .current_dir(b.folder.path());
        command.envs(variable.map(|value| ("QEMU_SYSTEM_ARM", value)));
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        text.lines()
            .find_map(|line| Some(line.split_once("found ")?.1.to_owned()))
            .expect("a verdict")
    };
    let path = format!(
        "/nonexistent:{}:{}",
        a.folder.path().display(),
        b.folder.path().display()
    );
    assert_eq!(lookup(None, &path), a.program().display().to_string());
    assert_eq!(
        lookup(Some(&b.program()), &path),
        b.program().display().to_string()
    );
    // One that may not be run is passed over for one that may; alone, it is named.
    a.write("#!/bin/sh\n", 0o644);
    assert_eq!(lookup(None, &path), b.program().display().to_string());
    let only_a = a.folder.path().display().to_string();
    assert!(
        lookup(None, &only_a).contains("may not be executed"),
        "{}",
        lookup(None, &only_a)
    );
    let nowhere = lookup(None, "/nonexistent");
    assert!(
        nowhere.starts_with("qemu-system-arm was not found in PATH (/nonexistent); "),
        "{nowhere}"
    );
    // An empty entry, or no PATH at all, is not the current folder: it has such a program.
    for path in ["", ":/nonexistent"] {
        assert!(lookup(None, path).contains("was not found"), "{path:?}");
    }
    let misled = lookup(Some(Path::new("/nonexistent/q")), &path);
    assert!(
        misled.starts_with("/nonexistent/q was not found in the variable QEMU_SYSTEM_ARM"),
        "{misled}"
    );
}

#[test]
fn the_caller_s_own_stdin_and_stdout() {
    let fake = Fake::new("cat; echo by its name > /proc/self/fd/1");
    let (stdin, mut to_it) = std::io::pipe().unwrap();
    let (mut of_it, stdout) = std::io::pipe().unwrap();
    let spec = fake.spec().inherit_stdout();
    let process = qemu_launch::spawn(&spec.stdin(stdin.into()).stdout(stdout.into())).unwrap();
    to_it.write_all(b"echoed\n").unwrap();
    drop(to_it);
    process.wait_blocking(soon()).unwrap();
    let mut printed = [0; 19];
    of_it.read_exact(&mut printed).unwrap();
    assert_eq!(printed, *b"echoed\nby its name\n");
}
