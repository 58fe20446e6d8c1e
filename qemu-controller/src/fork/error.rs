//! Why a state was not saved, persisted, opened, or continued from.

use std::io;
use std::path::{Path, PathBuf};

use qemu_launch::SpecError;
use qmp_proto::commands::RunState;

use crate::error::CommandError;
use crate::session::error::StartError;
use crate::snapshot::error::SnapshotError;

/// Why there is no state, or no fork. The guest that it was to be taken of goes on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// QEMU did not save it, for a reason that a snapshot can have too.
    #[error(transparent)]
    Save(#[from] SnapshotError),
    /// The guest writes to disks, and a state has no disk's contents; nothing was changed.
    #[error(
        "the guest writes to {}, and a state has memory and devices but no disk's contents; make it read-only, or use snapshots",
        .disks.join(" and ")
    )]
    Disks {
        /// The drives or block nodes.
        disks: Vec<String>,
    },
    /// In this run state a machine has no state from which another could begin.
    #[error("a guest in the run state {run_state} has no state that another could begin with")]
    RunState {
        /// The run state.
        run_state: RunState,
    },
    /// The file of a state cannot be used.
    #[error("cannot use {} for the state of a machine: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The session has not started its QEMU, so it is not known how to start another.
    #[error(
        "this session was attached, and does not know how its QEMU was started; save its state and start from that"
    )]
    Attached,
    /// The machine's description does not allow a second one beside it.
    #[error("a fork would get in the way of what it is forked from: {0}")]
    Conflict(SpecError),
    /// One fork did not start; those that did have been ended.
    #[error("fork {number} of {count} did not start: {error}")]
    Fork {
        /// Which, from 1 on.
        number: usize,
        /// Of how many.
        count: usize,
        /// Why not.
        error: Box<StartError>,
    },
}

impl StateError {
    pub(super) fn file(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self::File { path, error }
    }
}

impl From<CommandError> for StateError {
    fn from(error: CommandError) -> Self {
        Self::Save(error.into())
    }
}
