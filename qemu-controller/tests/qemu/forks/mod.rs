//! Machines that continue from the state of another, on real QEMU.

mod breakpoint;
mod continued;
mod faults;
mod killed;
mod persisted;

use std::path::{Path, PathBuf};

use qemu_controller::{Endpoint, QemuConfig, Serial, Session};
use tempfile::TempDir;

use crate::support::{DEADLINE, image, processes_with, until};

/// A session whose firmware lies at a path that no other test uses, by which its QEMUs are found.
struct Named {
    session: Session,
    firmware: PathBuf,
    _folder: TempDir,
}

impl Named {
    async fn start(change: impl FnOnce(QemuConfig) -> QemuConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let firmware = folder.path().join("tick.elf");
        std::fs::copy(image("tick"), &firmware).unwrap();
        let session = Session::start(change(with_firmware(&firmware)))
            .await
            .unwrap();
        Self {
            session,
            firmware,
            _folder: folder,
        }
    }

    /// As it was started, for another beside it.
    fn config(&self) -> QemuConfig {
        with_firmware(&self.firmware)
    }

    /// All its QEMUs, the first one's included.
    fn qemus(&self) -> Vec<u32> {
        processes_with(self.firmware.to_str().unwrap())
    }

    /// Whether no QEMU but the first is left, within the deadline.
    async fn check_alone(&self) {
        let pid = self.session.pid().unwrap();
        until("the forks' end", || (self.qemus() == [pid]).then_some(())).await;
    }
}

fn with_firmware(firmware: &Path) -> QemuConfig {
    QemuConfig::default()
        .firmware(firmware)
        .gdb(Endpoint::free_port())
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

fn serial(session: &Session) -> &Serial {
    session.serial(0).unwrap()
}

/// The number of the next line `tick N`.
async fn next_tick(session: &Session) -> u32 {
    loop {
        let line = serial(session).line_within(DEADLINE).await.unwrap();
        if let Some(number) = line.strip_prefix("tick ") {
            return number.parse().unwrap();
        }
    }
}
