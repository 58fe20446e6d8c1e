//! Writing a program that a test then executes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Copied to its place by another program: a descriptor that this one writes it by lives on in a child that another test
/// is about to start, and what is open for writing can't be executed.
pub(crate) fn write_program(path: &Path, contents: impl AsRef<[u8]>, mode: u32) {
    let written = path.with_extension("written");
    fs::write(&written, contents).unwrap();
    let copied = Command::new("cp").arg(&written).arg(path).status().unwrap();
    assert!(copied.success(), "{copied}");
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    fs::remove_file(written).unwrap();
}
