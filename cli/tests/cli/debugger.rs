//! `--gdb`: the firmware waits, the line to attach is printed, and the debugger lets it run.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::support::{Call, DEADLINE, Running, Said};

#[test]
fn the_firmware_waits_until_a_debugger_lets_it_run() {
    // A timeout of the configuration does not count before a debugger has left.
    let mut running = Call::image("semihosting-exit", ["--gdb=free", "--timeout", "1ms"]).start();
    running.stderr.until("'target remote 127.0.0.1:");
    let said = running.stderr.text();
    let port = said
        .split("127.0.0.1:")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    let line = said
        .lines()
        .find(|line| line.contains("target remote"))
        .unwrap();
    assert!(line.trim_start().starts_with("gdb-multiarch -q "), "{said}");
    assert!(line.contains("semihosting-exit.elf"), "{said}");
    let mut debugger = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    debugger.set_read_timeout(Some(DEADLINE)).unwrap();
    debugger.write_all(b"$c#63").unwrap();
    let said = Said::of(&running.end(), 7);
    assert_eq!(said.stdout, "hello by semihosting\n");
    // Read to the end, or the stub's last words would be lost with a reset.
    let _ = debugger.read_to_end(&mut Vec::new());
}

#[test]
fn a_unix_socket_has_no_port_that_could_collide() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gdb.sock");
    let option = format!("--gdb=unix:{}", path.display());
    let mut running = Call::image("tick", [option.as_str()]).start();
    running
        .stderr
        .until(&format!("target remote {}", path.display()));
    UnixStream::connect(&path)
        .unwrap()
        .write_all(b"$c#63")
        .unwrap();
    running.signal(Signal::INT);
    assert_eq!(running.end().status.code(), Some(130));
    assert!(!path.exists());
}

/// Attaches to a run.
fn attach(running: &mut Running) -> TcpStream {
    running.stderr.until("let it `continue`");
    let said = running.stderr.text();
    let (_, port) = said.split_once("'target remote 127.0.0.1:").unwrap();
    let (port, _) = port.split_once('\'').unwrap();
    let debugger = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    debugger.set_read_timeout(Some(DEADLINE)).unwrap();
    debugger
}

fn send(debugger: &mut TcpStream, packet: &str) {
    let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
    write!(debugger, "${packet}#{sum:02x}").unwrap();
}

/// Reads until the stub has answered with this, and acknowledges that once: a further byte would
/// stop the firmware again.
fn answered(debugger: &mut TcpStream, answer: &str) {
    let mut read = String::new();
    let is_whole = |read: &str| {
        let rest = read
            .split_once(answer)
            .and_then(|(_, rest)| rest.split_once('#'));
        rest.is_some_and(|(_, sum)| sum.len() == 2)
    };
    while !is_whole(&read) {
        let mut chunk = [0; 512];
        let length = debugger.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "no {answer:?} in {read}");
        read += &String::from_utf8_lossy(&chunk[..length]);
    }
    debugger.write_all(b"+").unwrap();
}

#[test]
fn once_the_debugger_has_left_the_timeout_counts() {
    let mut running = Call::image("tick", ["--gdb=free", "--timeout", "2s"]).start();
    let mut debugger = attach(&mut running);
    send(&mut debugger, "?");
    answered(&mut debugger, "$T05");
    send(&mut debugger, "D;1");
    answered(&mut debugger, "$OK");
    drop(debugger);
    let said = Said::of(&running.end(), 124).stderr;
    let left = "the debugger has left; the firmware runs on, for 2s at most";
    assert!(
        said.contains(left) && said.contains("not over after 2s"),
        "{said}"
    );
}

#[test]
fn a_firmware_that_it_has_left_stopped_is_not_waited_for_either() {
    let mut running = Call::image("tick", ["--gdb=free", "--timeout", "1s"]).start();
    let mut debugger = attach(&mut running);
    send(&mut debugger, "c");
    running.prints("tick 1\n");
    debugger.write_all(b"\x03").unwrap();
    answered(&mut debugger, "$T02");
    drop(debugger);
    let said = Said::of(&running.end(), 124).stderr;
    let words = "the debugger has left; the firmware is stopped, until one attaches again, for 1s";
    assert!(said.contains(words), "{said}");
    assert!(
        said.contains("not over after 1s: the debugger had left"),
        "{said}"
    );
}

#[test]
fn its_reset_resets_and_its_kill_is_an_interruption() {
    let mut running = Call::image("tick", ["--gdb=free"]).start();
    let mut debugger = attach(&mut running);
    send(&mut debugger, "vCont?");
    send(&mut debugger, "c");
    running.prints("boot\ntick 1\n");
    debugger.write_all(b"\x03").unwrap();
    answered(&mut debugger, "$T02");
    // `monitor system_reset`
    send(&mut debugger, "qRcmd,73797374656d5f7265736574");
    answered(&mut debugger, "$OK");
    send(&mut debugger, "c");
    running.prints("boot\ntick 1\ntick 2\n");
    let is_twice = |all: &str| all.matches("boot\n").count() == 2;
    running
        .stdout
        .as_mut()
        .unwrap()
        .until_it("a second boot", is_twice);
    debugger.write_all(b"\x03").unwrap();
    answered(&mut debugger, "$T02");
    send(&mut debugger, "k");
    let said = Said::of(&running.end(), 130).stderr;
    assert!(said.contains("the debugger ended the run"), "{said}");
}

#[test]
fn its_monitor_s_quit_is_an_interruption_too() {
    let mut running = Call::image("tick", ["--gdb=free"]).start();
    let mut debugger = attach(&mut running);
    send(&mut debugger, "qRcmd,71756974");
    let said = Said::of(&running.end(), 130).stderr;
    assert!(said.contains("the debugger ended the run"), "{said}");
}

#[test]
fn one_that_was_there_for_a_moment_is_noticed_and_a_look_at_the_port_is_not_one() {
    let mut running = Call::image("tick", ["--gdb=free", "--timeout", "1s"]).start();
    let mut debugger = attach(&mut running);
    // A port scanner and a web page; the firmware is still held for the debugger.
    let address = debugger.peer_addr().unwrap();
    drop(TcpStream::connect(address).unwrap());
    let mut page = TcpStream::connect(address).unwrap();
    page.write_all(b"POST / HTTP/1.1\r\n\r\n$c#63").unwrap();
    page.set_read_timeout(Some(DEADLINE)).unwrap();
    // Detaches within the same moment.
    debugger.write_all(b"+$?#3f+$D;1#b0").unwrap();
    answered(&mut debugger, "$OK");
    drop(debugger);
    running
        .stderr
        .until("the debugger has left; the firmware runs on");
    // Cut off at the latest when the run ends.
    let _ = page.read_to_end(&mut Vec::new());
    let said = Said::of(&running.end(), 124).stdout;
    assert!(said.starts_with("boot\n"), "{said}");
}

#[test]
fn ctrl_c_ends_the_run_while_a_debugger_is_there() {
    let mut running = Call::image("tick", ["--gdb=free"]).start();
    let mut debugger = attach(&mut running);
    send(&mut debugger, "?");
    answered(&mut debugger, "$T05");
    running.signal(Signal::INT);
    let said = Said::of(&running.end(), 130).stderr;
    assert!(said.contains("interrupted: the guest is "), "{said}");
    assert_eq!(debugger.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
}

/// Of a firmware with tests: the one that is named has begun when the debugger comes.
#[test]
fn one_test_waits_for_a_debugger() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../qemu-controller/fixtures/embedded-test"
    );
    let firmware = format!("{folder}/outcomes.elf");
    // A whole name, though others have it in theirs.
    for (name, status) in [("passes::nothing", 0), ("fails::by_a_panic", 134)] {
        let mut running = Call::new(["--gdb=free", &firmware, name]).start();
        let mut debugger = attach(&mut running);
        let said = running.stderr.text();
        assert!(
            said.contains(&format!("the test {name} has begun and waits")),
            "{said}"
        );
        send(&mut debugger, "c");
        let said = Said::of(&running.end(), status);
        let exited = said.stdout.contains("INFO Test exited with ()");
        assert_eq!(exited, status == 0, "{}", said.stdout);
        let _ = debugger.read_to_end(&mut Vec::new());
    }
    for (words, expected) in [
        (
            &["passes"][..],
            "--gdb holds one test, and 29 have these words",
        ),
        (&["no_such"], "none has these words"),
        (
            &["passes::adds", "--semihosting=off"],
            "--semihosting=off denies",
        ),
        (&["--no-such"], "--no-such"),
    ] {
        let said = Call::new([&["--gdb=free", &firmware], words].concat()).ends_with(125);
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
}
