//! A signal ends the run in order, whenever it comes: the status that a shell expects, and no QEMU
//! left.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::Signal;

#[cfg(target_os = "linux")]
use crate::support::Call;

const ASKING: [(Signal, i32); 3] = [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)];

#[test]
fn while_the_firmware_prints() {
    for (signal, status) in ASKING {
        let mut running = Call::image("tick", []).start();
        running.prints("tick 1");
        running.signal(signal);
        let output = running.end();
        assert_eq!(output.status.code(), Some(status), "{signal:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        match signal {
            // Somebody wants to know where it hangs.
            Signal::INT => assert!(
                said.starts_with("qemu-controller: interrupted: the guest is running at 0x")
                    && said.contains("\n    core 0 is in ")
                    && said.lines().skip(1).all(|line| line.starts_with("    ")),
                "{said}"
            ),
            _ => assert_eq!(said, "", "{signal:?}"),
        }
    }
}

#[test]
fn as_soon_as_there_is_a_qemu() {
    for (signal, status) in ASKING {
        let mut running = Call::image("tick", []).start();
        running.qemu();
        running.signal(signal);
        assert_eq!(running.end().status.code(), Some(status), "{signal:?}");
    }
}

/// Not synchronisation: any moment will do, and these are spread over a start.
#[test]
fn at_any_moment_of_a_start() {
    for millis in (0..100).step_by(10) {
        let running = Call::image("tick", []).start();
        std::thread::sleep(Duration::from_millis(millis));
        running.signal(Signal::INT);
        let status = running.end().status;
        // Before it listens, a signal ends it as it ends any program.
        assert!(
            status.code() == Some(130) || status.signal() == Some(2),
            "after {millis} ms: {status}"
        );
    }
}

/// The library that listens loses a signal which comes right after the system call for its handler.
/// Traced, it comes just there.
#[cfg(target_os = "linux")]
#[test]
fn as_soon_as_it_is_listened_to() {
    use nix::sys::{
        ptrace,
        wait::{WaitStatus, waitpid},
    };

    for (signal, status) in ASKING {
        let running = Call::image("tick", []).start_in_shell("kill -STOP $$");
        let program = nix::unistd::Pid::from_raw(running.id().cast_signed());
        ptrace::seize(program, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
        loop {
            match waitpid(program, None).unwrap() {
                WaitStatus::PtraceSyscall(_) if is_caught(running.id(), signal) => break,
                // The shell's own stop, of which there may be a report before and one after.
                WaitStatus::PtraceEvent(_, nix::sys::signal::SIGSTOP, _) => {
                    running.signal(Signal::CONT)
                }
                WaitStatus::PtraceSyscall(_)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::Stopped(..) => {}
                other => panic!("{signal:?}: {other:?}"),
            }
            ptrace::syscall(program, None).unwrap();
        }
        running.signal(signal);
        ptrace::detach(program, None).unwrap();
        assert_eq!(running.end().status.code(), Some(status), "{signal:?}");
    }
}

/// Whether a process is the program by now, and has a handler for this signal. A shell may have
/// one, too.
#[cfg(target_os = "linux")]
fn is_caught(process: u32, signal: Signal) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
    let caught = test_support::signals(&process.to_string(), "SigCgt:");
    name.trim() == "qemu-controller" && test_support::has(caught, signal.as_raw())
}

/// A script has SIGINT ignored for its jobs in the background, and still no QEMU is left when
/// Ctrl-C ends it.
#[cfg(target_os = "linux")]
#[test]
fn nohup_is_heeded_and_other_signals_that_were_ignored_before_are_too() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut running = Call::image("tick", []).start_in_shell("trap '' HUP INT TERM");
        running.prints("tick 1");
        running.signal(Signal::HUP);
        running.prints("tick 3");
        running.signal(signal);
        assert_eq!(running.end().status.code(), Some(status));
    }
}

#[test]
fn twice_in_a_row() {
    let mut running = Call::image("tick", []).start();
    running.prints("tick 1");
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let code = running.end().status.code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

#[test]
fn while_a_debugger_is_awaited() {
    let mut running = Call::image("tick", ["--gdb=free"]).start();
    running.stderr.until("target remote");
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
}

/// Killed, it can clear away nothing; the kernel does.
#[test]
fn killed_for_good() {
    let mut running = Call::image("tick", []).start();
    running.prints("tick 1");
    running.signal(Signal::KILL);
    assert_eq!(running.end().status.signal(), Some(9));
}

/// A stdout that nobody reads and nobody closes holds up no signal.
#[test]
fn while_stdout_is_stuck() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut running = Call::image("uart-flood", ["--log", "/dev/null"])
        .stdout(writer)
        .start();
    running.qemu();
    // More than a pipe holds: writing is stuck then.
    until_full(&reader);
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
}

/// What nobody reads on stderr does not fill the memory.
#[cfg(target_os = "linux")]
#[test]
fn while_stderr_is_stuck() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut running = Call::image("stderr-flood", []).stderr(writer).start();
    let qemu = running.qemu();
    let figure = |pid: u32, file: &str, name: &str| {
        let lines = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let line = lines.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse::<u64>().unwrap()
    };
    crate::support::until("100 MB", || {
        (figure(qemu, "io", "wchar:") > 100_000_000).then_some(())
    });
    let kilobytes = figure(running.id(), "status", "VmRSS:");
    assert!(kilobytes < 64 * 1024, "{kilobytes} KB");
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
}

/// A firmware that prints without a pause leaves the timeout and signals their turn.
#[test]
fn while_stderr_is_flooded() {
    for option in ["--json", "--verbose"] {
        let file = tempfile::tempfile().unwrap();
        let call = Call::image("stderr-flood", ["--timeout=0.5s", option]);
        call.stderr(file).ends_with(124);
    }
    let mut running = Call::image("stderr-flood", []).start();
    running.stderr.until("flood 64.");
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
}

/// A full pipe of 16 pages holds more than half of each: a piece that does not fit behind another
/// gets a page of its own.
fn until_full(reader: &std::io::PipeReader) {
    let mut before = 0;
    crate::support::until("a full pipe", || {
        let now = rustix::io::ioctl_fionread(reader).unwrap();
        std::mem::replace(&mut before, now)
            .eq(&now)
            .then_some(now)
            .filter(|&now| now >= 32_000)
    });
}

/// Nobody could learn how QEMU ended, if that were not heeded.
#[cfg(target_os = "linux")]
#[test]
fn the_end_of_a_child_that_a_parent_has_ignored() {
    let running = Call::image("semihosting-exit", []).start_in_shell("trap '' CHLD");
    assert_eq!(running.end().status.code(), Some(7));
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_a_parent_has_blocked() {
    let blocked = r#"exec env --block-signal=TERM "$0" "$@""#;
    let mut running = Call::image("tick", []).start_in_shell(blocked);
    running.prints("tick 1");
    running.signal(Signal::TERM);
    assert_eq!(running.end().status.code(), Some(143));
}
