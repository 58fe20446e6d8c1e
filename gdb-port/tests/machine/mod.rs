//! A QEMU with firmware that counts, and the few words of QMP that its tests need. Shared by the
//! targets that need QEMU.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gdb_port::{Chardev, StubAddress};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that QEMU does in milliseconds: for loaded machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where the counter is: a word in RAM that grows while the processor runs.
const COUNTER: &str = "0x20000000";

/// Where the stub listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stub {
    Tcp4,
    Tcp6,
    Unix,
}

pub(crate) const STUBS: [Stub; 3] = [Stub::Tcp4, Stub::Tcp6, Stub::Unix];

/// What the guest does when a test begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    Running,
    Paused,
    Prelaunch,
}

pub(crate) const GUESTS: [Guest; 3] = [Guest::Running, Guest::Paused, Guest::Prelaunch];

impl Stub {
    /// How often the long tests repeat: fully on the address that is used most.
    pub(crate) fn rounds(self) -> usize {
        if self == Self::Tcp4 { 200 } else { 50 }
    }
}

impl Guest {
    pub(crate) fn run_state(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Prelaunch => "prelaunch",
        }
    }
}

/// A process that is killed and reaped when dropped, also when the test panics before it has come
/// up.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A QEMU process, its monitor, and its stub. Killed when dropped.
pub(crate) struct Machine {
    child: Guarded,
    monitor: BufReader<UnixStream>,
    pub(crate) endpoint: StubAddress,
    _folder: TempDir,
}

/// The firmware of the demo, which counts.
pub(crate) fn firmware() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware/tick/tick.elf");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo xtask firmware`",
        path.display()
    );
    path
}

/// QEMU's command line up to the stub, with its monitor on `monitor`.
pub(crate) fn qemu(monitor: &Path) -> Command {
    let mut command = Command::new("qemu-system-arm");
    command
        .args([
            "-M",
            "lm3s6965evb",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "null",
        ])
        .arg("-kernel")
        .arg(firmware())
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", monitor.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

impl Machine {
    pub(crate) fn start(stub: Stub, guest: Guest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let monitor = folder.path().join("qmp.sock");
        let mut command = qemu(&monitor);
        match stub {
            Stub::Tcp4 => command.args(["-gdb", "tcp:127.0.0.1:0"]),
            // `-gdb tcp:[::1]:PORT` is refused by QEMU 7.2; a chardev by its parts is not.
            Stub::Tcp6 => command.args([
                "-chardev",
                "socket,id=gdb,host=::1,port=0,server=on,wait=off",
            ]),
            Stub::Unix => command.arg("-gdb").arg(format!(
                "unix:{}/gdb.sock,server=on,wait=off",
                folder.path().display()
            )),
        };
        if stub == Stub::Tcp6 {
            command.args(["-gdb", "chardev:gdb"]);
        }
        if guest == Guest::Prelaunch {
            command.arg("-S");
        }
        let spawned = command.spawn();
        let child =
            Guarded(spawned.expect("qemu-system-arm is missing: install it (`cargo xtask setup`)"));
        let mut monitor = BufReader::new(connect_monitor(&monitor));
        monitor.read_line(&mut String::new()).unwrap();
        let endpoint = StubAddress::Unix(PathBuf::new());
        let mut machine = Self {
            child,
            monitor,
            endpoint,
            _folder: folder,
        };
        machine.execute("qmp_capabilities", json!({}));
        machine.endpoint = machine.chardev().endpoint;
        if guest == Guest::Paused {
            machine.pause();
        }
        assert_eq!(machine.run_state(), guest.run_state());
        machine
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// One QMP command; events that come in between are passed over.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.monitor.get_mut().write_all(line.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(
                self.monitor.read_line(&mut line).unwrap() > 0,
                "QEMU closed its monitor"
            );
            let mut message: Value = serde_json::from_str(&line).unwrap();
            assert!(message.get("error").is_none(), "{command}: {line}");
            if let Some(value) = message.get_mut("return") {
                return value.take();
            }
        }
    }

    pub(crate) fn run_state(&mut self) -> String {
        self.execute("query-status", json!({}))["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn pause(&mut self) {
        self.execute("stop", json!({}));
    }

    /// Whether this QEMU's stub shows by itself that it stopped a guest that ran: up to 8.0.
    pub(crate) fn shows_that_it_ran(&mut self) -> bool {
        let version = self.execute("query-version", json!({}))["qemu"].take();
        (
            version["major"].as_u64().unwrap(),
            version["minor"].as_u64().unwrap(),
        ) < (8, 1)
    }

    /// What QEMU says of the stub's chardev.
    pub(crate) fn chardev(&mut self) -> Chardev {
        let chardevs = self.execute("query-chardev", json!({}));
        let gdb = chardevs
            .as_array()
            .unwrap()
            .iter()
            .find(|chardev| chardev["label"] == "gdb")
            .unwrap();
        Chardev::parse(gdb["filename"].as_str().unwrap()).unwrap()
    }

    pub(crate) fn counter(&mut self) -> u32 {
        let line = format!("xp /1wx {COUNTER}");
        let text = self.execute("human-monitor-command", json!({ "command-line": line }));
        let word = text.as_str().unwrap().trim().rsplit_once("0x").unwrap().1;
        u32::from_str_radix(word, 16).unwrap()
    }

    /// The guest is in the state it was started in, and its counter grows if and only if it runs.
    pub(crate) fn assert_is(&mut self, guest: Guest) {
        assert_eq!(self.run_state(), guest.run_state());
        let before = self.counter();
        if guest == Guest::Running {
            eventually("the counter grows", || self.counter() != before);
            assert_eq!(self.run_state(), "running");
        } else {
            for _ in 0..5 {
                assert_eq!(
                    self.counter(),
                    before,
                    "the counter grows though the guest is {guest:?}"
                );
            }
        }
    }

    /// Waits until QEMU's own monitor says that the stub's client is there, or gone.
    pub(crate) fn await_attached(&mut self, attached: bool) {
        eventually("the stub's client comes or goes", || {
            self.chardev().attached == attached
        });
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }
}

fn connect_monitor(path: &Path) -> UnixStream {
    let mut stream = None;
    eventually("QEMU's monitor listens", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks again and again, with short pauses, until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
