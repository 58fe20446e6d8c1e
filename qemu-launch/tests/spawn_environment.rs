//! The environment in which a spawned process begins, whatever state the program is in that spawns
//! it: descriptors closed, signals handled or blocked, a large memory, busy threads.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

mod fake;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use fake::Fake;
use qemu_launch::{Address, Endpoint, ExitKind, Lines, Process, SpawnError};
use rustix::io::fcntl_dupfd_cloexec;
use test_support::procfs::{descriptors, entries};
use test_support::{eventually, soon, until};

/// Runs the test's body in a process of its own, which it may spoil. SIGHUP is ignored there, as by
/// `nohup`.
fn alone(test: &str, body: impl FnOnce()) {
    const ROLE: &str = "QEMU_LAUNCH_ROLE";
    if std::env::var_os(ROLE).is_some() {
        return body();
    }
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(ROLE, "alone")
        .process_group(0);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(output.status.success(), "in its own process: {said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// A hexadecimal field of `status`: a set of signals.
fn signals(status: &str, field: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    u64::from_str_radix(line.expect(field).trim(), 16).unwrap()
}

fn only(signals: &[i32]) -> u64 {
    signals
        .iter()
        .fold(0, |set, signal| set | 1 << (signal - 1))
}

/// What each descriptor of the process is: `pipe`, `socket`, or a path.
fn kinds(process: &Process) -> BTreeMap<i32, String> {
    let kind = |name: String| name.split(':').next().unwrap_or_default().to_owned();
    descriptors(process.pid())
        .into_iter()
        .map(|(number, name)| (number, kind(name)))
        .collect()
}

/// A program may have closed any of its standard streams, and its next descriptors have their
/// numbers then: its ends of the pipes and QEMU's, in any order.
#[test]
fn its_descriptors_are_in_their_places_whichever_of_ours_are_closed() {
    alone(
        "its_descriptors_are_in_their_places_whichever_of_ours_are_closed",
        || {
            let plain = entries("/proc/self/task");
            for closed in 0..8 {
                for channels in [0, 1, 3] {
                    // Told once there is a stderr again.
                    let found = with_closed(closed, || {
                        let found = check_descriptors(channels);
                        // The numbers are theirs until they end.
                        eventually("no serving thread is left", || {
                            entries("/proc/self/task") == plain
                        });
                        found
                    });
                    assert_eq!(found, Ok(()), "closed: {closed:03b}, channels: {channels}");
                }
            }
        },
    );
}

fn check_descriptors(channels: usize) -> Result<(), String> {
    let fake = Fake::new("echo out; echo err >&2; exec sleep 1000");
    let spec = (0..channels).fold(fake.spec().without_qmp(), |spec, _| {
        spec.serial(Endpoint::Inherited)
    });
    let process = qemu_launch::spawn(&spec).map_err(|error| format!("{error:?}"))?;
    let mut expected: BTreeMap<i32, String> = [(0, "/dev/null"), (1, "pipe"), (2, "pipe")]
        .map(|(number, what)| (number, what.to_owned()))
        .into();
    for channel in 0..channels {
        match process.serial_address(channel) {
            Some(&Address::Inherited { fd }) => expected.insert(fd, "socket".to_owned()),
            other => return Err(format!("channel {channel} is {other:?}")),
        };
    }
    if expected.len() != 3 + channels {
        return Err(format!("a number was given twice: {expected:?}"));
    }
    let first = |mut lines: Lines| {
        lines
            .next_line_blocking(soon())
            .map(|line| line.map(|line| line.text))
    };
    let said = [first(process.stdout_lines()), first(process.stderr_lines())];
    if said != [Ok(Some("out".to_owned())), Ok(Some("err".to_owned()))] {
        return Err(format!("it said {said:?}"));
    }
    // The shell has its script open, and a program that begins has its libraries; what stays was
    // inherited.
    let deadline = soon();
    while kinds(&process) != expected {
        if Instant::now() > deadline {
            return Err(format!("{:?} instead of {expected:?}", kinds(&process)));
        }
        thread::yield_now();
    }
    Ok(())
}

/// Does it while the standard streams of these bits are closed.
#[expect(
    unsafe_code,
    reason = "to close a standard stream is what no safe code does"
)]
fn with_closed<T>(closed: u32, work: impl FnOnce() -> T) -> T {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
    let aside =
        [stdin(), stdout(), stderr()].map(|stream| fcntl_dupfd_cloexec(stream, 100).unwrap());
    for number in (0..3).filter(|number| closed & 1 << number != 0) {
        // SAFETY: nobody else in this process uses it until it is open again.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    let done = work();
    let [stdin, stdout, stderr] = aside;
    dup2_stdin(stdin)
        .and(dup2_stdout(stdout))
        .and(dup2_stderr(stderr))
        .unwrap();
    done
}

/// None of our handlers, nothing blocked, SIGPIPE as everywhere but in Rust; what `nohup` ignores
/// stays ignored. And the thread that starts it blocks afterwards what it has blocked before.
#[test]
fn its_signals_are_the_defaults_whatever_ours_are() {
    use libc::{SIGHUP, SIGPIPE, SIGUSR1, SIGWINCH};
    alone("its_signals_are_the_defaults_whatever_ours_are", || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _handled = [SIGUSR1, SIGWINCH].map(|number| {
            let _runtime = runtime.enter();
            tokio::signal::unix::signal(number.into()).unwrap()
        });
        block(&[SIGUSR1, libc::SIGTERM]);
        let before = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_eq!(
            signals(&before, "SigCgt") & only(&[SIGUSR1, SIGWINCH]),
            only(&[SIGUSR1, SIGWINCH])
        );
        let ignored = signals(&before, "SigIgn");
        assert_eq!(ignored & only(&[SIGHUP, SIGPIPE]), only(&[SIGHUP, SIGPIPE]));

        let fake = Fake::new("exec cat /proc/self/status");
        let process = qemu_launch::spawn(&fake.spec()).unwrap();
        process.wait_blocking(soon()).unwrap();
        let status = process.stdout_tail().to_string_lossy();
        let found = ["SigBlk", "SigIgn", "SigCgt"].map(|field| signals(&status, field));
        assert_eq!(
            found,
            [0, ignored & !only(&[SIGPIPE]), 0],
            "blocked, ignored, caught"
        );
        // The serving thread is made by this one, and blocks what this one does.
        let _serves = qemu_launch::spawn(&Fake::new("exec sleep 1000").spec()).unwrap();
        // Where another thread ends meanwhile, the one behind it may be left out of the folder.
        let serving = until("the thread that serves it", || {
            let mut tasks = fs::read_dir("/proc/self/task").unwrap();
            tasks.find_map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
                status.contains("qemu-serve").then_some(status)
            })
        });
        assert_eq!(
            signals(&serving, "SigBlk"),
            signals(&before, "SigBlk"),
            "as before the start"
        );
    });
}

#[expect(unsafe_code, reason = "no safe crate among the dependencies does it")]
fn block(signals: &[i32]) {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the first call writes what the others use.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        signals
            .iter()
            .for_each(|&signal| assert_eq!(libc::sigaddset(set.as_mut_ptr(), signal), 0));
        assert_eq!(
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()),
            0
        );
    }
}

/// The system's own reason comes back from the child that was to execute it, and nothing is left of
/// that child.
#[test]
fn why_the_system_executes_no_program() {
    alone("why_the_system_executes_no_program", || {
        let fake = Fake::new("exit 0");
        let plain = entries("/proc/self/task");
        qemu_launch::spawn(&fake.spec())
            .unwrap()
            .wait_blocking(soon())
            .unwrap();
        eventually("no serving thread is left", || {
            entries("/proc/self/task") == plain
        });
        let before = entries("/proc/self/fd");

        let refused = |name: &str| {
            let spec = fake.spec().extra_args(["-name", name]);
            let SpawnError::Exec { source, .. } = qemu_launch::spawn(&spec).unwrap_err() else {
                panic!()
            };
            source.raw_os_error().unwrap()
        };
        assert_eq!(refused(&"x".repeat(1 << 20)), libc::E2BIG);
        fake.write("#!/nonexistent/interpreter\n", 0o755);
        assert_eq!(refused("absent"), libc::ENOENT);
        fake.write("#!/etc/passwd\n", 0o755);
        assert_eq!(refused("may not be executed"), libc::EACCES);
        // An ELF up to its machine, and nothing behind it.
        let header = fs::read("/proc/self/exe").unwrap();
        fake.write(&header[..20], 0o755);
        assert_eq!(refused("cut off"), libc::ENOEXEC);

        assert_eq!(entries("/proc/self/fd"), before);
        // The last one's thread ends on its own, a moment after it has said so.
        eventually("no serving thread is left", || {
            entries("/proc/self/task") == plain
        });
        let any = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(any.unwrap_err(), rustix::io::Errno::CHILD, "no zombie");
    });
}

/// What fails is said to fail: QEMU is where it was.
#[test]
fn out_of_descriptors_is_not_a_qemu_that_is_missing() {
    alone("out_of_descriptors_is_not_a_qemu_that_is_missing", || {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let fake = Fake::new("exit 0");
        let before = getrlimit(Resource::Nofile);
        // One is free, to be taken by what is not the last step.
        for free in 0..8 {
            let current = Some(entries("/proc/self/fd") as u64 - 1 + free);
            setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
            let spawned = qemu_launch::spawn(&fake.spec());
            setrlimit(Resource::Nofile, before).unwrap();
            if let Err(error) = spawned {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                let system = cause
                    .downcast_ref::<std::io::Error>()
                    .expect("the system's");
                assert_eq!(system.raw_os_error(), Some(libc::EMFILE), "{free}: {error}");
            } else {
                assert!(free > 2, "{free}");
            }
        }
        qemu_launch::spawn(&fake.spec()).unwrap();
    });
}

/// After a `fork` a program pays once more for each page that it writes to, and before it for the
/// tables of all.
#[test]
fn the_memory_in_use_is_not_copied() {
    const PAGE: usize = 4096;
    let mut memory = vec![1_u8; 4096 * PAGE];
    let fake = Fake::new("exit 0");
    let faults = || {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(7)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let process = qemu_launch::spawn(&fake.spec()).unwrap();
    let before = faults();
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte += 1);
    let paid = faults() - before;
    assert!(
        std::hint::black_box(memory)
            .iter()
            .step_by(PAGE)
            .all(|&byte| byte == 2)
    );
    process.wait_blocking(soon()).unwrap();
    assert!(paid < 1000, "{paid} page faults in 4096 pages");
}

/// Locks and signals are the other threads' business, which go on while a child is made.
#[test]
fn busy_threads_hold_up_no_start() {
    alone("busy_threads_hold_up_no_start", || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _handled = {
            let _runtime = runtime.enter();
            tokio::signal::unix::signal(libc::SIGWINCH.into()).unwrap()
        };
        let over = AtomicBool::new(false);
        let until_over = |work: &dyn Fn(usize)| {
            (0..)
                .take_while(|_| !over.load(Ordering::Relaxed))
                .for_each(work)
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| until_over(&|n| drop(vec![n as u8; 1 << (n % 20)])));
            }
            scope.spawn(|| until_over(&|_| assert!(std::env::vars_os().count() > 0)));
            scope.spawn(|| {
                let me = rustix::process::getpid();
                until_over(&|_| {
                    rustix::process::kill_process_group(me, rustix::process::Signal::WINCH)
                        .unwrap();
                    thread::yield_now();
                });
            });
            scope.spawn(|| {
                until_over(&|_| assert!(Command::new("true").status().unwrap().success()))
            });
            let fake = Fake::new("exit 7");
            for _ in 0..100 {
                let process = qemu_launch::spawn(&fake.spec()).unwrap();
                let exit = process.wait_blocking(soon()).unwrap();
                assert_eq!(exit.kind(), &ExitKind::Exited(7));
            }
            over.store(true, Ordering::Relaxed);
        });
    });
}
