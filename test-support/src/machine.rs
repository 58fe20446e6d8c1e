//! A QEMU with firmware that counts and a GDB stub, and the few QMP commands that its tests need.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::{Qmp, eventually, until};

/// Where the counter is: a word in RAM that grows while the processor runs.
const COUNTER: &str = "0x20000000";

/// Where the stub listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stub {
    /// 127.0.0.1.
    Tcp4,
    /// ::1.
    Tcp6,
    /// A socket in a folder of the test's.
    Unix,
}

/// Every kind of stub.
pub const STUBS: [Stub; 3] = [Stub::Tcp4, Stub::Tcp6, Stub::Unix];

/// What the guest does when a test begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// It runs.
    Running,
    /// Stopped by QMP.
    Paused,
    /// Never run: `-S`.
    Prelaunch,
}

/// Every state of a guest.
pub const GUESTS: [Guest; 3] = [Guest::Running, Guest::Paused, Guest::Prelaunch];

impl Stub {
    /// How often the long tests repeat: fully on the address that is used most.
    pub fn rounds(self) -> usize {
        if self == Self::Tcp4 { 200 } else { 50 }
    }
}

impl Guest {
    /// QMP's word for it.
    pub fn run_state(self) -> &'static str {
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
pub struct Machine {
    child: Guarded,
    monitor: Qmp,
    /// Where the stub listens: `ADDRESS:PORT` or `unix:PATH`.
    pub endpoint: String,
    _folder: TempDir,
}

/// The firmware of the demo, which counts.
pub fn firmware() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware/tick/tick.elf");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo xtask firmware`",
        path.display()
    );
    path
}

/// QEMU's command line up to the stub, with its monitor on `monitor`.
pub fn qemu(monitor: &Path) -> Command {
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
    /// Starts QEMU, and waits until it is as asked.
    pub fn start(stub: Stub, guest: Guest) -> Self {
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
        let stream = until("QEMU's monitor listens", || {
            UnixStream::connect(&monitor).ok()
        });
        let mut machine = Self {
            child,
            monitor: Qmp::new(stream),
            endpoint: String::new(),
            _folder: folder,
        };
        machine.endpoint = machine.listening_at();
        if guest == Guest::Paused {
            machine.pause();
        }
        assert_eq!(machine.run_state(), guest.run_state());
        machine
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What `query-status` says.
    pub fn run_state(&mut self) -> String {
        self.monitor.run_state()
    }

    /// QMP `stop`.
    pub fn pause(&mut self) {
        self.monitor.execute("stop", json!({}));
    }

    /// Whether this QEMU's stub shows by itself that it stopped a guest that ran: up to 8.0.
    pub fn shows_that_it_ran(&mut self) -> bool {
        let version = self.monitor.execute("query-version", json!({}))["qemu"].take();
        (
            version["major"].as_u64().unwrap(),
            version["minor"].as_u64().unwrap(),
        ) < (8, 1)
    }

    /// What QEMU says of the stub's chardev.
    pub fn chardev(&mut self) -> String {
        let chardevs = self.monitor.execute("query-chardev", json!({}));
        let gdb = chardevs
            .as_array()
            .unwrap()
            .iter()
            .find(|chardev| chardev["label"] == "gdb")
            .unwrap();
        gdb["filename"].as_str().unwrap().to_owned()
    }

    /// Whether QEMU says that the stub has a client.
    pub fn is_attached(&mut self) -> bool {
        !self.chardev().starts_with("disconnected:")
    }

    fn listening_at(&mut self) -> String {
        let chardev = self.chardev();
        let place = chardev.strip_prefix("disconnected:").unwrap();
        let place = place.strip_suffix(",server=on").unwrap();
        match place.strip_prefix("tcp:") {
            // 7.2 writes a v6 address without brackets.
            Some(address) if address.starts_with("::1:") => address.replacen("::1", "[::1]", 1),
            Some(address) => address.to_owned(),
            None => place.to_owned(),
        }
    }

    /// What the firmware has counted.
    pub fn counter(&mut self) -> u32 {
        let line = format!("xp /1wx {COUNTER}");
        let text = self.monitor.human(&line);
        let word = text.trim().rsplit_once("0x").unwrap().1;
        u32::from_str_radix(word, 16).unwrap()
    }

    /// The guest is in the state it was started in, and its counter grows if and only if it runs.
    pub fn assert_is(&mut self, guest: Guest) {
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
    pub fn await_attached(&mut self, attached: bool) {
        eventually("the stub's client comes or goes", || {
            self.is_attached() == attached
        });
    }

    /// Sends QEMU a signal by its name, without `SIG`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Kills and reaps QEMU.
    pub fn kill(&mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }
}
