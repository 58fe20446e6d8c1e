//! Which ELF files each `qemu-system-*` can run: class, byte order and machine.

use std::fmt;

use object::elf::{
    EM_68K, EM_386, EM_AARCH64, EM_ALPHA, EM_ARM, EM_AVR, EM_LOONGARCH, EM_MICROBLAZE, EM_MIPS,
    EM_OPENRISC, EM_PARISC, EM_PPC, EM_PPC64, EM_RISCV, EM_RX, EM_S390, EM_SH, EM_SPARC,
    EM_SPARCV9, EM_TRICORE, EM_X86_64, EM_XTENSA, Machine,
};

/// What an ELF file says that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    pub(crate) machine: Machine,
    /// 32 or 64.
    pub(crate) bits: u8,
    pub(crate) little_endian: bool,
}

const fn of(machine: Machine, bits: u8, little_endian: bool) -> Architecture {
    Architecture {
        machine,
        bits,
        little_endian,
    }
}

/// What the QEMU of this target runs; `None` for a target that is not known, where nothing can be
/// checked.
pub(crate) fn run_by(target: &str) -> Option<&'static [Architecture]> {
    const ARM: Architecture = of(EM_ARM, 32, true);
    const X86: Architecture = of(EM_386, 32, true);
    Some(match target {
        "arm" => &[ARM],
        "aarch64" => const { &[of(EM_AARCH64, 64, true), ARM] },
        "riscv32" => const { &[of(EM_RISCV, 32, true)] },
        "riscv64" => const { &[of(EM_RISCV, 64, true), of(EM_RISCV, 32, true)] },
        "i386" => &[X86],
        "x86_64" => const { &[X86, of(EM_X86_64, 64, true)] },
        "avr" => const { &[of(EM_AVR, 32, true)] },
        "xtensa" => const { &[of(EM_XTENSA, 32, true)] },
        "xtensaeb" => const { &[of(EM_XTENSA, 32, false)] },
        "mips" => const { &[of(EM_MIPS, 32, false)] },
        "mipsel" => const { &[of(EM_MIPS, 32, true)] },
        "mips64" => const { &[of(EM_MIPS, 64, false), of(EM_MIPS, 32, false)] },
        "mips64el" => const { &[of(EM_MIPS, 64, true), of(EM_MIPS, 32, true)] },
        "ppc" => const { &[of(EM_PPC, 32, false)] },
        "ppc64" => {
            const {
                &[
                    of(EM_PPC64, 64, false),
                    of(EM_PPC64, 64, true),
                    of(EM_PPC, 32, false),
                ]
            }
        }
        "m68k" => const { &[of(EM_68K, 32, false)] },
        "or1k" => const { &[of(EM_OPENRISC, 32, false)] },
        "sparc" => const { &[of(EM_SPARC, 32, false)] },
        "sparc64" => const { &[of(EM_SPARCV9, 64, false)] },
        "s390x" => const { &[of(EM_S390, 64, false)] },
        "sh4" => const { &[of(EM_SH, 32, true)] },
        "sh4eb" => const { &[of(EM_SH, 32, false)] },
        "microblaze" => const { &[of(EM_MICROBLAZE, 32, false)] },
        "microblazeel" => const { &[of(EM_MICROBLAZE, 32, true)] },
        "loongarch64" => const { &[of(EM_LOONGARCH, 64, true)] },
        "tricore" => const { &[of(EM_TRICORE, 32, true)] },
        "rx" => const { &[of(EM_RX, 32, true)] },
        "hppa" => const { &[of(EM_PARISC, 32, false)] },
        "alpha" => const { &[of(EM_ALPHA, 64, true)] },
        _ => return None,
    })
}

fn name(machine: Machine) -> Option<&'static str> {
    Some(match machine {
        EM_386 => "x86",
        EM_68K => "m68k",
        EM_AARCH64 => "AArch64",
        EM_ALPHA => "Alpha",
        EM_ARM => "Arm",
        EM_AVR => "AVR",
        EM_LOONGARCH => "LoongArch",
        EM_MICROBLAZE => "MicroBlaze",
        EM_MIPS => "MIPS",
        EM_OPENRISC => "OpenRISC",
        EM_PARISC => "PA-RISC",
        EM_PPC => "PowerPC",
        EM_PPC64 => "PowerPC 64",
        EM_RISCV => "RISC-V",
        EM_RX => "RX",
        EM_S390 => "S/390",
        EM_SH => "SuperH",
        EM_SPARC => "SPARC",
        EM_SPARCV9 => "SPARC V9",
        EM_TRICORE => "TriCore",
        EM_X86_64 => "x86-64",
        EM_XTENSA => "Xtensa",
        _ => return None,
    })
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(self.machine) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "machine {}", self.machine.0)?,
        }
        let order = if self.little_endian { "little" } else { "big" };
        write!(f, ", {} bit, {order}-endian", self.bits)
    }
}
