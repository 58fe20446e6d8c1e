//! An editor's part, played with Debian's lldb-dap and the entry that `debug --write` has written:
//! a breakpoint in a source file, the stop there, frames, variables, a restart. Needs lldb-dap;
//! `cargo xtask test editors` installs it and runs this.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Ample, and still an end: nothing in a test should come near it.
const DEADLINE: Duration = Duration::from_secs(60);

const ADAPTER: &str = "lldb-dap-19";

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        // It ends its QEMU, which it could not if it were killed.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// `debug` in this folder, once it waits for a debugger.
fn serve(folder: &Path, port: u16) -> Ended {
    let mut serving = Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
        .args(["debug", "app.elf", "--write", "lldb-dap"])
        .arg(format!("--gdb={port}"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(serving.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("is held at its reset for a debugger") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it has ended");
    }
    // Read on, so that it is never held up.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    Ended(serving)
}

/// The editor's side of the debug adapter protocol.
struct Editor {
    adapter: Child,
    messages: Receiver<Value>,
    /// Those that nobody has asked for yet.
    waiting: Vec<Value>,
    sent: u64,
}

impl Editor {
    fn start() -> Self {
        let adapter = Command::new(ADAPTER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut adapter =
            adapter.expect("lldb-dap is needed: `cargo xtask test editors` installs it");
        let mut output = BufReader::new(adapter.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut header = String::new();
            while output.read_line(&mut header).is_ok_and(|length| length > 0) {
                if let Some(length) = header.strip_prefix("Content-Length: ") {
                    let mut message = vec![0; length.trim().parse().unwrap()];
                    output.read_exact(&mut [0; 2]).unwrap();
                    output.read_exact(&mut message).unwrap();
                    if sender
                        .send(serde_json::from_slice(&message).unwrap())
                        .is_err()
                    {
                        return;
                    }
                }
                header.clear();
            }
        });
        Self {
            adapter,
            messages,
            waiting: Vec::new(),
            sent: 0,
        }
    }

    fn send(&mut self, command: &str, arguments: Value) -> u64 {
        self.sent += 1;
        let message = json!({
            "seq": self.sent, "type": "request", "command": command, "arguments": arguments,
        });
        let message = message.to_string();
        let input = self.adapter.stdin.as_mut().unwrap();
        write!(input, "Content-Length: {}\r\n\r\n{message}", message.len()).unwrap();
        input.flush().unwrap();
        self.sent
    }

    /// Waits for the first message of this kind that was not asked for before.
    fn wait(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.waiting.iter().position(&is_it) {
                return self.waiting.remove(at);
            }
            let message = self.messages.recv_timeout(DEADLINE);
            self.waiting.push(
                message.unwrap_or_else(|error| panic!("no {what}: {error}: {:?}", self.waiting)),
            );
        }
    }

    fn event(&mut self, name: &str) -> Value {
        self.wait(name, |message| message["event"] == name)
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let sent = self.send(command, arguments);
        let answer = self.wait(command, |message| message["request_seq"] == sent);
        assert_eq!(answer["success"], true, "{answer}");
        answer["body"].clone()
    }

    /// Waits for a stop in this function, for this reason; the frames. lldb-dap may tell of a stop
    /// twice, and late.
    fn stop(&mut self, reason: &str, function: &str) -> Vec<Value> {
        loop {
            let stopped = self.event("stopped")["body"].clone();
            let sent = self.send("stackTrace", json!({ "threadId": stopped["threadId"] }));
            let trace = self.wait("stackTrace", |message| message["request_seq"] == sent);
            let frames = trace["body"]["stackFrames"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let is_there = frames
                .first()
                .is_some_and(|frame| frame["name"] == function);
            if stopped["reason"] == reason && is_there {
                return frames;
            }
        }
    }

    /// A local variable of a frame.
    fn local(&mut self, frame: &Value, name: &str) -> String {
        let scopes = self.ask("scopes", json!({ "frameId": frame["id"] }));
        let locals = &scopes["scopes"][0]["variablesReference"];
        let variables = self.ask("variables", json!({ "variablesReference": locals }));
        let variables = variables["variables"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {variables:?}"))["value"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

#[test]
fn the_written_entry_breaks_shows_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixtures = manifest.join("../firmware-info/fixtures/c");
    fs::copy(fixtures.join("o0.elf"), folder.path().join("app.elf")).unwrap();
    let source = fs::read_to_string(fixtures.join("main.c")).unwrap();
    let is_it = |line: &&str| line.starts_with("    uint32_t total = 0");
    let line = source.lines().count() - source.lines().rev().position(|line| is_it(&line)).unwrap();
    // Free now, and a moment later most likely.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _serving = serve(folder.path(), port);

    let written = fs::read_to_string(folder.path().join(".vscode/launch.json")).unwrap();
    let written = written.replace("${workspaceFolder}", folder.path().to_str().unwrap());
    let entries: Value = serde_json::from_str(&written).unwrap();
    let entry = entries["configurations"][0].clone();

    let mut editor = Editor::start();
    editor.ask(
        "initialize",
        json!({ "adapterID": entry["type"], "pathFormat": "path" }),
    );
    let request = entry["request"].as_str().unwrap().to_owned();
    editor.send(&request, entry);
    editor.event("initialized");
    // As the file was where it was compiled.
    let breakpoints = json!({
        "source": { "path": "/fixtures/c/main.c" }, "breakpoints": [{ "line": line }],
    });
    let set = editor.ask("setBreakpoints", breakpoints);
    assert_eq!(set["breakpoints"][0]["verified"], true, "{set}");
    editor.ask("configurationDone", json!({}));
    for round in ["as started", "as restarted"] {
        editor.stop("exception", "reset_handler");
        editor.ask("continue", json!({ "threadId": 1 }));
        let frames = editor.stop("breakpoint", "main");
        let names: Vec<_> = frames.iter().map(|frame| &frame["name"]).collect();
        assert_eq!(names, ["main", "reset_handler"], "{round}");
        assert_eq!(frames[0]["line"], line);
        assert_eq!(editor.local(&frames[0], "total"), "0");
        editor.ask("next", json!({ "threadId": 1 }));
        let frames = editor.stop("step", "main");
        assert_ne!(frames[0]["line"], line);
        if round == "as started" {
            editor.ask("restart", json!({}));
        }
    }
    editor.ask("disconnect", json!({ "terminateDebuggee": true }));
    drop(editor.adapter.stdin.take());
    // Its status at the end of its input says nothing.
    editor.adapter.wait().unwrap();
}
