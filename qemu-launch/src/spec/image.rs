//! The files that a machine loads.

use std::path::{Path, PathBuf};

/// A file for `-kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) path: PathBuf,
    pub(crate) checked: bool,
}

/// What `-bios` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bios {
    /// No ROM, where the board would have one of QEMU's own.
    None,
    File(PathBuf),
}

/// A file for `-device loader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadedImage {
    Raw { path: PathBuf, address: u64 },
    IntelHex { path: PathBuf },
}

impl LoadedImage {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Raw { path, .. } | Self::IntelHex { path } => path,
        }
    }
}
