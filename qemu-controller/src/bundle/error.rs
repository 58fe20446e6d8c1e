//! Why a bundle was not written, or cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::session::error::StartError;

/// Why there is no bundle, or why it is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file or folder of it cannot be written or read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is no bundle, it is damaged, or it says what none of this program's says.
    #[error("{} is no bundle that can be opened: {why}", path.display())]
    Invalid {
        /// The folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A later version of this program wrote it.
    #[error(
        "it has format {version} and this program knows {} at the most: a later version opens it",
        super::FORMAT_VERSION
    )]
    Newer {
        /// The number of its format.
        version: u64,
    },
    /// It has no state to begin with; what it tells can be read all the same.
    #[error("it has no state of the machine: {why}")]
    NoState {
        /// Why not.
        why: String,
    },
    /// A file that the machine loads is not in it, and has to be named.
    #[error("{name} ({bytes} bytes, hash {hash}) is not in it; name the file to open it")]
    NoFirmware {
        /// What it was called.
        name: String,
        /// How many bytes it has.
        bytes: u64,
        /// The hash of all files that the machine loads, as in
        /// [`MachineFingerprint::firmware`](crate::MachineFingerprint::firmware).
        hash: String,
    },
    /// The machine did not start from the state.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl BundleError {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }

    pub(super) fn invalid(path: &Path, why: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}
