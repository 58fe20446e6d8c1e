//! Checks of the firmware before QEMU starts: QEMU would load anything as a raw image, and run it.

use std::path::{Path, PathBuf};

use crate::spec::MachineSpec;

/// The firmware is not what the chosen QEMU can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// There is no such file.
    #[error("there is no file {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
}

/// Checks everything that the machine loads.
pub(crate) fn check_all(spec: &MachineSpec, _program: &Path) -> Result<(), FirmwareError> {
    for kernel in &spec.kernels {
        if !kernel.path.exists() {
            return Err(FirmwareError::Missing {
                path: kernel.path.clone(),
            });
        }
    }
    Ok(())
}
