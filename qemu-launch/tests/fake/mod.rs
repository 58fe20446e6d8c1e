//! A program that takes QEMU's place: a small shell script, or whatever a test writes.

use std::path::PathBuf;

use qemu_launch::MachineSpec;

/// A folder with a program in it.
pub(crate) struct Fake {
    pub(crate) folder: tempfile::TempDir,
}

impl Fake {
    pub(crate) fn new(script: &str) -> Self {
        let fake = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fake.write(format!("#!/bin/sh\n{script}\n"), 0o755);
        fake
    }

    pub(crate) fn write(&self, contents: impl AsRef<[u8]>, mode: u32) {
        test_support::write_program(&self.program(), contents, mode);
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("qemu-system-arm")
    }

    pub(crate) fn spec(&self) -> MachineSpec {
        MachineSpec::default().qemu(self.program())
    }
}
