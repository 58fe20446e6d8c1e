//! Runs gdb-multiarch: a batch of commands, or a session that stays attached until it is told to go.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gdb_port::Endpoint;

use crate::machine::firmware;

/// What the session prints when a command has been carried out.
const DONE: &str = "-- done --";

fn gdb() -> Command {
    let mut command = Command::new("gdb-multiarch");
    // No start-up files, no questions, no pages; and a gdb that hears nothing gives up after so many seconds.
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

fn start(mut command: Command) -> Child {
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    spawned.unwrap_or_else(|error| {
        panic!("gdb-multiarch cannot be started ({error}): these tests need it, install the package gdb-multiarch")
    })
}

fn target(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp(address) => format!("target remote {address}"),
        Endpoint::Unix(path) => format!("target remote {}", path.display()),
        other => panic!("gdb has no word for {other}"),
    }
}

/// Attaches, carries the commands out, and returns what was printed. gdb ends at the first that fails.
pub(crate) fn batch(endpoint: &Endpoint, commands: &[&str]) -> String {
    let mut command = gdb();
    command.args(["-batch", "-ex", &target(endpoint)]);
    for line in commands {
        command.args(["-ex", line]);
    }
    let output = start(command).wait_with_output().unwrap();
    let (printed, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "gdb ended with {}:\n{printed}\n{errors}",
        output.status
    );
    printed.into_owned() + &errors
}

/// A gdb that is attached. Killed when dropped.
pub(crate) struct Session {
    child: Child,
    commands: ChildStdin,
    printed: BufReader<ChildStdout>,
}

impl Session {
    pub(crate) fn attach(endpoint: &Endpoint) -> Self {
        let mut child = start(gdb());
        let commands = child.stdin.take().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let mut session = Self {
            child,
            commands,
            printed,
        };
        session.run(&target(endpoint));
        session
    }

    /// Carries one command out and returns what was printed.
    pub(crate) fn run(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}\necho {DONE}\\n").unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.printed.read_line(&mut line).unwrap() > 0,
                "gdb ended:\n{printed}"
            );
            if line.contains(DONE) {
                return printed;
            }
            printed += &line;
        }
    }

    pub(crate) fn detach(mut self) {
        self.run("detach");
        writeln!(self.commands, "quit").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
