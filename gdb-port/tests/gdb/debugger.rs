//! Runs gdb-multiarch: a batch of commands, or a session that stays attached until it is told to
//! go.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use gdb_port::StubAddress;

use test_support::machine::{Machine, firmware};
use test_support::{PATIENCE, eventually};

/// Where its stub listens.
pub(crate) fn address(machine: &Machine) -> StubAddress {
    machine.endpoint.parse().unwrap()
}

/// What the session prints when a command has been carried out.
const DONE: &str = "-- done --";

fn gdb() -> Command {
    let mut command = Command::new("gdb-multiarch");
    // No start-up files, no questions, no pages; and a gdb that gets no answer gives up after so
    // many seconds.
    command.args([
        "-nx",
        "-q",
        "-iex",
        "set confirm off",
        "-iex",
        "set pagination off",
    ]);
    command.args([
        "-iex",
        "set debuginfod enabled off",
        "-iex",
        "set tcp connect-timeout 10",
    ]);
    command.args(["-iex", "set remotetimeout 10"]);
    command.arg(firmware());
    command
}

/// How long one batch or one command may take. A gdb that gets no answer ends by itself before.
const LIMIT: Duration = PATIENCE.saturating_mul(3);

/// A gdb process. Killed and reaped when dropped, and killed when it takes too long over one thing.
struct Process(Mutex<Child>);

impl Process {
    fn start(mut command: Command) -> Self {
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(Mutex::new(spawned.unwrap_or_else(|error| {
            panic!("gdb-multiarch cannot be started ({error}): these tests need it, install the package gdb-multiarch")
        })))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may wait for gdb. Past the limit gdb is killed, which ends its output and so the
    /// waiting.
    fn watched<T>(&self, limit: Duration, wait: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let (done, is_done) = mpsc::channel::<()>();
            scope.spawn(move || {
                if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("gdb took longer than {limit:?} and is killed");
                    let _ = self.child().kill();
                }
            });
            let value = wait();
            drop(done);
            value
        })
    }

    /// What it prints until it ends, on stdout and on stderr, and how it ended.
    fn output(&self, limit: Duration) -> (String, String, ExitStatus) {
        let mut child = self.child();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        drop(child);
        let (mut printed, mut errors) = (Vec::new(), Vec::new());
        self.watched(limit, || {
            thread::scope(|scope| {
                scope.spawn(|| stderr.read_to_end(&mut errors).unwrap());
                stdout.read_to_end(&mut printed).unwrap();
            });
        });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(printed), text(errors), self.end())
    }

    /// Waits until it has ended, without holding it: the watchdog may need it.
    fn end(&self) -> ExitStatus {
        let mut status = None;
        eventually("gdb ends", || {
            status = self.child().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn target(endpoint: &StubAddress) -> String {
    match endpoint {
        StubAddress::Tcp(address) => format!("target remote {address}"),
        StubAddress::Unix(path) => format!("target remote {}", path.display()),
        other => panic!("gdb has no word for {other}"),
    }
}

/// Attaches, carries the commands out, and returns what was printed. gdb ends at the first that
/// fails.
pub(crate) fn batch(endpoint: &StubAddress, commands: &[&str]) -> String {
    let mut command = gdb();
    command.args(["-batch", "-ex", &target(endpoint)]);
    for line in commands {
        command.args(["-ex", line]);
    }
    let gdb = Process::start(command);
    // Nothing is asked of a batch: whoever reads there shall not wait.
    drop(gdb.child().stdin.take());
    let (printed, errors, status) = gdb.output(LIMIT);
    assert!(
        status.success(),
        "gdb ended with {status}:\n{printed}\n{errors}"
    );
    printed + &errors
}

/// A gdb that is attached. Killed when dropped.
pub(crate) struct Session {
    process: Process,
    commands: ChildStdin,
    printed: BufReader<ChildStdout>,
}

impl Session {
    pub(crate) fn attach(endpoint: &StubAddress) -> Self {
        let process = Process::start(gdb());
        let mut child = process.child();
        let commands = child.stdin.take().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        drop(child);
        let mut session = Self {
            process,
            commands,
            printed,
        };
        session.run(&target(endpoint));
        session
    }

    /// Carries one command out and returns what was printed.
    pub(crate) fn run(&mut self, command: &str) -> String {
        let (commands, lines) = (&mut self.commands, &mut self.printed);
        self.process.watched(LIMIT, || {
            writeln!(commands, "{command}\necho {DONE}\\n").unwrap();
            let mut printed = String::new();
            loop {
                let mut line = String::new();
                assert!(
                    lines.read_line(&mut line).unwrap() > 0,
                    "gdb ended:\n{printed}"
                );
                if line.contains(DONE) {
                    return printed;
                }
                printed += &line;
            }
        })
    }

    pub(crate) fn detach(mut self) {
        self.run("detach");
        writeln!(self.commands, "quit").unwrap();
        assert!(self.process.end().success());
    }
}

#[test]
fn a_gdb_that_never_ends_is_killed() {
    // It waits for commands, which nobody gives.
    let gdb = Process::start(gdb());
    let (_, _, status) = gdb.output(Duration::from_millis(100));
    assert!(!status.success(), "{status}");
}
