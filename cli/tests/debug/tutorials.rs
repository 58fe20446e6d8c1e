//! Every command of the tutorials, run as a reader types them: the lines of ```` ```console ````
//! blocks that begin with `$ `. Below each is what it prints: these texts in this order, with `...`
//! for what is left out. A command that fails says so by `FAILED` there.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::DEADLINE;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// A command of a tutorial's, and what is to come.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(tutorial: &str) -> Vec<Step> {
    let text = fs::read_to_string(repository().join("docs/tutorials").join(tutorial)).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let (block, _) = block.split_once("\n```").unwrap();
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    command: command.to_owned(),
                    expected: Vec::new(),
                }),
                (None, Some(step)) if line != "..." => step.expected.push(line.to_owned()),
                _ => {}
            }
        }
    }
    assert!(!steps.is_empty(), "{tutorial}");
    steps
}

/// A shell that is told one command after another. Dropped, all that it started ends.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start(folder: &Path, runtime: &Path) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_qemu-controller"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [program.parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let mut child = Command::new("bash")
            .current_dir(folder)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("XDG_RUNTIME_DIR", runtime)
            .env("CARGO_TERM_COLOR", "never")
            // Of whoever runs the tests.
            .env_remove("CARGO_BUILD_TARGET")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "exec 2>&1").unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self {
            child,
            input,
            lines,
        }
    }

    fn line(&self, said: &str) -> String {
        // A build may take its time.
        let line = self.lines.recv_timeout(10 * DEADLINE);
        line.unwrap_or_else(|error| panic!("{error} after\n{said}"))
    }

    /// Runs it, and sees that it prints what is expected.
    fn run(&mut self, command: &str, expected: &[String]) {
        // On a line of its own: what is ended at `--expect` has not ended its line, mostly.
        let shown = r#"printf '\n= %s\n' $?"#;
        writeln!(self.input, "{{ {command}\n}} </dev/null\n{shown}").unwrap();
        let mut said = String::new();
        let status = loop {
            let line = self.line(&said);
            if let Some(status) = line.strip_prefix("= ") {
                break status.to_owned();
            }
            said += &(line + "\n");
        };
        let may_fail = expected.iter().any(|line| line.contains("FAILED"));
        assert!(
            status == "0" || may_fail,
            "{command}: status {status}\n{said}"
        );
        let mut from = 0;
        for text in expected {
            // One in the background prints when it likes.
            while !said[from..].contains(text) && command.ends_with('&') {
                let line = self.line(&said);
                said += &(line + "\n");
            }
            let at = said[from..].find(text);
            from += at.unwrap_or_else(|| panic!("{command}: no {text:?} in\n{said}")) + text.len();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Runs a tutorial in this folder.
fn follow(tutorial: &str, folder: &Path) {
    let runtime = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(folder, runtime.path());
    // Another test, or another user, may have the port of the text.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let builds = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedded");
    fs::create_dir_all(&builds).unwrap();
    for Step { command, expected } in steps(tutorial) {
        let serves = command.starts_with("qemu-controller debug ") && command.ends_with('&');
        let command = match serves {
            true => command.replace(" debug ", &format!(" debug --gdb {port} ")),
            false => command.replace(":1234", &format!(":{port}")),
        };
        let expected: Vec<_> = expected
            .iter()
            .map(|text| text.replace(":1234", &format!(":{port}")))
            .collect();
        // Its dependencies are built once for all tests.
        let link = format!(
            "[ ! -e Cargo.toml ] || [ -e target ] || ln -s '{}' target",
            builds.display()
        );
        shell.run(&link, &[]);
        shell.run(&command, &expected);
    }
}

#[test]
fn a_crate_is_run_and_tested() {
    follow("runner.md", tempfile::tempdir().unwrap().path());
}

#[test]
fn firmware_is_debugged_from_an_editor() {
    follow("editor.md", tempfile::tempdir().unwrap().path());
}

#[test]
fn an_agent_s_calls_find_a_bug() {
    follow("agent.md", &repository());
}
