//! `serve` and `ctl`: a session that outlives the call, and nothing that outlives the session.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::mcp::{Client, children, folder, gone, signal};
use crate::support::{Stream, image, until};

pub(crate) struct Server {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    runtime: TempDir,
}

fn program(runtime: &Path) -> Command {
    test_support::heed_signals();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-controller"));
    command
        .env("XDG_RUNTIME_DIR", runtime)
        .current_dir(folder())
        .stdin(Stdio::null());
    command
}

fn serve(runtime: TempDir, words: &[&str]) -> Server {
    serve_in(&folder(), runtime, words)
}

fn serve_in(project: &Path, runtime: TempDir, words: &[&str]) -> Server {
    let mut child = program(runtime.path())
        .current_dir(project)
        .arg("serve")
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Server {
        stdout: Stream::new(child.stdout.take().unwrap()),
        stderr: Stream::new(child.stderr.take().unwrap()),
        child,
        runtime,
    }
}

impl Server {
    pub(crate) fn start(words: &[&str]) -> Self {
        let mut server = serve(tempfile::tempdir().unwrap(), words);
        server.stdout.until("steer it with");
        server
    }

    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        let mut command = program(self.runtime.path());
        command.arg("ctl").args(words).output().unwrap()
    }

    /// What a call that succeeds says.
    fn says(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[words, &["--json"]].concat())).unwrap()
    }

    /// What a call that does not succeed says, with this status.
    fn refuses(&self, status: i32, words: &[&str]) -> String {
        let output = self.ctl(words);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{words:?}: {stderr}");
        stderr
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn socket(&self) -> PathBuf {
        self.runtime.path().join("qemu-controller/default.sock")
    }

    fn ends(&mut self) -> Option<i32> {
        until("its end", || self.child.try_wait().unwrap()).code()
    }

    /// Ends by itself or by what was done to it, with this status, and leaves nothing.
    pub(crate) fn leaves_nothing(mut self, status: i32, qemus: &[u32]) {
        assert_eq!(self.ends(), Some(status), "{}", self.stderr.text());
        gone(qemus);
        assert!(!self.socket().exists());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_bug_is_found_and_cured_call_by_call() {
    for board in ["cortex-m.elf", "riscv.elf"] {
        let server = Server::start(&[board]);
        server.says(&["run-until", "--reaches", "print"]);
        let stop = server.json(&["run-until", "--faults"]);
        assert_eq!(stop["stop"], "faulted", "{board}: {stop}");
        assert!(
            server.says(&["backtrace"]).contains("use_pointer"),
            "{board}"
        );
        assert!(server.says(&["core-reports"]).contains("use_pointer"));
        let memory = server.says(&["read-memory", "pointer", "4"]);
        assert!(memory.ends_with(": e0beadde\n"), "{memory}");
        server.says(&["reset"]);
        let words = ["run-until", "--writes", "pointer", "--skip", "1"];
        let stop = server.json(&words);
        assert!(
            stop["place"].as_str().unwrap().starts_with("store"),
            "{stop}"
        );
        server.says(&["reset"]);
        server.says(&["run-until", "--reaches", "store"]);
        server.says(&["save-snapshot", "before"]);
        server.says(&["fork", "cured"]);
        server.says(&["write-memory", "length", "04000000", "--on", "cured"]);
        server.says(&["resume", "--on", "cured"]);
        server.says(&["expect", "ok\n", "--on", "cured"]);
        assert!(server.says(&["output", "--on", "cured"]).contains("| ok"));
        assert!(server.says(&["list-snapshots"]).starts_with("before,"));
        server.says(&["load-snapshot", "before"]);
        let stop = server.json(&["run-until", "--faults"]);
        assert_eq!(stop["stop"], "faulted", "{board}: {stop}");
        let qemus = children(server.child.id());
        assert_eq!(qemus.len(), 2);
        server.says(&["stop", "--on", "cured"]);
        server.says(&["stop"]);
        server.leaves_nothing(0, &qemus);
    }
}

/// A hart without an FPU beside one that has one.
#[test]
fn a_core_is_selected_until_the_guest_runs() {
    let words = ["--qemu=qemu-system-riscv64", "--machine=sifive_u"];
    let firmware =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-info/fixtures/same/rv64.elf");
    let server = Server::start(&[words[0], words[1], firmware.to_str().unwrap()]);
    server.says(&["run-until", "--reaches", "add"]);
    let hart = |expected: &str| {
        let said = server.says(&["read-registers", "mhartid"]);
        assert!(said.contains(expected), "{said}");
    };
    assert!(server.says(&["core-reports"]).contains("core 1"));
    server.says(&["select-core", "0"]);
    hart("0x0");
    server.says(&["select-core", "1"]);
    hart("0x1");
    server.says(&["step-instruction"]);
    hart("0x1");
    let said = server.refuses(1, &["select-core", "7"]);
    assert!(said.contains("there is no core 7: it has 2"), "{said}");
    server.says(&["select-core", "0"]);
    hart("0x0");
}

#[test]
fn what_is_refused_says_why_and_what_to_do() {
    let server = Server::start(&[image("tick").to_str().unwrap()]);
    server.says(&["resume"]);
    for (words, expected) in [
        (&["backtrace"][..], "pause it first"),
        (&["status", "--on", "other"], "there are main"),
        (&["read-memory", "nowhere", "4"], "nowhere"),
        (
            &["expect", "never", "--deadline-ms", "50"],
            "has not printed",
        ),
    ] {
        let said = server.refuses(1, words);
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    let said = server.refuses(125, &["status", "--session", "other"]);
    assert!(said.contains("no session other is served"), "{said}");
    let said = server.refuses(125, &["status", "--session", "../x"]);
    assert!(said.contains("a session's name"), "{said}");
    let output = server.ctl(&["backtrace", "--json"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &error["error"]["kind"]),
        (Some(1), &"running".into())
    );
    // A second one of this name.
    let second = program(server.runtime.path())
        .args(["serve", "riscv.elf"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(125));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("is served already"), "{said}");
    // In the words that `run` has.
    let unknown = "qemu-system-arm knows no machine 'nope'";
    let tick = image("tick");
    let third = program(server.runtime.path())
        .args(["serve", "--session=third", "--machine=nope"])
        .arg(&tick)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(said.contains(unknown), "{said}");
    let start = [
        "start",
        tick.to_str().unwrap(),
        "--on=other",
        "--machine=nope",
    ];
    let said = server.refuses(1, &start);
    assert!(said.contains(unknown), "{said}");
    // What is no request, or never one.
    for bytes in [
        &b"nonsense\n"[..],
        b"{}\n",
        b"{\"call\": \"quit\"}\n",
        b"\xff\n",
    ] {
        let mut client = UnixStream::connect(server.socket()).unwrap();
        client.write_all(bytes).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(r#""kind":"invalid""#), "{answer}");
    }
    let _silent = UnixStream::connect(server.socket()).unwrap();
    assert!(server.says(&["status"]).starts_with("main is running"));
}

#[test]
fn only_its_owner_reaches_it() {
    let server = Server::start(&["riscv.elf"]);
    let folder = server.runtime.path().join("qemu-controller");
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    // A folder that others can enter is not used, by neither side.
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    let said = server.refuses(125, &["status"]);
    assert!(said.contains("nobody else can enter"), "{said}");
    let second = program(server.runtime.path())
        .args(["serve", "riscv.elf", "--session", "second"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(125));
}

#[test]
fn it_ends_by_a_signal_its_terminal_or_its_idle_time() {
    for (by, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let server = Server::start(&["riscv.elf"]);
        let qemus = children(server.child.id());
        server.says(&["resume"]);
        signal(server.child.id(), by);
        server.leaves_nothing(status, &qemus);
    }
    let server = Server::start(&["riscv.elf", "--idle", "300ms"]);
    let qemus = children(server.child.id());
    server.leaves_nothing(0, &qemus);
}

#[test]
fn one_that_was_killed_leaves_no_qemu_and_can_be_started_again() {
    let mut server = Server::start(&["riscv.elf"]);
    let qemus = children(server.child.id());
    signal(server.child.id(), Signal::KILL);
    assert_eq!(server.ends(), None);
    gone(&qemus);
    assert!(server.refuses(125, &["status"]).contains("no session"));
    let runtime = std::mem::replace(&mut server.runtime, tempfile::tempdir().unwrap());
    let mut server = serve(runtime, &["riscv.elf"]);
    server.stdout.until("steer it with");
    // A QEMU that is gone is said to be.
    signal(children(server.child.id())[0], Signal::KILL);
    until("its end in words", || {
        server
            .says(&["status"])
            .contains("main is ended")
            .then_some(())
    });
    assert!(server.refuses(1, &["resume"]).contains("signal 9"));
    server.says(&["stop"]);
    server.leaves_nothing(0, &[]);
}

/// Clients that connect and say nothing keep nobody waiting.
#[test]
fn silent_clients_delay_no_other() {
    let server = Server::start(&["riscv.elf"]);
    let silent: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(server.socket()).unwrap())
        .collect();
    let since = Instant::now();
    assert!(server.says(&["status"]).starts_with("main is paused"));
    // One of them is given up after ten seconds.
    assert!(since.elapsed() < Duration::from_secs(8), "{since:?}");
    drop(silent);
}

/// A client that goes in the middle of its call holds nobody up.
#[test]
fn a_client_that_goes_ends_its_call() {
    let server = Server::start(&[image("tick").to_str().unwrap()]);
    let mut client = UnixStream::connect(server.socket()).unwrap();
    let call = r#"{"call": "run_until", "reaches": ["hard_fault"], "deadline_ms": 60000}"#;
    writeln!(client, "{call}").unwrap();
    until("a guest that runs", || {
        server
            .says(&["status"])
            .starts_with("main is running")
            .then_some(())
    });
    drop(client);
    server.says(&["pause"]);
    until("the debugger's being free", || {
        let output = server.ctl(&["backtrace"]);
        output.status.success().then_some(())
    });
}

/// QEMU reboots for a triple fault as for a reset, and goes on.
#[test]
fn a_machine_that_reboots_is_not_said_to_run_as_if_nothing_were() {
    let project = tempfile::tempdir().unwrap();
    let magic = 0x1bad_b002_u32;
    let header = [magic, 0, magic.wrapping_neg()].map(u32::to_le_bytes);
    // lidt 0x100100, a table without an entry, and ud2
    let code = [0x0f, 0x01, 0x1d, 0, 0x01, 0x10, 0, 0x0f, 0x0b];
    let mut bytes = [&header.concat(), &code[..]].concat();
    bytes.resize(0x200, 0);
    let kind = test_support::ElfKind {
        machine: 3,
        flags: 0,
        big_endian: false,
    };
    let image = test_support::elf(kind, 0x10_000c, &[(0x10_0000, &bytes)]);
    std::fs::write(project.path().join("triple.elf"), image).unwrap();
    let words = ["triple.elf", "--qemu=qemu-system-x86_64", "--machine=pc"];
    let mut server = serve_in(project.path(), tempfile::tempdir().unwrap(), &words);
    server.stdout.until("steer it with");
    assert!(!server.says(&["status"]).contains("reset"));
    let may_be = ", or took a triple fault: QEMU reports both alike";
    let said = server.says(&["run-until", "--deadline-ms=2000"]);
    assert!(said.contains("deadline") && said.contains(may_be), "{said}");
    let said = server.says(&["status"]);
    assert!(
        said.contains("; it reset itself") && said.contains(may_be),
        "{said}"
    );
    assert!(server.json(&["status"])["guest_resets"].as_u64() > Some(0));
}

/// A firmware with a configuration file beside it, which wants another board, and more.
fn configured_project() -> TempDir {
    let project = tempfile::tempdir().unwrap();
    std::fs::copy(image("tick-mps2"), project.path().join("tick.elf")).unwrap();
    let file = "machine = 'mps2-an386'\nqemu-args = ['-name', 'by-the-file']\n";
    std::fs::write(project.path().join("qemu-controller.toml"), file).unwrap();
    project
}

/// Whether a QEMU has these words in its command line.
fn has_words(pid: u32, words: [&str; 2]) -> [bool; 2] {
    let argv = test_support::procfs::command_line(pid);
    words.map(|word| argv.iter().any(|other| other == word.as_bytes()))
}

#[test]
fn a_configuration_file_says_the_board_and_to_an_agent_no_more() {
    const WORDS: [&str; 2] = ["mps2-an386", "by-the-file"];
    let project = configured_project();
    let mut server = serve_in(project.path(), tempfile::tempdir().unwrap(), &["tick.elf"]);
    server.stdout.until("steer it with");
    let qemus = children(server.id());
    assert_eq!(has_words(qemus[0], WORDS), [true, true]);
    server.says(&["stop"]);
    server.leaves_nothing(0, &qemus);

    let mut client = Client::start(&[], project.path());
    client.starts("tick.elf");
    assert_eq!(has_words(children(client.id())[0], WORDS), [true, false]);
    client.ends();
}

#[test]
fn what_an_agent_cannot_have_of_a_project_s_file_is_said() {
    let project = configured_project();
    for (file, words) in [
        (
            "machine = 'mps2-an386,dumpdtb=written'\n",
            ["dumpdtb", "only a plain name"],
        ),
        ("machine = 3\n", ["machine = 3", "expected a string"]),
    ] {
        std::fs::write(project.path().join("qemu-controller.toml"), file).unwrap();
        let runtime = tempfile::tempdir().unwrap();
        let mut mcp = program(runtime.path());
        let output = mcp.current_dir(project.path()).arg("mcp").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
