//! What the tests share: the tiny images, sessions with them, and a look at what is left behind.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSymbol as _};
use qemu_controller::qemu_launch::MachineSpec;
use qemu_controller::{Endpoint, QemuConfig, Semihosting, Session};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Ample, and still an end: nothing in a test should come near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Whether the tests that take minutes are to be as long as they are meant to be.
pub(crate) fn long() -> bool {
    std::env::var_os("QEMU_CONTROLLER_LONG").is_some()
}

/// A loopback port that nobody but a QEMU of this test gets while the socket is kept: it is bound
/// to it and does not listen, beside which another one may listen, since both allow it. A listener
/// that was closed would not do: a child that another test is about to start has a copy of it for a
/// moment.
pub(crate) fn reserved_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// One of the project's own images.
pub(crate) fn image(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../xtask/firmware/{name}/{name}.elf"))
}

/// The default board with this image, and a GDB port that collides with nobody's.
pub(crate) fn config(name: &str) -> QemuConfig {
    QemuConfig::default()
        .firmware(image(name))
        .gdb(Endpoint::free_port())
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

pub(crate) async fn start(name: &str) -> Session {
    Session::start(config(name)).await.unwrap()
}

/// The address of a symbol in one of the images.
pub(crate) fn symbol(name: &str, symbol: &str) -> u64 {
    let bytes = std::fs::read(image(name)).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    elf.symbol_by_name(symbol).unwrap().address()
}

/// The firmware's counter, read without stopping the guest.
pub(crate) async fn counter(session: &Session) -> u32 {
    let line = format!("xp /1wx {:#x}", symbol("tick", "counter"));
    let text = session.human_monitor_command(&line).await.unwrap();
    let value = text.split("0x").last().unwrap().trim();
    u32::from_str_radix(value, 16).unwrap()
}

/// Whether the guest's counter moves on from here.
pub(crate) async fn counts(session: &Session) -> bool {
    let before = counter(session).await;
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if counter(session).await != before {
            return true;
        }
    }
    false
}

/// Whether a process is still there, as a zombie or alive.
pub(crate) fn exists(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

/// Waits until a process is gone; false when it is still there after the deadline.
pub(crate) async fn gone(pid: u32) -> bool {
    let until = Instant::now() + DEADLINE;
    while exists(pid) {
        if Instant::now() > until {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// The processes whose command line has this word.
pub(crate) fn processes_with(word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line
            .split(|&byte| byte == 0)
            .any(|argument| argument == word.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

/// An error with all its causes, as a program would print it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The one process that comes to have this word in its command line.
pub(crate) async fn process_with(word: &str) -> u32 {
    until(word, || processes_with(word).first().copied()).await
}

/// Looks again and again, and lets others work in between; panics after the deadline.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A process to send signals to, held by a descriptor and not by its number: none goes to another
/// process that got the number.
pub(crate) struct Held {
    process: OwnedFd,
    pid: u32,
}

impl Held {
    pub(crate) fn of(pid: u32) -> Self {
        let raw = Pid::from_raw(pid as i32).unwrap();
        Self {
            process: pidfd_open(raw, PidfdFlags::empty()).unwrap(),
            pid,
        }
    }

    /// Sends a signal; after SIGSTOP, waits until the process is stopped.
    pub(crate) async fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).unwrap();
        if signal == Signal::STOP {
            until("standing still", || self.stands_still().then_some(())).await;
        }
    }

    /// The same from where nothing can be awaited.
    pub(crate) fn strike(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).unwrap();
        let until = Instant::now() + DEADLINE;
        while signal == Signal::STOP && !self.stands_still() {
            assert!(
                Instant::now() < until,
                "standing still: not within {DEADLINE:?}"
            );
            std::thread::yield_now();
        }
    }

    /// Sends a signal to a process that may be gone.
    pub(crate) fn signal_if_there(&self, signal: Signal) {
        let sent = pidfd_send_signal(&self.process, signal);
        assert!(matches!(sent, Ok(()) | Err(Errno::SRCH)), "{sent:?}");
    }

    /// Waits until the process has ended and somebody has taken its status: it is not even a zombie
    /// then.
    pub(crate) async fn reaped(&self) {
        let gone = || pidfd_send_signal(&self.process, Signal::CONT) == Err(Errno::SRCH);
        until("reaped", || gone().then_some(())).await;
    }

    fn stands_still(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state comes after the name, which may hold anything.
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" T"))
    }
}

/// A FIFO that nobody has open: who opens it to read or to write waits for the other side.
pub(crate) struct Fifo {
    folder: TempDir,
}

impl Fifo {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mknodat(
            CWD,
            folder.path().join("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        Self { folder }
    }

    /// The end to write, once somebody reads.
    pub(crate) async fn write_end(&self) -> File {
        let mut options = OpenOptions::new();
        // Without a reader this fails in place of waiting.
        options
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32);
        until("reading the FIFO", || options.open(self.to_string()).ok()).await
    }
}

/// Its path.
impl fmt::Display for Fifo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folder.path().join("fifo").display().fmt(f)
    }
}

/// A case of the faults' firmware, on the board that it is for.
pub(crate) fn fault(case: &str) -> QemuConfig {
    let semihosting = Semihosting::console().argument("faults").argument(case);
    QemuConfig::default()
        .with_spec(|_| MachineSpec::board("stm32vldiscovery"))
        .add_serial()
        .firmware("../firmware-info/fixtures/faults/faults.elf")
        .semihosting(semihosting)
}
