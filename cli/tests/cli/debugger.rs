//! `--gdb`: the firmware waits, the line to attach is printed, and the debugger lets it run.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::support::{Call, DEADLINE, Said};

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
