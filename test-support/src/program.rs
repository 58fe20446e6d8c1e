//! Writing a program that a test then executes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Copied to its place by another program: a descriptor that this one writes it by lives on in a
/// child that another test is about to start, and what is open for writing can't be executed.
pub fn write_program(path: &Path, contents: impl AsRef<[u8]>, mode: u32) {
    let written = path.with_extension("written");
    fs::write(&written, contents).expect("room for a small file");
    let copied = Command::new("cp")
        .arg(&written)
        .arg(path)
        .status()
        .expect("the program cp");
    assert!(copied.success(), "{copied}");
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a file of ours");
    fs::remove_file(written).expect("a file of ours");
}
