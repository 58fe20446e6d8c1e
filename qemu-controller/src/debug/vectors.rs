//! Where a guest's faults go, and which fault it has taken.
//!
//! | guest | where from | which fault |
//! |---|---|---|
//! | Cortex-M | the vector table at VTOR, both banks | IPSR |
//! | A profile, 32 bit | VBAR, slots 1, 3 and 4 | the slot, in the mode of that exception |
//! | A profile, 64 bit | VBAR of each level, the synchronous and SError slots | ESR's class |
//! | RISC-V | mtvec, stvec | mcause, scause |
//!
//! Where the vectors are is followed as it changes: on a Cortex-M by watching VTOR and the table, on
//! the others, whose registers cannot be watched, by breakpoints at the instructions of the firmware
//! that write them.
//!
//! QEMU meets a breakpoint before it fetches the instruction: a handler that is nowhere, or not
//! Thumb, is met before it locks the core up.

use std::collections::BTreeSet;
use std::fmt;

use gdb_remote::client::PointKind;
use gdb_remote::target::Register;

use super::error::DebugError;
use super::questions::Question;
use super::stub::Point;
use super::{Debugger, registers};

/// The vector table's address: of the state that the core is in, and of the non-secure state as the
/// secure one sees it.
const VTORS: [u64; 2] = [0xe000_ed08, 0xe002_ed08];

/// The exceptions of a Cortex-M that are faults, from HardFault to SecureFault.
const CORTEX_M_FAULTS: std::ops::RangeInclusive<u64> = 3..=7;

/// A fault that a guest has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The architecture's number of it: the exception's of a Cortex-M (3 for HardFault), the slot
    /// of the vector table of a 32 bit A profile, the class (EC) in ESR of a 64 bit one, the cause
    /// in mcause of RISC-V.
    pub number: u64,
    /// What the architecture calls it.
    pub name: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Where faults go now.
#[derive(Default)]
pub(super) struct FaultPlaces {
    /// The first instructions of the handlers.
    pub(super) handlers: BTreeSet<u64>,
    /// What is watched, since a write there changes where faults go.
    pub(super) guards: Vec<Point>,
}

/// How an architecture takes faults.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Family {
    CortexM,
    Arm,
    Aarch64,
    RiscV,
}

impl Family {
    /// What tells which fault was taken, beside the pc.
    fn registers_of_faults(self) -> &'static [&'static str] {
        match self {
            Self::CortexM => &["xpsr"],
            Self::Arm => &["cpsr"],
            Self::Aarch64 => &[
                "cpsr", "ESR_EL1", "ESR_EL2", "ESR_EL3", "VBAR", "VBAR_EL1", "VBAR_EL2", "VBAR_EL3",
            ],
            Self::RiscV => &[
                "priv", "mcause", "scause", "mtvec", "stvec", "mtval", "stval",
            ],
        }
    }

    /// The fault that a core has taken which is at the first instruction of a handler, by the values
    /// of these registers and how many bits they have. Before a firmware sets its vectors they are at
    /// 0, and a jump through a null pointer comes there later with what an earlier exception left.
    fn fault(self, pc: u64, register: impl Fn(&str) -> Option<(u64, u32)>) -> Option<Fault> {
        let value = |name: &str| register(name).map(|(value, _)| value);
        match self {
            Self::CortexM => cortex_m_fault(value("xpsr")? & 0x1ff),
            Self::Arm => arm_fault(pc >> 2 & 7, value("cpsr")? & 0x1f),
            Self::Aarch64 => {
                let level = level_of(value("cpsr"));
                let base = value(&format!("VBAR_EL{level}"));
                let base = base.or_else(|| value("VBAR").filter(|_| level == 1));
                if base.is_some_and(|base| pc & !0x7ff != base & !0x7ff) {
                    return None;
                }
                let class = value(&format!("ESR_EL{level}")).unwrap_or(0) >> 26 & 0x3f;
                aarch64_fault(pc & 0x180 == 0x180, class)
            }
            Self::RiscV => {
                let [cause, base, address] = match is_machine_mode(value("priv")) {
                    true => ["mcause", "mtvec", "mtval"],
                    false => ["scause", "stvec", "stval"],
                };
                if value(base).is_some_and(|base| base & !3 != pc) {
                    return None;
                }
                let (cause, bits) = register(cause)?;
                // After a reset all are 0; a misaligned jump has its target.
                if cause == 0 && value(address) == Some(0) {
                    return None;
                }
                let highest = cause.checked_shr(bits.wrapping_sub(1)).unwrap_or(0);
                riscv_fault(cause, highest & 1 == 1)
            }
        }
    }
}

impl Debugger {
    /// By the registers: an executable of QEMU for 64 bit has cores of 32 bit as well.
    pub(super) fn family(&self) -> Option<Family> {
        let has = |name| self.target().register(name).is_some();
        if has("xpsr") {
            Some(Family::CortexM)
        } else if has("cpsr") {
            Some(if has("x30") {
                Family::Aarch64
            } else {
                Family::Arm
            })
        } else {
            self.attachment
                .arch
                .starts_with("riscv")
                .then_some(Family::RiscV)
        }
    }

    /// Whether bit 0 of an address of code says Thumb.
    pub(super) fn has_thumb(&self) -> bool {
        matches!(self.family(), Some(Family::CortexM | Family::Arm))
    }

    /// The first instructions of the handlers of faults, as they are now; none where none are known.
    #[cfg(feature = "tests")]
    pub(crate) async fn fault_handlers(&mut self) -> Vec<u64> {
        let Ok(_verb) = self.begin("look for handlers of faults").await else {
            return Vec::new();
        };
        let places = self.fault_places().await.unwrap_or_default();
        places.handlers.into_iter().collect()
    }

    /// The fault that a guest has just taken, at the first instruction of a handler.
    #[cfg(feature = "tests")]
    pub(crate) async fn fault_taken(&mut self) -> Option<Fault> {
        let _verb = self.begin("look at a fault").await.ok()?;
        self.fault().await.ok().flatten()
    }

    /// Reads where the faults of all cores go. The guest is stopped, and the turn is the caller's.
    pub(super) async fn fault_places(&mut self) -> Result<FaultPlaces, DebugError> {
        if self.family().is_none() {
            return Err(DebugError::NoFaults(self.attachment.arch.clone()));
        }
        let mut places = FaultPlaces::default();
        for core in self.tour() {
            self.visit(core).await?;
            self.fault_places_of_core(&mut places).await?;
        }
        self.attachment.select_back(self.session.deadline).await?;
        Ok(places)
    }

    /// Adds those of the current core.
    async fn fault_places_of_core(&mut self, places: &mut FaultPlaces) -> Result<(), DebugError> {
        let Some(family) = self.family() else {
            return Ok(());
        };
        if family != Family::CortexM {
            let sites = self.code_sites().await;
            let guards = sites
                .base_writes
                .iter()
                .map(|&at| (PointKind::Software, at, 2));
            places.guards.extend(guards);
        }
        match family {
            Family::CortexM => self.vector_tables(places).await?,
            Family::Arm => {
                let base = self.system_register("VBAR").await?.unwrap_or(0);
                let high = self.system_register("SCTLR").await?.unwrap_or(0) >> 13 & 1 == 1;
                let base = if high { 0xffff_0000 } else { base };
                places
                    .handlers
                    .extend(ARM_SLOTS.map(|(slot, ..)| base.wrapping_add(4 * slot)));
            }
            Family::Aarch64 => {
                for level in ["VBAR", "VBAR_EL1", "VBAR_EL2", "VBAR_EL3"] {
                    if let Some(base) = self.system_register(level).await? {
                        // Synchronous, and SError; from the same level and from lower ones.
                        let slots = (0..0x800).step_by(0x80);
                        let faults = slots.filter(|slot| matches!(slot & 0x180, 0 | 0x180));
                        places
                            .handlers
                            .extend(faults.map(|slot| base.wrapping_add(slot)));
                    }
                }
            }
            Family::RiscV => {
                for name in ["mtvec", "stvec"] {
                    if let Some(base) = self.system_register(name).await? {
                        // The low bits say whether interrupts have slots of their own.
                        places.handlers.insert(base & !3);
                    }
                }
            }
        }
        Ok(())
    }

    /// Which fault the guest has just taken, at the first instruction of a handler; `None` if it
    /// came here otherwise.
    pub(super) async fn fault(&self) -> Result<Option<Fault>, DebugError> {
        Ok(self.pc_and_fault().await?.1)
    }

    /// Where the guest has stopped, and which fault it has taken if it is at the first instruction of
    /// a handler. All is asked at once: where interrupts have the same handler, each is such a stop.
    pub(super) async fn pc_and_fault(&self) -> Result<(u64, Option<Fault>), DebugError> {
        let names = self.family().map_or(&[][..], Family::registers_of_faults);
        let known = names.iter().filter_map(|name| self.target().register(name));
        let registers: Vec<&Register> = known.collect();
        let mut questions = vec![self.pc_question()?];
        questions.extend(registers.iter().map(|one| Question::Register(one.number)));
        let mut numbers = Vec::new();
        for (question, bytes) in questions.iter().zip(self.ask_all(&questions).await?) {
            numbers.push(self.number(*question, bytes)?);
        }
        let pc = numbers[0];
        let value = |name: &str| {
            let mut known = registers.iter().zip(&numbers[1..]);
            let (register, value) = known.find(|(register, _)| register.name == name)?;
            Some((*value, register.bits))
        };
        let fault = self.family().and_then(|family| family.fault(pc, value));
        Ok((pc, fault))
    }

    /// The current core's tables, of both states.
    async fn vector_tables(&self, places: &mut FaultPlaces) -> Result<(), DebugError> {
        for vtor in VTORS {
            // A core without the other bank has nothing there, or zero.
            let Ok(base) = self.memory(vtor, 4).await else {
                continue;
            };
            let base = registers::number(&base, false).unwrap_or(0);
            if vtor != VTORS[0] && base == 0 {
                continue;
            }
            let (first, last) = (*CORTEX_M_FAULTS.start(), *CORTEX_M_FAULTS.end());
            let (from, size) = (base + 4 * first, 4 * (last - first + 1));
            places.guards.push((PointKind::Write, vtor, 4));
            // A table that is nowhere locks the core up at any fault.
            let Ok(table) = self.memory(from, size as usize).await else {
                continue;
            };
            places.guards.push((PointKind::Write, from, size as u32));
            let words = table.chunks_exact(4);
            let vectors = words.filter_map(|word| registers::number(word, false));
            places.handlers.extend(vectors.map(|vector| vector & !1));
        }
        Ok(())
    }

    /// A register that this core may have.
    pub(super) async fn system_register(&self, name: &str) -> Result<Option<u64>, DebugError> {
        match self.target().register(name) {
            Some(register) => self.value(&register.clone()).await.map(Some),
            None => Ok(None),
        }
    }
}

/// By the register `priv` of a RISC-V core; else it is supervisor mode.
pub(super) fn is_machine_mode(mode: Option<u64>) -> bool {
    mode.is_none_or(|mode| mode & 3 == 3)
}

/// The exception level, by the cpsr of a 64 bit A profile.
pub(super) fn level_of(state: Option<u64>) -> u64 {
    (state.unwrap_or(0) >> 2 & 3).max(1)
}

fn cortex_m_fault(number: u64) -> Option<Fault> {
    let known = CORTEX_M_FAULTS.contains(&number).then_some(number)?;
    let name = firmware_info::exception_name(known as u16)?;
    Some(Fault { number, name })
}

/// The name of a fault, where somebody wrote it down as one.
#[cfg(feature = "bundle")]
pub(crate) fn fault_called(name: &str) -> Option<&'static str> {
    let numbered = (0..64).flat_map(|number| {
        [
            cortex_m_fault(number),
            aarch64_fault(false, number),
            riscv_fault(number, false),
        ]
    });
    let numbered = numbered.flatten().map(|fault| fault.name);
    let slots = ARM_SLOTS.iter().map(|(_, _, name)| *name);
    numbered
        .chain(slots)
        .chain(["SError"])
        .find(|known| *known == name)
}

/// Slot of the table, mode of the processor, name.
const ARM_SLOTS: [(u64, u64, &str); 3] = [
    (1, 0b11011, "undefined instruction"),
    (3, 0b10111, "prefetch abort"),
    (4, 0b10111, "data abort"),
];

fn arm_fault(slot: u64, mode: u64) -> Option<Fault> {
    let known = ARM_SLOTS
        .iter()
        .find(|(known, in_mode, _)| *known == slot && *in_mode == mode);
    let &(number, _, name) = known?;
    Some(Fault { number, name })
}

fn aarch64_fault(is_serror: bool, class: u64) -> Option<Fault> {
    let name = match class {
        _ if is_serror => "SError",
        0x00 => "undefined instruction",
        0x07 => "FP or SIMD instruction that is trapped",
        0x0d => "branch target exception",
        0x0e => "illegal execution state",
        0x18 => "system register that is trapped",
        0x20 | 0x21 => "instruction abort",
        0x22 => "misaligned PC",
        0x24 | 0x25 => "data abort",
        0x26 => "misaligned SP",
        // What a compiler's trap and an abort of Rust are.
        0x3c => "breakpoint instruction",
        _ => return None,
    };
    Some(Fault {
        number: class,
        name,
    })
}

fn riscv_fault(cause: u64, is_interrupt: bool) -> Option<Fault> {
    let is_fault = !is_interrupt && matches!(cause, 0..=7 | 12 | 13 | 15);
    let words = is_fault.then(|| firmware_info::riscv_trap(cause, 0, 64))?;
    Some(Fault {
        number: cause,
        name: words.causes.first()?.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each by the pc, and the registers that say it with their values and widths.
    #[test]
    fn faults_by_the_registers_of_each_family() {
        type Known = &'static [(&'static str, u64, u32)];
        const SIGN_EXTENDED: u64 = 0xffff_ffff_8000_0007;
        type Row = (Family, u64, Known, Option<(u64, &'static str)>);
        let rows: &[Row] = &[
            (
                Family::CortexM,
                0,
                &[("xpsr", 0x2100_0003, 32)],
                Some((3, "HardFault")),
            ),
            (
                Family::CortexM,
                0,
                &[("xpsr", 0x4100_0007, 32)],
                Some((7, "SecureFault")),
            ),
            // SysTick, an interrupt, and thread mode.
            (Family::CortexM, 0, &[("xpsr", 0x2100_000f, 32)], None),
            (Family::CortexM, 0, &[("xpsr", 0x2100_0103, 32)], None),
            (Family::CortexM, 0, &[("xpsr", 0x2100_0000, 32)], None),
            (Family::CortexM, 0, &[], None),
            (
                Family::Arm,
                0x1_0004,
                &[("cpsr", 0x6000_01db, 32)],
                Some((1, "undefined instruction")),
            ),
            (
                Family::Arm,
                0xffff_000c,
                &[("cpsr", 0x1d7, 32)],
                Some((3, "prefetch abort")),
            ),
            (
                Family::Arm,
                0x10,
                &[("cpsr", 0x1d7, 32)],
                Some((4, "data abort")),
            ),
            // An svc, and what came to a slot by a jump.
            (Family::Arm, 0x08, &[("cpsr", 0x1d3, 32)], None),
            (Family::Arm, 0x10, &[("cpsr", 0x1d3, 32)], None),
            (Family::Arm, 0x10, &[], None),
            (
                Family::Aarch64,
                0x200,
                &[
                    ("cpsr", 0x3c5, 32),
                    ("ESR_EL1", 0x9600_0010, 64),
                    ("ESR_EL2", 0, 64),
                ],
                Some((0x25, "data abort")),
            ),
            // A register of 32 bit, and level 3; what another level has is of before.
            (
                Family::Aarch64,
                0x400,
                &[
                    ("cpsr", 0x3cd, 32),
                    ("ESR_EL1", 0x5600_0000, 64),
                    ("ESR_EL3", 0x8200_0010, 32),
                ],
                Some((0x20, "instruction abort")),
            ),
            (
                Family::Aarch64,
                0x380,
                &[("cpsr", 0x3c5, 32), ("ESR_EL1", 0xbf00_0002, 64)],
                Some((0x2f, "SError")),
            ),
            // svc
            (
                Family::Aarch64,
                0x200,
                &[("cpsr", 0x3c5, 32), ("ESR_EL1", 0x5600_0000, 64)],
                None,
            ),
            (
                Family::Aarch64,
                0x200,
                &[("cpsr", 0x3c5, 32), ("ESR_EL1", 0xf200_0000, 64)],
                Some((0x3c, "breakpoint instruction")),
            ),
            // Where a null pointer leads to, with vectors that are elsewhere, and with those of EL1
            // there.
            (
                Family::Aarch64,
                0,
                &[("cpsr", 0x3c5, 32), ("VBAR_EL1", 0x4008_0800, 64)],
                None,
            ),
            (
                Family::Aarch64,
                0,
                &[("cpsr", 0x3c5, 32), ("VBAR", 0x4008_0800, 64)],
                None,
            ),
            (
                Family::Aarch64,
                0x200,
                &[
                    ("cpsr", 0x3c5, 32),
                    ("VBAR", 0, 64),
                    ("VBAR_EL2", 0x800, 64),
                ],
                Some((0, "undefined instruction")),
            ),
            (
                Family::RiscV,
                0,
                &[("priv", 3, 32), ("mcause", 5, 32)],
                Some((5, "load access fault")),
            ),
            (
                Family::RiscV,
                0,
                &[("mcause", 2, 64)],
                Some((2, "illegal instruction")),
            ),
            (
                Family::RiscV,
                0,
                &[
                    ("priv", 1, 64),
                    ("mcause", 1 << 63 | 7, 64),
                    ("scause", 13, 64),
                ],
                Some((13, "load page fault")),
            ),
            // Interrupts; of a 32-bit core also where the stub has 64 bit or extends the sign.
            (Family::RiscV, 0, &[("mcause", 0x8000_0007, 32)], None),
            (Family::RiscV, 0, &[("mcause", 0x8000_0007, 64)], None),
            (Family::RiscV, 0, &[("mcause", SIGN_EXTENDED, 32)], None),
            (Family::RiscV, 0, &[("mcause", SIGN_EXTENDED, 64)], None),
            (Family::RiscV, 0, &[("mcause", 1 << 63 | 5, 64)], None),
            (Family::RiscV, 0, &[("mcause", 5 | 1 << 31, 32)], None),
            (
                Family::RiscV,
                0,
                &[("mcause", 3, 64)],
                Some((3, "breakpoint")),
            ),
            // ecall, for an operating system.
            (Family::RiscV, 0, &[("mcause", 11, 64)], None),
            (
                Family::RiscV,
                0,
                &[("priv", 1, 64), ("mcause", 5, 64)],
                None,
            ),
            // The same with a null pointer, after a reset and later.
            (
                Family::RiscV,
                0,
                &[("mcause", 0, 64), ("mtvec", 0, 64), ("mtval", 0, 64)],
                None,
            ),
            (
                Family::RiscV,
                0,
                &[("mcause", 5, 64), ("mtvec", 0x8000_0100, 64)],
                None,
            ),
            (
                Family::RiscV,
                0x100,
                &[("mcause", 0, 64), ("mtvec", 0x101, 64), ("mtval", 2, 64)],
                Some((0, "instruction address misaligned")),
            ),
            // Widths that no register has.
            (
                Family::RiscV,
                0,
                &[("mcause", 5, 0)],
                Some((5, "load access fault")),
            ),
            (
                Family::RiscV,
                0,
                &[("mcause", 5, 512)],
                Some((5, "load access fault")),
            ),
        ];
        for &(family, pc, known, expected) in rows {
            let register = |name: &str| {
                let mut known = known.iter().filter(|(known, ..)| *known == name);
                known.next().map(|&(_, value, bits)| (value, bits))
            };
            let fault = family.fault(pc, register);
            let found = fault.as_ref().map(|fault| (fault.number, fault.name));
            assert_eq!(found, expected, "at {pc:#x} with {known:x?}");
        }
    }
}
