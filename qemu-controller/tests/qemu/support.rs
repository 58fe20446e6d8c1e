//! What the tests share: the tiny images, sessions with them, and a look at what is left behind.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSymbol as _};
use qemu_controller::{Endpoint, QemuConfig, Session};

/// Ample, and still an end: nothing in a test should come near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

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
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
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
