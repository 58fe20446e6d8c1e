//! Why a snapshot was not saved, loaded, listed or deleted.

use std::io;
use std::path::{Path, PathBuf};

use super::devices::{self, LostDevice};
use super::fingerprint::{MachineMismatch, joined};
use super::name::InvalidName;
use crate::error::{CommandError, SessionEnd};

/// Why an operation on snapshots failed. The guest's run state is as before, and every earlier
/// snapshot is still there. One thing is not undone: a machine that was shut down has been reset
/// for a load that then failed ([`Job`](Self::Job), [`Command`](Self::Command)), and waits in the
/// run state `prelaunch`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The text cannot name a snapshot; nothing was sent.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is one with this name; nothing was changed.
    #[error("there is a snapshot {name:?} already; save with `overwrite` to replace it")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is none with this name; nothing was changed.
    #[error("there is no snapshot {name:?}; there {}", listed(.available))]
    Missing {
        /// The name.
        name: String,
        /// Those that there are.
        available: Vec<String>,
    },
    /// A disk that the guest writes to cannot hold a snapshot, and without it memory and disks
    /// would not fit together; nothing was changed.
    #[error(
        "the disk {disk} is written by the guest and its format {format} holds no snapshots; use qcow2 for it, or make it read-only"
    )]
    Disk {
        /// The drive or block node.
        disk: String,
        /// The driver that it has, for example `raw`.
        format: String,
    },
    /// There is a medium in an SD card on an SPI bus; nothing was changed.
    #[error(
        "the SD card on the SPI bus has a medium ({drive}), and QEMU aborts when it restores such a card; leave the drive out, or take the medium out first (`eject`)"
    )]
    CardWithMedium {
        /// The drive that holds the medium.
        drive: String,
    },
    /// The machine has devices that a load does not bring back, and the configuration is
    /// [strict](crate::QemuConfig::strict_snapshots); nothing was changed.
    #[error("a load would not bring back {}", devices::listed(.devices))]
    LostDevices {
        /// The devices.
        devices: Vec<LostDevice>,
    },
    /// The snapshot was taken with something else and cannot be expected to fit; nothing was
    /// changed.
    #[error(
        "the snapshot {name:?} was taken with {}; `unchecked` loads it all the same",
        joined(.mismatches)
    )]
    OtherMachine {
        /// The snapshot.
        name: String,
        /// In what they differ.
        mismatches: Vec<MachineMismatch>,
    },
    /// The snapshot does not say what it was taken with, since something else saved it; nothing was
    /// changed.
    #[error(
        "the snapshot {name:?} does not say what it was taken with; `unchecked` loads it all the same"
    )]
    UnknownOrigin {
        /// The snapshot.
        name: String,
    },
    /// This QEMU has no snapshots over QMP; nothing was changed.
    #[error("QEMU {qemu} has no {command}; it came with QEMU 6.0")]
    Unsupported {
        /// The command that is missing.
        command: &'static str,
        /// This QEMU's version.
        qemu: String,
    },
    /// The file for the snapshots cannot be used; what is in it was not changed.
    #[error("cannot use {} for snapshots: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// QEMU's job failed. After a *load* that failed in the middle, the guest's memory and devices
    /// may be partly those of the snapshot: load one that is sound, or
    /// [reset](crate::Session::reset).
    #[error("{command} failed: {error}")]
    Job {
        /// The job's command, for example `snapshot-save`.
        command: &'static str,
        /// QEMU's own text.
        error: String,
    },
    /// A command failed, its deadline passed, or QEMU ended: then this has what QEMU said.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl SnapshotError {
    pub(super) fn file(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self::File { path, error }
    }

    /// How the session ended, where that is the reason.
    pub fn ended(&self) -> Option<&SessionEnd> {
        match self {
            Self::Command(error) => error.ended(),
            _ => None,
        }
    }
}

/// An image can have any text as a name.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "is none at all".to_owned();
    }
    let names: Vec<_> = names
        .iter()
        .map(|name| name.escape_debug().to_string())
        .collect();
    format!("are: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_gave_are_escaped() {
        let available = ["boot", "a\x1b[31m\nb"].map(str::to_owned).to_vec();
        let name = "x".to_owned();
        let error = SnapshotError::Missing { name, available }.to_string();
        assert!(
            error.ends_with(r"there are: boot, a\u{1b}[31m\nb"),
            "{error}"
        );
    }
}
