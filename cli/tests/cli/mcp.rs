//! `mcp`: a scripted client, plain JSON-RPC over the pipes, that debugs firmware with a planted bug.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Stream, image, until};

/// Boards whose firmware has the planted bug, and what is said of its fault.
const BOARDS: [(&str, &str); 2] = [
    ("cortex-m", "IACCVIOL"),
    ("riscv", "instruction access fault"),
];

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/planted")
}

pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    seen: usize,
    id: u64,
}

impl Client {
    pub(crate) fn start(words: &[&str], project: &Path) -> Self {
        Self::start_in(words, project, &std::env::temp_dir())
    }

    /// With a folder of its own for temporary files.
    pub(crate) fn start_in(words: &[&str], project: &Path, temporary: &Path) -> Self {
        test_support::heed_signals();
        let mut child = Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
            .arg("mcp")
            .args(words)
            .current_dir(project)
            .env("TMPDIR", temporary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = Stream::new(child.stdout.take().unwrap());
        let mut client = Self {
            child,
            stdin,
            stdout,
            seen: 0,
            id: 0,
        };
        let info = json!({ "name": "test", "version": "1" });
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info,
        });
        let answer = client.request("initialize", hello);
        assert_eq!(answer["result"]["serverInfo"]["name"], "qemu-controller");
        client.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    fn write(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.id += 1;
        let id = self.id;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// The answer to a request; those that come before it are of others.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let seen = self.seen;
            self.stdout
                .until_it("an answer", |all| all[seen..].contains('\n'));
            let text = self.stdout.text();
            let line = text[seen..].lines().next().unwrap();
            self.seen += line.len() + 1;
            let answer: Value = serde_json::from_str(line).unwrap();
            if answer["id"] == id {
                return answer;
            }
        }
    }

    pub(crate) fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// A call's result, good or bad.
    pub(crate) fn result(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        let answer = self.request("tools/call", params);
        answer["result"].clone()
    }

    /// The words and the data of a call that succeeds.
    fn call(&mut self, tool: &str, arguments: Value) -> (String, Value) {
        let result = self.result(tool, arguments);
        let text = words(&result);
        assert_eq!(result["isError"], false, "{tool}: {text}");
        (text, result["structuredContent"].clone())
    }

    /// The kind and the words of a call that is refused.
    fn refused(&mut self, tool: &str, arguments: Value) -> (String, String) {
        let result = self.result(tool, arguments);
        let text = words(&result);
        assert_eq!(result["isError"], true, "{tool}: {text}");
        let kind = &result["structuredContent"]["error"]["kind"];
        (kind.as_str().unwrap().to_owned(), text)
    }

    /// Starts a firmware, deterministic in nothing but its name.
    pub(crate) fn starts(&mut self, firmware: &str) {
        let (words, status) = self.call("start", json!({ "firmware": firmware }));
        assert_eq!(status["state"], "paused", "{words}");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The QEMUs that it has.
    fn qemus(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// Ends its input; it ends, and its QEMUs with it.
    pub(crate) fn ends(mut self) {
        let qemus = self.qemus();
        self.stdin = None;
        let status = until("its end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        gone(&qemus);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn words(result: &Value) -> String {
    result["content"][0]["text"].as_str().unwrap().to_owned()
}

/// The children of a process, of all its threads.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.map(|task| task.unwrap().path().join("children"));
    let lists = lists.map(|list| std::fs::read_to_string(list).unwrap_or_default());
    let all: Vec<_> = lists.collect();
    let pids = all.iter().flat_map(|list| list.split_whitespace());
    pids.map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn gone(qemus: &[u32]) {
    for &qemu in qemus {
        until("the end of its QEMU", || {
            (!test_support::procfs::runs(qemu)).then_some(())
        });
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn a_client_that_begins_otherwise_is_told_and_the_server_fails() {
    let project = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
        .arg("mcp")
        .current_dir(project.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let hello = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {
        "requestId": 1,
    } });
    writeln!(child.stdin.take().unwrap(), "{hello}").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("no handshake"), "{said}");
}

#[test]
fn parameters_of_no_form_are_told_from_a_method_that_is_not_known() {
    let mut client = Client::start(&[], &folder());
    for (method, params, code) in [
        ("tools/call", json!({ "name": 5 }), -32602),
        (
            "tools/call",
            json!({ "name": "status", "arguments": [] }),
            -32602,
        ),
        ("resources/read", json!({}), -32602),
        ("prompts/list", json!({}), -32601),
    ] {
        let answer = client.request(method, params);
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    client.ends();
}

/// One that reads no more has gone, though it holds the server's stdin.
#[test]
fn a_client_that_closes_its_end_of_stdout_leaves_no_qemu() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
        .arg("mcp")
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(writer)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let hello = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" },
    });
    let start = json!({ "name": "start", "arguments": { "firmware": "cortex-m.elf" } });
    for (id, method, params) in [(1, "initialize", hello), (2, "tools/call", start)] {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        writeln!(stdin, "{request}").unwrap();
        assert!(reader.read(&mut [0; 16384]).unwrap() > 0);
    }
    let qemus = children(child.id());
    assert_eq!(qemus.len(), 1);
    drop(reader);
    let ping = json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" });
    writeln!(stdin, "{ping}").unwrap();
    let status = until("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    gone(&qemus);
}

/// An agent's whole way: it finds the bug by breakpoint, watchpoint, backtrace and fault report,
/// changes memory, and proves the cure, on a fork too.
#[test]
fn an_agent_finds_a_bug_and_proves_the_cure() {
    for (board, cause) in BOARDS {
        let mut client = Client::start(&[], &folder());
        client.starts(&format!("{board}.elf"));
        // What goes wrong, and where; on RISC-V the handler has to be set before.
        client.call("run_until", json!({ "reaches": ["print"] }));
        let (words, stop) = client.call("run_until", json!({ "faults": true }));
        assert_eq!(stop["stop"], "faulted", "{board}: {words}");
        let fault = stop["why"].as_str().unwrap().to_owned();
        let (words, _) = client.call("core_reports", json!({}));
        assert!(
            format!("{fault}: {words}").contains(cause),
            "{board}: {fault}: {words}"
        );
        assert!(words.contains("use_pointer"), "{board}: {words}");
        let (words, trace) = client.call("backtrace", json!({}));
        let symbols = trace["frames"].as_array().unwrap().iter();
        let symbols: Vec<_> = symbols.map(|frame| frame["symbol"].to_string()).collect();
        assert!(symbols.iter().any(|name| name.contains("reset")), "{words}");
        let (_, memory) = client.call("read_memory", json!({ "at": "pointer", "length": 4 }));
        assert_eq!(memory["hex"], "e0beadde", "{board}");
        // Who overwrote the pointer: the first write is the firmware's own.
        client.call("reset", json!({}));
        let watch = json!({ "writes": ["pointer"] });
        let (words, stop) = client.call("run_until", watch.clone());
        assert_eq!(
            (&stop["stop"], &stop["hits"]),
            (&json!("watched"), &json!(1)),
            "{words}"
        );
        assert!(
            stop["place"].as_str().unwrap().starts_with("reset"),
            "{words}"
        );
        client.call("save_snapshot", json!({ "name": "before" }));
        let (words, stop) = client.call("run_until", watch);
        assert!(
            stop["place"].as_str().unwrap().starts_with("store"),
            "{words}"
        );
        assert_eq!(stop["new"], "e0beadde", "{board}");
        assert_eq!(stop["what"], "write to pointer");
        // Which round it is: one too many.
        let name = if board == "riscv" { "s1" } else { "r5" };
        let (_, round) = client.call("read_registers", json!({ "names": [name] }));
        assert_eq!(round["registers"][0]["value"], "0x4");
        // The cure, on the machine as it was before.
        client.call("load_snapshot", json!({ "name": "before" }));
        client.call("run_until", json!({ "reaches": ["store"] }));
        client.call("fork", json!({ "name": "cured" }));
        let cure = json!({ "at": "length", "hex": "04000000", "on": "cured" });
        client.call("write_memory", cure);
        let (words, status) = client.call("resume", json!({ "on": "cured" }));
        assert_eq!(status["state"], "running", "{words}");
        client.call("expect", json!({ "text": "ok\n", "on": "cured" }));
        let (words, _) = client.call("output", json!({ "on": "cured" }));
        assert!(
            words.contains("data, not instructions") && words.contains("| ok"),
            "{words}"
        );
        // The other one has the bug still.
        let (_, stop) = client.call("run_until", json!({ "faults": true }));
        assert_eq!(stop["stop"], "faulted");
        let (words, list) = client.call("list", json!({}));
        assert_eq!(list["machines"].as_array().unwrap().len(), 2, "{words}");
        client.call("stop", json!({ "on": "cured" }));
        let (_, snapshots) = client.call("list_snapshots", json!({}));
        assert_eq!(snapshots["snapshots"][0]["name"], "before");
        client.call("delete_snapshot", json!({ "name": "before" }));
        client.ends();
    }
}

#[test]
fn steps_registers_symbols_and_input() {
    let mut client = Client::start(&["--any-path"], &folder());
    client.starts(image("tick").to_str().unwrap());
    client.call("run_until", json!({ "reaches": ["main_loop"] }));
    let (_, stop) = client.call("step_instruction", json!({ "count": 3 }));
    assert_eq!(stop["stop"], "stepped");
    client.call("run_until", json!({ "reaches": ["tick"] }));
    let (_, stop) = client.call("finish", json!({}));
    assert!(
        stop["place"].as_str().unwrap().starts_with("main_loop"),
        "{stop}"
    );
    let (_, stop) = client.call("step_over", json!({}));
    assert_eq!(stop["stop"], "stepped");
    client.call("write_register", json!({ "name": "r7", "value": "0x55" }));
    let (_, registers) = client.call("read_registers", json!({}));
    let registers = registers["registers"].as_array().unwrap();
    let r7 = registers.iter().find(|register| register["name"] == "r7");
    assert_eq!(r7.unwrap()["value"], "0x55");
    let (words, _) = client.call("symbols", json!({ "wanted": "tick" }));
    assert!(words.contains("tick_count, object, 4 bytes"), "{words}");
    let (_, at) = client.call("symbols", json!({ "wanted": stop["pc"] }));
    assert_eq!(at["symbols"][0]["name"], "main_loop");
    client.call("resume", json!({}));
    // What needs a guest that is stopped says so.
    for (tool, arguments) in [
        ("backtrace", json!({})),
        ("read_registers", json!({})),
        ("step_instruction", json!({})),
        ("write_memory", json!({ "at": "counter", "hex": "00" })),
    ] {
        let (kind, words) = client.refused(tool, arguments);
        assert_eq!(kind, "running", "{tool}: {words}");
    }
    let (_, status) = client.call("status", json!({}));
    assert_eq!(status["state"], "running");
    client.call("expect", json!({ "text": "tick 2\n" }));
    client.call("send", json!({ "text": "hello" }));
    client.call("expect", json!({ "text": "hello" }));
    let (kind, words) = client.refused("expect", json!({ "text": "never", "deadline_ms": 50 }));
    assert_eq!(kind, "deadline");
    assert!(
        words.contains("| tick 1") && words.contains("the machine is running"),
        "{words}"
    );
    client.call("read_memory", json!({ "at": "counter+2", "length": 2 }));
    let (_, status) = client.call("pause", json!({}));
    assert_eq!(status["state"], "paused");
    client.ends();
}

/// While one call waits, another one pauses the guest, and the first one tells so.
#[test]
fn a_call_that_waits_holds_no_other_up() {
    let mut client = Client::start(&["--any-path"], &folder());
    client.starts(image("tick").to_str().unwrap());
    let endless = json!({ "reaches": ["hard_fault"], "deadline_ms": 50_000 });
    let params = json!({ "name": "run_until", "arguments": endless });
    let waiting = client.ask("tools/call", params);
    until("a guest that runs", || {
        let (_, status) = client.call("status", json!({}));
        (status["state"] == "running").then_some(())
    });
    client.ask("tools/call", json!({ "name": "pause", "arguments": {} }));
    let first = client.answer(waiting);
    let stop = &first["result"]["structuredContent"]["stop"];
    assert_eq!(stop, "paused", "{first}");
    client.ends();
}

#[test]
fn what_is_beyond_the_project_or_no_plain_name_is_refused() {
    let mut client = Client::start(&[], &folder());
    let tick = image("tick");
    for (arguments, expected) in [
        (json!({ "firmware": tick }), "is not a file in the project"),
        (
            json!({ "firmware": "../../Cargo.toml" }),
            "is not a file in the project",
        ),
        (
            json!({ "firmware": "/etc/passwd" }),
            "is not a file in the project",
        ),
        (json!({ "firmware": "build.sh" }), "ELF"),
        (
            json!({ "firmware": "riscv.elf", "machine": "virt,dumpdtb=x" }),
            "only a plain name",
        ),
        (
            json!({ "firmware": "riscv.elf", "qemu": "sh" }),
            "is no QEMU",
        ),
        (
            json!({ "firmware": "riscv.elf", "qemu": "./qemu-system-arm" }),
            "only a plain name",
        ),
        (
            json!({ "firmware": "riscv.elf", "more": 1 }),
            "unknown field",
        ),
        (
            json!({ "firmware": "riscv.elf", "on": "a b" }),
            "a machine's name",
        ),
    ] {
        let (kind, words) = client.refused("start", arguments.clone());
        assert_eq!(kind, "invalid", "{arguments}: {words}");
        assert!(words.contains(expected), "{arguments}: {words}");
    }
    let (kind, words) = client.refused("status", json!({}));
    assert_eq!(kind, "no_machine", "{words}");
    let (kind, _) = client.refused("human_monitor_command", json!({ "line": "quit" }));
    assert_eq!(kind, "invalid");
    client.starts("cortex-m.elf");
    for (tool, arguments) in [
        ("start", json!({ "firmware": "cortex-m.elf" })),
        ("run_until", json!({ "deadline_ms": 3_600_000 })),
        ("run_until", json!({ "reaches": ["nowhere"] })),
        ("run_until", json!({ "reaches": vec!["reset"; 100] })),
        (
            "read_memory",
            json!({ "at": "length", "length": 1_000_000 }),
        ),
        ("read_memory", json!({ "at": "0xg", "length": 4 })),
        ("write_memory", json!({ "at": "length", "hex": "0" })),
        ("step_instruction", json!({ "count": 0 })),
        ("read_registers", json!({ "names": ["r99"] })),
        (
            "write_register",
            json!({ "name": "r0", "value": "0x100000000" }),
        ),
        ("load_snapshot", json!({ "name": "none" })),
        ("save_snapshot", json!({ "name": "a b" })),
        ("expect", json!({ "text": "" })),
        ("output", json!({ "length": 1_000_000 })),
    ] {
        let (kind, words) = client.refused(tool, arguments.clone());
        assert_eq!(kind, "invalid", "{tool} {arguments}: {words}");
    }
    client.call("status", json!({}));
    client.ends();
}

/// QEMU is killed, hangs, or ends by a lockup in the middle: each call says so, in time, and a new
/// machine can be started.
#[test]
fn a_qemu_that_is_killed_hangs_or_locks_up() {
    let mut client = Client::start(&["--any-path"], &folder());
    let endless = json!({ "reaches": ["hard_fault"], "deadline_ms": 50_000 });
    let endless = json!({ "name": "run_until", "arguments": endless });
    client.starts(image("tick").to_str().unwrap());
    let waiting = client.ask("tools/call", endless);
    until("a guest that runs", || {
        let (_, status) = client.call("status", json!({}));
        (status["state"] == "running").then_some(())
    });
    signal(client.qemus()[0], Signal::KILL);
    let killed = client.answer(waiting);
    assert_eq!(
        killed["result"]["structuredContent"]["stop"], "ended",
        "{killed}"
    );
    let (words, status) = client.call("status", json!({}));
    assert_eq!(status["state"], "ended");
    assert!(words.contains("signal 9"), "{words}");
    for (tool, arguments) in [
        ("resume", json!({})),
        ("backtrace", json!({})),
        ("read_memory", json!({ "at": "counter", "length": 4 })),
        ("save_snapshot", json!({ "name": "late" })),
        ("fork", json!({ "name": "late" })),
        ("expect", json!({ "text": "never" })),
    ] {
        let (kind, words) = client.refused(tool, arguments);
        assert_eq!(kind, "ended", "{tool}: {words}");
    }
    client.call("output", json!({}));
    client.call("stop", json!({}));

    client.starts(image("lockup").to_str().unwrap());
    let (words, stop) = client.call("run_until", json!({ "deadline_ms": 20_000 }));
    assert_eq!(stop["stop"], "ended", "{words}");
    let (words, status) = client.call("status", json!({}));
    assert_eq!(status["exit_code"], 134, "{words}");
    client.call("stop", json!({}));

    client.starts(image("tick").to_str().unwrap());
    let qemu = client.qemus()[0];
    signal(qemu, Signal::STOP);
    let (words, status) = client.call("status", json!({}));
    assert_eq!(status["state"], "unknown", "{words}");
    let (kind, words) = client.refused("pause", json!({}));
    assert_eq!(kind, "deadline", "{words}");
    client.call("stop", json!({}));
    gone(&[qemu]);
    client.ends();
}

/// A client that reads no answers, and keeps its end of the pipe, does not keep QEMU.
#[test]
fn a_client_that_reads_nothing_does_not_keep_it() {
    let child = Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
        .arg("mcp")
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let info = json!({ "name": "test", "version": "1" });
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info });
    let request = |id: u32, method: &str, params: Value| {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string() + "\n"
    };
    let started = json!({ "name": "start", "arguments": { "firmware": "riscv.elf" } });
    let mut requests = request(1, "initialize", hello);
    requests += &request(2, "tools/call", started);
    stdin.write_all(requests.as_bytes()).unwrap();
    let qemu = until("its QEMU", || children(child.id()).first().copied());
    for id in 3..100 {
        let request = request(id, "tools/list", json!({}));
        stdin.write_all(request.as_bytes()).unwrap();
    }
    drop(stdin);
    let status = until("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    gone(&[qemu]);
}

/// Many starts at once: no name is given twice, and there are no more machines than there may be.
#[test]
fn machines_that_start_at_once_are_bounded() {
    let mut client = Client::start(&[], &folder());
    for number in 0..20 {
        let on = format!("m{}", number / 2 * 2);
        let arguments = json!({ "firmware": "cortex-m.elf", "on": on });
        let params = json!({ "name": "start", "arguments": arguments });
        client.ask("tools/call", params);
    }
    until("ten machines", || {
        let (_, list) = client.call("list", json!({}));
        (list["machines"].as_array().unwrap().len() == 10).then_some(())
    });
    assert_eq!(client.qemus().len(), 10);
    for number in 0..6 {
        let on = format!("further{number}");
        client.call("start", json!({ "firmware": "cortex-m.elf", "on": on }));
    }
    let (kind, words) = client.refused("fork", json!({ "name": "one-more", "on": "m0" }));
    assert_eq!(kind, "invalid", "{words}");
    client.ends();
}

/// However the program ends, its QEMUs end.
#[test]
fn no_qemu_outlives_it() {
    for by in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut client = Client::start(&[], &folder());
        client.starts("riscv.elf");
        client.call("resume", json!({}));
        client.call("fork", json!({ "name": "second" }));
        let qemus = client.qemus();
        assert_eq!(qemus.len(), 2);
        signal(client.child.id(), by);
        let status = until("its end", || client.child.try_wait().unwrap());
        if by != Signal::KILL {
            assert_eq!(status.code(), Some(128 + by.as_raw()));
        }
        gone(&qemus);
    }
}

#[test]
fn what_it_printed_and_said_can_be_read() {
    let mut client = Client::start(&[], &folder());
    client.starts("cortex-m.elf");
    client.call("run_until", json!({ "faults": true }));
    client.call("expect", json!({ "text": "boot" }));
    let list = client.request("resources/list", json!({}));
    let resources = list["result"]["resources"].as_array().unwrap().clone();
    assert_eq!(resources.len(), 3);
    for (resource, expected) in resources.iter().zip(["boot", "", "query-status"]) {
        let read = client.request("resources/read", json!({ "uri": resource["uri"] }));
        let text = read["result"]["contents"][0]["text"].as_str().unwrap();
        assert!(text.contains(expected), "{resource}: {text}");
    }
    for uri in [
        "file:///etc/passwd",
        "machine://main/nothing",
        "machine://x/output",
    ] {
        let read = client.request("resources/read", json!({ "uri": uri }));
        assert!(read["error"]["message"].is_string(), "{read}");
    }
    client.ends();
}

/// A client that writes what is no request gets an error or nothing, and the next is answered.
#[test]
fn nonsense_does_not_end_it() {
    let mut client = Client::start(&[], &folder());
    let stdin = client.stdin.as_mut().unwrap();
    stdin.write_all(b"nonsense\n{}\n[1]\n\xff\xfe\n\n").unwrap();
    client.starts("cortex-m.elf");
    client.ends();
}

/// The documentation has each tool that there is, and no other.
#[test]
fn the_tools_of_the_documentation_are_those_that_there_are() {
    let mut client = Client::start(&[], &folder());
    let list = client.request("tools/list", json!({}));
    let tools = list["result"]["tools"].as_array().unwrap().iter();
    let tools: Vec<_> = tools
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agents.md");
    let document = std::fs::read_to_string(document).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: Vec<_> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .collect();
    assert_eq!(named, tools);
    client.ends();
}
