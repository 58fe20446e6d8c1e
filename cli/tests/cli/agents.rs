//! An agent's whole way, over `mcp` and over `ctl` alike: it finds a planted bug, tries the cure on a
//! fork, proves it, and goes back in time; also where QEMU is killed, hangs or locks up meanwhile.
//!
//! With `QEMU_CONTROLLER_LONG` set there are a hundred sessions in a row, else ten.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mcp::{Client, children, folder, gone, signal};
use crate::serve::Server;
use crate::support::{Call, image, until};

/// A board with the planted bug.
struct Board {
    firmware: &'static str,
    /// What is said of its fault.
    cause: &'static str,
    /// The register of the loop's round, and that of the first argument.
    round: &'static str,
    argument: &'static str,
}

const BOARDS: [Board; 2] = [
    Board {
        firmware: "cortex-m.elf",
        cause: "IACCVIOL",
        round: "r5",
        argument: "r0",
    },
    Board {
        firmware: "riscv.elf",
        cause: "instruction access fault",
        round: "s1",
        argument: "a0",
    },
];

/// Who calls: by a tool of `mcp`'s, or by a word of `ctl`'s.
trait Hands {
    /// The words of the answer, or of the refusal.
    fn ask(&mut self, call: &str, arguments: &Value) -> Result<String, String>;
    fn program(&self) -> u32;
    fn end(self);
}

impl Hands for Client {
    fn ask(&mut self, call: &str, arguments: &Value) -> Result<String, String> {
        let result = self.result(call, arguments.clone());
        let words = crate::mcp::words(&result);
        match result["isError"] == true {
            true => Err(words),
            false => Ok(words),
        }
    }

    fn program(&self) -> u32 {
        self.id()
    }

    fn end(self) {
        self.ends();
    }
}

/// Of each call the arguments that are words of their own.
const POSITIONAL: [(&str, &[&str]); 14] = [
    ("start", &["firmware"]),
    ("read_memory", &["at", "length"]),
    ("write_memory", &["at", "hex"]),
    ("write_register", &["name", "value"]),
    ("read_registers", &["names"]),
    ("select_core", &["core"]),
    ("save_snapshot", &["name"]),
    ("load_snapshot", &["name"]),
    ("delete_snapshot", &["name"]),
    ("fork", &["name"]),
    ("expect", &["text"]),
    ("send", &["text"]),
    ("symbols", &["wanted"]),
    ("source_lines", &["at"]),
];

/// The arguments as words for `ctl`.
fn in_words(call: &str, arguments: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let known = POSITIONAL.iter().find(|(name, _)| *name == call);
    let positional = known.map_or(&[][..], |(_, names)| names);
    let mut words = vec![call.replace('_', "-")];
    for (key, value) in arguments.as_object().unwrap() {
        let option = format!("--{}", key.replace('_', "-"));
        match value {
            _ if positional.contains(&key.as_str()) => {}
            Value::Bool(_) => words.push(option),
            Value::Array(all) => {
                words.extend(all.iter().flat_map(|one| [option.clone(), text(one)]))
            }
            one => words.extend([option, text(one)]),
        }
    }
    words.push("--".to_owned());
    for value in positional.iter().map(|key| &arguments[*key]) {
        match value {
            Value::Array(all) => words.extend(all.iter().map(text)),
            Value::Null => {}
            one => words.push(text(one)),
        }
    }
    words
}

impl Hands for Server {
    fn ask(&mut self, call: &str, arguments: &Value) -> Result<String, String> {
        let words = in_words(call, arguments);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = self.ctl(&words);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    fn program(&self) -> u32 {
        self.id()
    }

    fn end(mut self) {
        let qemus = children(self.program());
        // The last machine ends the session.
        let _ = self.ask("stop", &json!({}));
        self.leaves_nothing(0, &qemus);
    }
}

/// Calls, and texts that their answers have.
type Script = Vec<(&'static str, Value, Vec<String>)>;

/// Finds the bug: what goes wrong, and who overwrote the pointer.
fn search(board: &Board) -> Script {
    let has = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let registers = |names: &[&str]| json!({ "names": names });
    let pointer = json!({ "at": "pointer", "length": 4 });
    let length = json!({ "at": "length", "length": 4 });
    vec![
        ("status", json!({}), has(&["main is paused"])),
        ("list", json!({}), has(&["main is paused"])),
        (
            "symbols",
            json!({ "wanted": "pointer" }),
            has(&["use_pointer, function", " pointer,"]),
        ),
        (
            "run_until",
            json!({ "reaches": ["print"] }),
            has(&["print"]),
        ),
        ("backtrace", json!({}), has(&["#0", "print", "reset"])),
        ("status", json!({}), has(&["has printed 0 bytes"])),
        ("run_until", json!({ "faults": true }), has(&["fault"])),
        (
            "expect",
            json!({ "text": "boot" }),
            has(&["ends at byte 4"]),
        ),
        (
            "output",
            json!({}),
            has(&["data, not instructions", "| boot"]),
        ),
        ("core_reports", json!({}), has(&["use_pointer"])),
        ("backtrace", json!({}), has(&["use_pointer", "reset"])),
        ("read_memory", pointer.clone(), has(&["e0beadde"])),
        (
            "read_memory",
            json!({ "at": "table", "length": 20 }),
            has(&["e0beaddee0beaddee0beaddee0beaddee0beadde"]),
        ),
        ("read_memory", length.clone(), has(&["05000000"])),
        (
            "save_snapshot",
            json!({ "name": "faulted" }),
            has(&["faulted is saved"]),
        ),
        ("list_snapshots", json!({}), has(&["faulted,"])),
        ("reset", json!({}), has(&["main is paused"])),
        (
            "run_until",
            json!({ "writes": ["pointer"] }),
            has(&["write to pointer", "reset"]),
        ),
        (
            "save_snapshot",
            json!({ "name": "before" }),
            has(&["before is saved"]),
        ),
        ("list_snapshots", json!({}), has(&["faulted,", "before,"])),
        (
            "run_until",
            json!({ "writes": ["pointer"] }),
            has(&["store"]),
        ),
        (
            "read_registers",
            registers(&[board.round]),
            has(&[&format!("{} 0x4", board.round)]),
        ),
        ("backtrace", json!({}), has(&["store", "reset"])),
        ("read_memory", pointer.clone(), has(&[": "])),
        ("step_instruction", json!({ "count": 1 }), has(&["stepped"])),
        ("read_memory", pointer, has(&["e0beadde"])),
        (
            "load_snapshot",
            json!({ "name": "before" }),
            has(&["before is loaded"]),
        ),
        (
            "run_until",
            json!({ "reaches": ["store"], "skip": 2 }),
            has(&["store"]),
        ),
        (
            "read_registers",
            registers(&[board.argument, board.round]),
            has(&[
                &format!("{} 0x2", board.argument),
                &format!("{} 0x2", board.round),
            ]),
        ),
        ("finish", json!({}), has(&["reset"])),
        ("step_over", json!({}), has(&["reset"])),
    ]
}

/// Tries the cure on a fork, and then in place.
fn cure(board: &Board) -> Script {
    let has = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let length = |on: &str| json!({ "at": "length", "length": 4, "on": on });
    let mend = |on: &str| json!({ "at": "length", "hex": "04000000", "on": on });
    let on = |on: &str| json!({ "on": on });
    vec![
        (
            "load_snapshot",
            json!({ "name": "before" }),
            has(&["is loaded"]),
        ),
        (
            "run_until",
            json!({ "reaches": ["store"] }),
            has(&["store"]),
        ),
        (
            "fork",
            json!({ "name": "cured" }),
            has(&["cured is paused"]),
        ),
        (
            "list",
            json!({}),
            has(&["cured is paused", "main is paused"]),
        ),
        ("status", on("cured"), has(&["cured is paused"])),
        ("write_memory", mend("cured"), has(&["4 bytes written"])),
        ("read_memory", length("cured"), has(&["04000000"])),
        ("read_memory", length("main"), has(&["05000000"])),
        ("resume", on("cured"), has(&["cured is running"])),
        (
            "expect",
            json!({ "text": "ok\n", "on": "cured" }),
            has(&["has printed"]),
        ),
        ("output", on("cured"), has(&["| ok"])),
        ("pause", on("cured"), has(&["cured is paused"])),
        ("backtrace", on("cured"), has(&["reset"])),
        ("run_until", json!({ "faults": true }), has(&["fault"])),
        ("core_reports", json!({}), has(&["use_pointer"])),
        (
            "load_snapshot",
            json!({ "name": "before" }),
            has(&["is loaded"]),
        ),
        (
            "run_until",
            json!({ "reaches": ["store"], "skip": 1 }),
            has(&["store"]),
        ),
        (
            "write_register",
            json!({ "name": board.argument, "value": "0x3" }),
            has(&["is 0x3"]),
        ),
        (
            "read_registers",
            json!({ "names": [board.argument] }),
            has(&["0x3"]),
        ),
        ("write_memory", mend("main"), has(&["4 bytes written"])),
        ("resume", json!({}), has(&["main is running"])),
        ("expect", json!({ "text": "ok\n" }), has(&["has printed"])),
        ("pause", json!({}), has(&["main is paused"])),
        (
            "symbols",
            json!({ "wanted": "reset" }),
            has(&["reset, function"]),
        ),
        (
            "load_snapshot",
            json!({ "name": "faulted" }),
            has(&["is loaded"]),
        ),
        ("backtrace", json!({}), has(&["use_pointer"])),
        (
            "delete_snapshot",
            json!({ "name": "faulted" }),
            has(&["is deleted"]),
        ),
        (
            "delete_snapshot",
            json!({ "name": "before" }),
            has(&["is deleted"]),
        ),
        ("list_snapshots", json!({}), has(&["no snapshot"])),
        ("stop", on("cured"), has(&["cured: "])),
        ("list", json!({}), has(&["main is paused"])),
    ]
}

fn plays(hands: &mut impl Hands, script: &Script) {
    for (number, (call, arguments, expected)) in script.iter().enumerate() {
        let words = hands.ask(call, arguments);
        let words = words.unwrap_or_else(|words| panic!("{number}: {call} {arguments}: {words}"));
        for text in expected {
            assert!(
                words.contains(text),
                "{number}: {call} {arguments}: no {text:?} in {words}"
            );
        }
    }
}

/// Finds the bug and mends it: more than 60 calls.
fn whole_way(hands: &mut impl Hands, board: &Board) {
    let (search, cure) = (search(board), cure(board));
    assert!(search.len() + cure.len() > 60);
    plays(hands, &search);
    let reports = hands.ask("core_reports", &json!({})).unwrap();
    assert!(reports.contains("reset"), "{reports}");
    plays(hands, &cure);
    let fault = hands.ask("core_reports", &json!({})).unwrap();
    let fault = match fault.contains(board.cause) {
        true => fault,
        // On RISC-V the cause is told where the fault is taken.
        false => {
            hands.ask("reset", &json!({})).unwrap();
            hands.ask("run_until", &json!({ "faults": true })).unwrap()
        }
    };
    assert!(fault.contains(board.cause), "{fault}");
}

/// With a client of mcp on each board, which leaves nothing.
fn on_each_by_mcp(play: fn(&mut Client, &Board)) {
    for board in &BOARDS {
        let temporary = tempfile::tempdir().unwrap();
        let mut client = by_mcp(board, temporary.path());
        play(&mut client, board);
        client.end();
        is_empty(&temporary);
    }
}

/// With a session of serve on each board, by ctl.
fn on_each_by_ctl(play: fn(&mut Server, &Board)) {
    for board in &BOARDS {
        let mut server = Server::start(&[board.firmware]);
        play(&mut server, board);
        server.end();
    }
}

fn by_mcp(board: &Board, temporary: &Path) -> Client {
    let mut client = Client::start_in(&["--any-path"], &folder(), temporary);
    client.starts(board.firmware);
    client
}

#[test]
fn sixty_calls_by_mcp() {
    on_each_by_mcp(whole_way);
}

#[test]
fn sixty_calls_by_ctl() {
    on_each_by_ctl(whole_way);
}

/// Nothing is left in the folder for temporary files.
fn is_empty(temporary: &TempDir) {
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// In the middle of the search QEMU is killed, hangs, or its guest locks up: it is said, in time, and
/// the way is gone again from its beginning on another machine.
fn in_trouble(hands: &mut impl Hands, board: &Board) {
    let lockup = image("lockup").display().to_string();
    let half: Script = search(board).into_iter().take(20).collect();
    // A QEMU that hangs takes each call's whole time: one board is enough.
    let hung = (board.firmware == BOARDS[0].firmware).then_some("hung");
    let troubles = ["killed", "locked up"].into_iter().chain(hung);
    for (number, trouble) in troubles.enumerate() {
        let on = format!("victim{number}");
        let here = json!({ "on": on });
        let firmware = match trouble {
            "locked up" => lockup.clone(),
            _ => folder().join(board.firmware).display().to_string(),
        };
        let before = children(hands.program());
        hands
            .ask("start", &json!({ "firmware": firmware, "on": on }))
            .unwrap();
        let qemu = children(hands.program());
        let qemu = *qemu.iter().find(|qemu| !before.contains(qemu)).unwrap();
        let expected = match trouble {
            "killed" => {
                hands
                    .ask("run_until", &json!({ "reaches": ["store"], "on": on }))
                    .unwrap();
                signal(qemu, Signal::KILL);
                "is ended"
            }
            "hung" => {
                hands
                    .ask("run_until", &json!({ "reaches": ["store"], "on": on }))
                    .unwrap();
                signal(qemu, Signal::STOP);
                "is unknown"
            }
            _ => {
                let run = json!({ "deadline_ms": 20_000, "on": on });
                let words = hands.ask("run_until", &run).unwrap();
                assert!(words.contains("locked up"), "{words}");
                "locked up"
            }
        };
        until(trouble, || {
            let words = hands.ask("status", &here).unwrap();
            words.contains(expected).then_some(())
        });
        let refused = hands.ask("backtrace", &here).unwrap_err();
        assert!(!refused.is_empty());
        // The other machine is as it was.
        let words = hands.ask("status", &json!({})).unwrap();
        assert!(words.contains("main is paused"), "{trouble}: {words}");
        hands.ask("stop", &here).unwrap();
        gone(&[qemu]);
    }
    plays(hands, &half);
}

#[test]
fn a_qemu_in_trouble_by_mcp() {
    on_each_by_mcp(in_trouble);
}

#[test]
fn a_qemu_in_trouble_by_ctl() {
    on_each_by_ctl(in_trouble);
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Sessions in a row leave no process, no descriptor and no file, each in a program of its own and
/// all in one.
#[test]
fn sessions_in_a_row_leave_nothing() {
    let count = match std::env::var_os("QEMU_CONTROLLER_LONG") {
        Some(_) => 100,
        None => 10,
    };
    let temporary = tempfile::tempdir().unwrap();
    for number in 0..count {
        let board = &BOARDS[number % 2];
        let mut client = by_mcp(board, temporary.path());
        client
            .ask("run_until", &json!({ "reaches": ["store"] }))
            .unwrap();
        client.end();
        let mut server = Server::start(&[board.firmware]);
        server
            .ask("run_until", &json!({ "reaches": ["store"] }))
            .unwrap();
        server.end();
    }
    is_empty(&temporary);
    let mut client = by_mcp(&BOARDS[0], temporary.path());
    let round = |client: &mut Client| {
        let on = json!({ "firmware": BOARDS[0].firmware, "on": "again" });
        client.ask("start", &on).unwrap();
        let on = json!({ "on": "again" });
        client
            .ask("run_until", &json!({ "reaches": ["store"], "on": "again" }))
            .unwrap();
        client
            .ask("save_snapshot", &json!({ "name": "s", "on": "again" }))
            .unwrap();
        client.ask("stop", &on).unwrap();
    };
    round(&mut client);
    let before = descriptors(client.program());
    for _ in 0..count {
        round(&mut client);
    }
    until("as many descriptors as before", || {
        (descriptors(client.program()) <= before).then_some(())
    });
    assert_eq!(children(client.program()).len(), 1);
    client.end();
    is_empty(&temporary);
}

/// Those of a firmware that runs them by itself: what kind they are its file shows, or the call.
#[test]
fn tests_of_each_kind() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut client = Client::start(&["--semihosting=console"], &root);
    let fixtures = "qemu-controller/fixtures";
    for (firmware, kind, filters, expected) in [
        (
            "embedded-test/printed.elf",
            Some("lines"),
            &[][..],
            "1 passed, 2 failed, 0 not run\nfailed: lines::two\n  failed, as it printed\n",
        ),
        (
            "embedded-test/printed.elf",
            Some("one"),
            &[],
            "0 passed, 1 failed, 0 not run\nfailed: printed\n  the firmware exited with status 1",
        ),
        (
            "unity/semihosting.elf",
            None,
            &["adds", "carries"],
            "1 passed, 1 failed, 0 not run\nfailed: test_carries\n",
        ),
        (
            "defmt/test-rtt-passes.elf",
            None,
            &["is_last"],
            "1 passed, 0 failed, 0 not run\npassed: sums::is_last",
        ),
        (
            "unity/hangs.elf",
            None,
            &["ends_otherwise"],
            "0 passed, 1 failed, 0 not run\nfailed: test_ends_otherwise\n  the run was not over",
        ),
    ] {
        let firmware = format!("{fixtures}/{firmware}");
        let ask =
            json!({ "firmware": firmware, "kind": kind, "filters": filters, "deadline_ms": 4000 });
        let ran = client.ask("run_tests", &ask).unwrap();
        assert!(ran.starts_with(expected), "{firmware}: {ran}");
    }
    let unity = json!({ "firmware": format!("{fixtures}/unity/uart.elf") });
    let refused = client.ask("list_tests", &unity).unwrap_err();
    assert!(refused.contains("run_tests runs them"), "{refused}");
    let plain = json!({ "firmware": "xtask/firmware/tick/tick.elf" });
    let refused = client.ask("run_tests", &plain).unwrap_err();
    assert!(refused.contains("`kind` says"), "{refused}");
    client.end();
}

/// What an agent asks of firmware with tests and with lines, and of a failure that was written down.
#[test]
fn memory_is_read_as_a_core_sees_it() {
    let project = tempfile::tempdir().unwrap();
    let firmware = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../firmware-info/fixtures/same/m33.elf"
    );
    let mut client = Client::start(&["--any-path"], project.path());
    let start = json!({ "firmware": firmware, "machine": "mps2-an521" });
    client.ask("start", &start).unwrap();
    // `b .`: it runs and does not end.
    let forever = json!({ "at": "main", "hex": "fee7" });
    client.ask("write_memory", &forever).unwrap();
    // What is there tells each core its number.
    let mut read = |core: Value| {
        let place = json!({ "at": "0x4001f000", "length": 4, "core": core });
        client.ask("read_memory", &place)
    };
    assert!(read(json!(null)).unwrap().contains("00000000"));
    assert!(read(json!(1)).unwrap().contains("01000000"));
    let none = "there is no core 2: it has 2";
    assert!(read(json!(2)).unwrap_err().contains(none));
    client.ask("select_core", &json!({ "core": 1 })).unwrap();
    let place = json!({ "at": "0x4001f000", "length": 4 });
    let words = client.ask("read_memory", &place).unwrap();
    assert!(words.contains("01000000"), "{words}");
    client.ask("resume", &json!({})).unwrap();
    let words = client.ask("read_memory", &place).unwrap();
    assert!(words.contains("00000000"), "{words}");
    client.end();
}

#[test]
fn tests_source_lines_and_bundles() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut client = Client::start(&[], &root);
    let tests = "qemu-controller/fixtures/embedded-test/outcomes.elf";
    let listed = client.ask(
        "list_tests",
        &json!({ "firmware": tests, "filters": ["passes::a"] }),
    );
    let listed = listed.unwrap();
    assert!(
        listed.contains("not run: passes::adds") && !listed.contains("fails"),
        "{listed}"
    );
    let filters = json!({ "firmware": tests, "filters": ["passes::alone", "fails::by_a_panic"] });
    let ran = client.ask("run_tests", &filters).unwrap();
    assert!(
        ran.starts_with("4 passed, 1 failed, 0 not run\nfailed: fails::by_a_panic")
            && ran.contains("data, not instructions"),
        "{ran}"
    );
    let hangs = json!({ "firmware": tests, "filters": ["hangs::in_a_loop"], "deadline_ms": 1000 });
    let ran = client.ask("run_tests", &hangs).unwrap();
    assert!(ran.contains("0 passed, 0 failed, 1 not run"), "{ran}");
    let none = json!({ "firmware": "cli/fixtures/planted/riscv.elf" });
    let refused = client.ask("list_tests", &none).unwrap_err();
    assert!(refused.contains("embedded-test"), "{refused}");
    assert!(children(client.program()).is_empty());
    client.end();

    // Firmware of any folder, but the paths in it are not the user's words.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut client = Client::start(&["--any-path"], elsewhere.path());
    let faults = root.join("firmware-info/fixtures/faults/faults.elf");
    let start = json!({ "firmware": faults, "machine": "stm32vldiscovery" });
    client.ask("start", &start).unwrap();
    let refused = client.ask("source_lines", &json!({ "at": "lockup" }));
    let refused = refused.unwrap_err();
    assert!(refused.contains("is not in the project"), "{refused}");
    client.end();

    // Built elsewhere, as `/fixtures`: the end of the path is in the project.
    let mut client = Client::start(&[], &root.join("firmware-info"));
    let faults = "fixtures/faults/faults.elf";
    let start = json!({ "firmware": faults, "machine": "stm32vldiscovery" });
    client.ask("start", &start).unwrap();
    for (at, expected) in [
        ("lockup", "void lockup"),
        ("/fixtures/faults/faults.c:182", ">  182"),
        ("faults.c:182", ">  182"),
    ] {
        let lines = client.ask("source_lines", &json!({ "at": at })).unwrap();
        assert!(
            lines.contains("faults.c:") && lines.contains(expected),
            "{at}: {lines}"
        );
    }
    let uri = "machine://main/source/faults.c:182";
    let read = client.request("resources/read", json!({ "uri": uri }));
    let text = read["result"]["contents"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.contains(">  182") && text.lines().count() > 100,
        "{text}"
    );
    let templates = client.request("resources/templates/list", json!({}));
    let template = &templates["result"]["resourceTemplates"][0]["uriTemplate"];
    assert!(
        template.as_str().unwrap().contains("/source/"),
        "{templates}"
    );
    for at in [
        "Cargo.toml:1",
        "/etc/passwd:1",
        "../faults.c:1",
        "nowhere",
        "faults.c:x",
        ":1",
    ] {
        client
            .ask("source_lines", &json!({ "at": at }))
            .unwrap_err();
    }
    client.end();

    let project = tempfile::tempdir().unwrap();
    let firmware = folder().join("riscv.elf").display().to_string();
    Call::new([&firmware, "--bundle"])
        .folder(project.path())
        .ends_with(139);
    let mut client = Client::start(&[], project.path());
    let bundle = json!({ "folder": "qemu-controller-bundles/riscv-faulted", "on": "failed" });
    let words = client.ask("open_bundle", &bundle).unwrap();
    assert!(
        words.contains("first instruction of the fault's handler") && words.contains("use_pointer"),
        "{words}"
    );
    let words = client.ask(
        "read_memory",
        &json!({ "at": "pointer", "length": 4, "on": "failed" }),
    );
    assert!(words.unwrap().contains("e0beadde"));
    for folder in ["/etc", "../", ".", "qemu-controller-bundles/none"] {
        let words = client
            .ask("open_bundle", &json!({ "folder": folder }))
            .unwrap_err();
        assert!(!words.is_empty());
    }
    client.end();
}
