//! `qemu-controller debug` and a real gdb: what its users expect of each word.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../cli/support.rs"]
#[expect(dead_code, reason = "the rest is for the tests without a debugger")]
mod support;
mod tutorials;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::{Call, DEADLINE, Running, Said, image};

/// A machine for debuggers, and where they find it.
fn serve(elf: &Path, words: &[&str]) -> (Running, String) {
    let mut call = vec![elf.as_os_str()];
    call.extend(words.iter().map(std::ffi::OsStr::new));
    let mut running = Call::verb("debug", call).start();
    running.stderr.until("Ctrl-C ends this");
    let said = running.stderr.text();
    let (_, target) = said.split_once("'target extended-remote ").unwrap();
    let target = target.split_once('\'').unwrap().0.to_owned();
    (running, target)
}

fn serve_image(name: &str) -> (Running, String) {
    serve(&image(name), &["--gdb", "free"])
}

/// What gdb says to these commands.
fn gdb(elf: &Path, target: &str, commands: &[&str]) -> String {
    let connect = format!("target extended-remote {target}");
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-q", "-batch"]).arg(elf);
    let first = ["set debuginfod enabled off", "set confirm off", &connect];
    for command in first.iter().chain(commands) {
        gdb.args(["-ex", command]);
    }
    // In one stream, as on a terminal.
    let (mut said, writer) = std::io::pipe().unwrap();
    gdb.stdin(Stdio::null())
        .stdout(writer.try_clone().unwrap())
        .stderr(writer);
    let mut child = gdb
        .spawn()
        .expect("gdb-multiarch is needed here: install the package of that name");
    drop(gdb);
    let mut text = Vec::new();
    said.read_to_end(&mut text).unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn gdb_on(name: &str, target: &str, commands: &[&str]) -> String {
    gdb(&image(name), target, commands)
}

/// The texts come in this order.
fn has(said: &str, texts: &[&str]) {
    let mut rest = said;
    for text in texts {
        let (_, after) = rest
            .split_once(text)
            .unwrap_or_else(|| panic!("no {text:?} in {rest}\nof {said}"));
        rest = after;
    }
}

const FLUSH: &str = "maintenance flush register-cache";

#[test]
fn it_breaks_resets_loads_and_goes_back_to_snapshots() {
    let (running, target) = serve_image("tick");
    let said = gdb_on(
        "tick",
        &target,
        &[
            "info registers pc",
            "break tick",
            "continue",
            "backtrace",
            "monitor snapshot save here",
            "monitor snapshot list",
            "monitor reset halt",
            FLUSH,
            "info registers pc",
            "continue",
            "load",
            "monitor reset",
            FLUSH,
            "info registers pc",
            "monitor snapshot load here",
            FLUSH,
            "info registers pc",
            "stepi",
            "monitor snapshot delete here",
            "monitor snapshot load here",
            "monitor info status",
            "monitor pmemsave 0 16 /dev/null",
        ],
    );
    has(
        &said,
        &[
            "<reset>",
            "Breakpoint 1, ",
            "in tick ()",
            "#1  ",
            "main_loop",
            "here is saved\nhere\n",
            "at the reset",
            "<reset>",
            "Breakpoint 1, ",
            "Loading section .text",
            "at the reset",
            "<reset>",
            "here is loaded",
            "<tick+",
            "here is deleted",
            "no snapshot",
            "VM status: paused",
            "pmemsave is not known here",
        ],
    );
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
}

#[test]
fn one_that_detaches_leaves_the_guest_running_and_finds_it_again() {
    let (mut running, target) = serve_image("tick");
    let said = gdb_on("tick", &target, &["break tick", "continue", "detach"]);
    has(&said, &["Breakpoint 1, ", "detached"]);
    running
        .stderr
        .until("the debugger has left; the firmware runs on");
    running.prints("tick 2\n");
    // A second one of the same time is turned away, the first one goes on.
    let second = format!(
        "shell gdb-multiarch -nx -q -batch -ex 'set debuginfod enabled off' -ex 'target extended-remote {target}' 2>&1"
    );
    let said = gdb_on(
        "tick",
        &target,
        &["break tick", "continue", &second, "continue", "disconnect"],
    );
    has(
        &said,
        &[
            "Breakpoint 1, ",
            "E.another debugger is here already",
            "Breakpoint 1, ",
        ],
    );
    running
        .stderr
        .until("the debugger has left; the firmware is stopped");
    let said = running.stderr.text();
    has(
        &said,
        &[
            "a debugger has come: gdb-multiarch (process ",
            "has left",
            "a debugger has come",
            "was turned away",
        ],
    );
    let boots = running
        .stdout
        .as_ref()
        .unwrap()
        .text()
        .matches("boot\n")
        .count();
    assert_eq!(boots, 1);
    running.signal(Signal::TERM);
    assert_eq!(running.end().status.code(), Some(143));
}

#[test]
fn what_has_ended_or_was_killed_runs_again() {
    let (mut running, target) = serve_image("semihosting-exit");
    let commands = [
        "continue",
        "run",
        "kill",
        "break reset",
        "run",
        "backtrace",
        "continue",
        "monitor quit",
    ];
    let said = gdb_on("semihosting-exit", &target, &commands);
    has(
        &said,
        &[
            "exited with code 07",
            "exited with code 07",
            "#0  ",
            "reset",
            "exited with code 07",
        ],
    );
    running
        .stderr
        .until("the firmware exited with status 7\n    a new machine holds the firmware");
    let said = Said::of(&running.end(), 0);
    assert_eq!(said.stdout, "hello by semihosting\n".repeat(3));
}

#[test]
fn a_plain_remote_s_kill_brings_a_machine_for_the_next_one() {
    let (mut running, target) = serve_image("tick");
    let plain = format!("target remote {target}");
    let said = gdb_on(
        "tick",
        &target,
        &[
            "detach",
            "disconnect",
            &plain,
            "break tick",
            "continue",
            "kill",
        ],
    );
    has(&said, &["Breakpoint 1, ", "killed"]);
    running
        .stderr
        .until("a new machine holds the firmware at its reset");
    has(
        &gdb_on("tick", &target, &["info registers pc"]),
        &["<reset>"],
    );
}

/// A copy that is written as a linker does.
fn build(from: &str, to: &Path) {
    let written = to.with_extension("new");
    fs::copy(image(from), &written).unwrap();
    fs::rename(written, to).unwrap();
}

#[test]
fn a_firmware_that_is_built_anew_is_what_the_debugger_has_next() {
    let folder = tempfile::tempdir().unwrap();
    let elf = folder.path().join("app.elf");
    build("tick", &elf);
    let (mut running, target) = serve(&elf, &["--gdb", "free"]);
    has(
        &gdb(&elf, &target, &["break tick", "continue"]),
        &["Breakpoint 1, "],
    );
    build("semihosting-exit", &elf);
    has(&gdb(&elf, &target, &["continue"]), &["exited with code 07"]);
    // While it is there: by its reset, and its breakpoints stay.
    let rebuild = format!("shell cp {} {}", image("tick").display(), elf.display());
    let commands = [
        "break reset",
        rebuild.as_str(),
        "monitor reset",
        FLUSH,
        "file",
        "continue",
    ];
    let said = gdb(&elf, &target, &commands);
    has(&said, &["built anew: this is a new machine"]);
    // Damaged, it is refused in words, and the next build is taken.
    fs::write(&elf, "no firmware").unwrap();
    has(
        &gdb(&image("tick"), &target, &[]),
        &["E.", "is a text file"],
    );
    build("tick", &elf);
    has(
        &gdb(&elf, &target, &["break tick", "continue"]),
        &["Breakpoint 1, "],
    );
    running.stderr.until("the debugger was turned away");
}

#[test]
fn a_qemu_that_is_killed_is_told_and_another_takes_its_place() {
    let (mut running, target) = serve_image("tick");
    let pid = running.qemu();
    let kill = format!("shell (sleep 0.3; kill -9 {pid}) &");
    let commands = [kill.as_str(), "continue", "break tick", "run"];
    let said = gdb_on("tick", &target, &commands);
    has(&said, &["terminated with signal SIGKILL", "Breakpoint 1, "]);
    running.stderr.until("signal 9 killed QEMU");
    running.signal(Signal::HUP);
    assert_eq!(running.end().status.code(), Some(129));
}

#[test]
fn a_signal_ends_it_while_a_debugger_is_there() {
    let (mut running, target) = serve_image("tick");
    let mut debugger = TcpStream::connect(&target).unwrap();
    debugger.set_read_timeout(Some(DEADLINE)).unwrap();
    debugger.write_all(b"+$?#3f").unwrap();
    running.stderr.until("a debugger has come");
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
    // Nothing of it is left waiting.
    let _ = debugger.read_to_end(&mut Vec::new());
}

#[test]
fn a_look_at_the_port_and_a_web_page_are_nobody() {
    let (running, target) = serve_image("tick");
    drop(TcpStream::connect(&target).unwrap());
    let mut page = TcpStream::connect(&target).unwrap();
    page.write_all(b"POST / HTTP/1.1\r\n\r\n$k#6b").unwrap();
    page.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = page.read_to_end(&mut Vec::new());
    // One that says nothing keeps nobody out.
    let _silent = TcpStream::connect(&target).unwrap();
    has(
        &gdb_on("tick", &target, &["info registers pc"]),
        &["<reset>"],
    );
    assert_eq!(
        running.stderr.text().matches("a debugger has come").count(),
        0
    );
}

#[test]
fn damaged_and_endless_packets_end_the_conversation_and_nothing_else() {
    let (_running, target) = serve_image("tick");
    let endless = [b"$".to_vec(), vec![b'a'; 300 * 1024]].concat();
    let packets: [&[u8]; 4] = [
        b"$qRcmd,zz#00",
        b"$qRcmd,f#00$?#3f",
        b"$X0,ffffffff:#00",
        &endless,
    ];
    for packet in packets {
        let mut debugger = TcpStream::connect(&target).unwrap();
        debugger.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = debugger.write_all(packet);
        debugger.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = debugger.read_to_end(&mut Vec::new());
    }
    has(
        &gdb_on("tick", &target, &["break tick", "continue"]),
        &["Breakpoint 1, "],
    );
}

#[test]
fn a_port_that_is_in_use_is_named_and_a_socket_is_removed() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let tick = image("tick");
    let call = Call::verb("debug", [tick.to_str().unwrap(), "--gdb", &port]);
    let said = call.ends_with(125).stderr;
    assert!(
        said.contains(&format!("127.0.0.1:{port} is in use")),
        "{said}"
    );

    let folder = tempfile::tempdir().unwrap();
    let socket: PathBuf = folder.path().join("gdb.sock");
    let at = format!("unix:{}", socket.display());
    let (running, target) = serve(&tick, &["--gdb", &at]);
    assert_eq!(Path::new(&target), socket);
    has(
        &gdb(&tick, &target, &["break tick", "continue"]),
        &["Breakpoint 1, "],
    );
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
    assert!(!socket.exists());
}

#[test]
fn options_that_mean_nothing_beside_a_debugger_are_refused() {
    for option in ["--timeout=3s", "--on-fault=stop", "--bundle"] {
        let tick = image("tick");
        let call = Call::verb("debug", [tick.to_str().unwrap(), option]);
        let said = call.ends_with(125).stderr;
        assert!(said.contains("is an option of `run`"), "{said}");
    }
}

#[test]
fn gdb_in_the_same_terminal_has_ctrl_c_and_ends_it() {
    let tick = image("tick");
    let call = Call::verb(
        "debug",
        [tick.to_str().unwrap(), "--gdb", "free", "--gdb-ui"],
    );
    let mut running = call
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .start();
    running.type_in(b"info registers pc\n");
    running.prints("<reset>");
    running.signal(Signal::INT);
    running.type_in(b"break tick\ncontinue\nmonitor reset\ninfo registers pc\n");
    running.prints("Breakpoint 1, ");
    running
        .stdout
        .as_mut()
        .unwrap()
        .until_it("a second reset", |all| all.matches("<reset>").count() == 2);
    running.type_in(b"set confirm off\nquit\n");
    Said::of(&running.end(), 0);
}

#[test]
fn a_gdb_that_is_not_there_is_named() {
    let tick = image("tick");
    let call = Call::verb(
        "debug",
        [
            tick.to_str().unwrap(),
            "--gdb",
            "free",
            "--gdb-ui=no-such-gdb",
        ],
    );
    let said = call.ends_with(125).stderr;
    assert!(said.contains("no-such-gdb cannot be run"), "{said}");
}
