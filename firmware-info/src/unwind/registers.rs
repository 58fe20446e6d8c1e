//! The registers of a frame, by DWARF's numbers.

use std::collections::BTreeMap;

use crate::image::Architecture;

/// The registers of a core that has stopped, or of a frame: those that are known. Numbered as DWARF
/// numbers them: r0 to r15 of Arm are 0 to 15, x0 to x31 of RISC-V are 0 to 31, x0 to x30 and SP of
/// AArch64 are 0 to 31.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pc: u64,
    values: BTreeMap<u16, u64>,
    /// xPSR of a Cortex-M.
    pub xpsr: Option<u32>,
    /// The main stack pointer of a Cortex-M, where the debugger tells it.
    pub msp: Option<u64>,
    /// The process stack pointer of a Cortex-M, where the debugger tells it. Without it a backtrace
    /// ends at an exception that came from that stack.
    pub psp: Option<u64>,
}

impl Registers {
    /// Nothing is known but the program counter.
    #[must_use]
    pub fn new(pc: u64) -> Self {
        Self {
            pc,
            ..Self::default()
        }
    }

    /// r0 to r15 of a 32-bit Arm core.
    #[must_use]
    pub fn arm(r: [u32; 16]) -> Self {
        let values = (0..)
            .zip(r)
            .map(|(number, value)| (number, value.into()))
            .collect();
        Self {
            pc: u64::from(r[15] & !1),
            values,
            ..Self::default()
        }
    }

    /// The program counter and x0 to x31 of a RISC-V core.
    #[must_use]
    pub fn riscv(pc: u64, x: [u64; 32]) -> Self {
        Self {
            pc,
            values: (0..).zip(x).collect(),
            ..Self::default()
        }
    }

    /// The program counter, the stack pointer, and x0 to x30 of an AArch64 core.
    #[must_use]
    pub fn aarch64(pc: u64, sp: u64, x: [u64; 31]) -> Self {
        let mut registers = Self {
            pc,
            values: (0..).zip(x).collect(),
            ..Self::default()
        };
        registers.set(31, sp);
        registers
    }

    /// The program counter; of Thumb code without bit 0.
    #[must_use]
    pub fn pc(&self) -> u64 {
        self.pc
    }

    /// A register's value, if it is known.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<u64> {
        self.values.get(&number).copied()
    }

    /// Says what a register is.
    pub fn set(&mut self, number: u16, value: u64) {
        self.values.insert(number, value);
    }

    pub(crate) fn forget(&mut self, number: u16) {
        self.values.remove(&number);
    }

    pub(crate) fn set_pc(&mut self, architecture: Architecture, pc: u64) {
        self.pc = pc;
        if architecture == Architecture::Arm {
            self.pc &= !1;
            self.set(15, self.pc);
        }
    }
}

/// The number of the stack pointer.
pub(crate) fn stack_pointer(architecture: Architecture) -> u16 {
    match architecture {
        Architecture::Arm => 13,
        Architecture::Aarch64 => 31,
        _ => 2,
    }
}

/// The number of the register that a call puts the return address in.
pub(crate) fn link(architecture: Architecture) -> u16 {
    match architecture {
        Architecture::Arm => 14,
        Architecture::Aarch64 => 30,
        _ => 1,
    }
}

/// A call may change it, so what it holds within a call says nothing of the caller. (The procedure
/// call standards of Arm, AArch64 and RISC-V.)
pub(crate) fn is_scratch(architecture: Architecture, number: u16) -> bool {
    match architecture {
        Architecture::Arm => matches!(number, 0..=3 | 12),
        Architecture::Aarch64 => matches!(number, 0..=18),
        _ => matches!(number, 5..=7 | 10..=17 | 28..=31),
    }
}

pub(crate) fn name(architecture: Architecture, number: u16) -> String {
    match (architecture, number) {
        (Architecture::Arm, 13) | (Architecture::Aarch64, 31) => "sp".to_owned(),
        (Architecture::Arm, 14) => "lr".to_owned(),
        (Architecture::Arm, 0..=15) => format!("r{number}"),
        (Architecture::Aarch64 | Architecture::Riscv32 | Architecture::Riscv64, 0..=31) => {
            format!("x{number}")
        }
        _ => format!("register {number}"),
    }
}
