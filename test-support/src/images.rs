//! The project's own firmware images.

use std::path::{Path, PathBuf};

/// The ELF file of this name, which is built beside its source (`cargo xtask firmware`).
///
/// # Panics
/// There is no such image.
#[must_use]
#[track_caller]
pub fn image(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware");
    let path = folder.join(name).join(format!("{name}.elf"));
    assert!(path.is_file(), "there is no {}", path.display());
    path
}
