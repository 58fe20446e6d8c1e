//! The files that a machine loads.

use std::path::{Path, PathBuf};

/// A file for `-kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) path: PathBuf,
    pub(crate) checked: bool,
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
