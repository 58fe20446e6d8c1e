//! The QEMU target that a program emulates, and what differs by it.

use std::path::Path;

use crate::discover::install::target_of;
use crate::spec::MachineSpec;

/// The target in the name `qemu-system-TARGET`, where the program has such a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The program's name: that of the one that was found, or of the one that was looked for, where
    /// an environment variable has named a program of another name.
    program: String,
}

impl Target {
    pub(crate) fn of(spec: &MachineSpec, program: &Path) -> Self {
        let found = file_name(program);
        let program = match target_of(&found) {
            Some(_) => found,
            None => file_name(&spec.program),
        };
        Self { program }
    }

    /// By the program's name alone.
    pub(crate) fn named(program: &Path) -> Self {
        Self {
            program: file_name(program),
        }
    }

    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// The option that takes the firmware: AVR boards ignore `-kernel` without a word.
    pub(crate) fn firmware_option(&self) -> &'static str {
        match target_of(&self.program) {
            Some("avr") => "-bios",
            _ => "-kernel",
        }
    }

    /// Whether this QEMU knows the default board; one whose target is not known may.
    pub(crate) fn has_default_board(&self) -> bool {
        matches!(target_of(&self.program), None | Some("arm" | "aarch64"))
    }

    /// Whether its boards start a firmware of QEMU's own below the one that is named.
    pub(crate) fn has_own_bios(&self) -> bool {
        matches!(target_of(&self.program), Some("riscv32" | "riscv64"))
    }

    /// Whether its boards load `-bios` byte for byte, an ELF file too; seen on 7.2 and 10.0.
    pub(crate) fn has_raw_bios(&self) -> bool {
        matches!(
            target_of(&self.program),
            Some(
                "arm"
                    | "aarch64"
                    | "i386"
                    | "x86_64"
                    | "m68k"
                    | "mips"
                    | "mipsel"
                    | "mips64"
                    | "mips64el"
            )
        )
    }

    /// Whether QEMU takes `-semihosting-config`; seen on 7.2 and 10.0.
    pub(crate) fn has_semihosting(&self) -> bool {
        !matches!(
            target_of(&self.program),
            Some(
                "avr"
                    | "x86_64"
                    | "i386"
                    | "sh4"
                    | "sh4eb"
                    | "rx"
                    | "tricore"
                    | "or1k"
                    | "microblaze"
                    | "microblazeel"
                    | "hppa"
                    | "alpha"
                    | "s390x"
                    | "loongarch64"
            )
        )
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
