//! The fault that a core took: its registers in words, and the instruction.

use firmware_info::{
    Architecture, Backtrace, Cause, CortexMFaults, FaultReport, Firmware, Frame, armv7_data_abort,
    armv7_prefetch_abort, armv8_exception, cortex_m_fault, riscv_trap,
};

use super::look::{Core, ReadMemory};
use super::report::CoreFault;

/// The fault registers of a Cortex-M, from CCR to BFAR.
const FAULT_REGISTERS: (u64, usize) = (0xe000_ed14, 0x28);
/// SFSR and SFAR.
const SECURE_FAULT_REGISTERS: (u64, usize) = (0xe000_ede4, 8);
/// The register that says which core it is …
const CPUID: u64 = 0xe000_ed00;
/// … the part numbers of those of v8-M's main line, which have a Security Extension …
const V8M: [u32; 4] = [0xd21, 0xd22, 0xd23, 0xd24];
/// … and those of v6-M and v8-M's base line, which have no fault status registers.
const WITHOUT_STATUS: [u32; 4] = [0xc20, 0xc21, 0xc60, 0xd20];

/// The fault that a core is in the handler of; none of one that is in none.
pub(super) async fn fault(
    firmware: &Firmware,
    core: &Core,
    backtrace: &Backtrace,
    is_interrupted: bool,
    memory: &mut impl ReadMemory,
) -> Option<CoreFault> {
    let exception = core.fault_exception().or(core.at_fault)?;
    let is_cortex_m = core.registers.xpsr.is_some();
    let mut words = match core.at_fault {
        _ if is_cortex_m => cortex_m_words(memory).await.unwrap_or_default(),
        Some(fault) => words(firmware.architecture(), core, fault)?,
        None => return None,
    };
    let mut frames = backtrace.frames.iter();
    let is_faulting = |frame: &Frame| frame.interrupted_by.is_some();
    let culprit = match is_interrupted {
        true => Some(0),
        false => frames.position(is_faulting),
    };
    let pc = culprit.map(|at| backtrace.frames[at].pc);
    let instruction = match pc {
        Some(pc) => memory.read(pc, 4).await,
        None => None,
    };
    let symbol = culprit.and_then(|at| backtrace.frames[at].symbol.as_ref());
    let is_thumb = match symbol {
        _ if is_cortex_m => true,
        Some(found) => found.symbol.thumb,
        // No symbol says it; an Arm instruction is aligned.
        None => pc.is_some_and(|pc| !pc.is_multiple_of(4)),
    };
    let instruction =
        instruction.and_then(|bytes| instruction_text(firmware.architecture(), is_thumb, &bytes));
    if words.causes.is_empty() {
        words.causes.push(match is_cortex_m {
            true => cause_by_instruction(instruction.as_deref()),
            false => Cause::new(
                "exception",
                exception,
                "an instruction that the core does not have, or that this mode may not use",
            ),
        });
    }
    Some(CoreFault {
        exception,
        words,
        culprit,
        instruction,
    })
}

/// Of a core whose registers tell of no fault. QEMU has no debug events, so a breakpoint
/// instruction is a HardFault without a bit of its own.
fn cause_by_instruction(instruction: Option<&str>) -> Cause {
    let (name, meaning) = match instruction {
        Some("beab") => ("BKPT 0xab", "a semihosting call, and semihosting is off"),
        Some(digits) if digits.len() == 4 && digits.starts_with("be") => {
            ("BKPT", "a breakpoint instruction that nobody takes")
        }
        _ => ("no status", "a fault that no register says more of"),
    };
    Cause::new("HardFault", name, meaning)
}

async fn cortex_m_words(memory: &mut impl ReadMemory) -> Option<FaultReport> {
    let part = word(&memory.read(CPUID, 4).await?, 0)? >> 4 & 0xfff;
    if WITHOUT_STATUS.contains(&part) {
        let mut words = FaultReport::default();
        words
            .notes
            .push("this core has no fault status registers".to_owned());
        return Some(words);
    }
    let (address, length) = FAULT_REGISTERS;
    let bytes = memory.read(address, length).await?;
    let at = |register: u64| word(&bytes, usize::try_from(register - address).ok()?);
    let secure = match V8M.contains(&part) {
        true => {
            memory
                .read(SECURE_FAULT_REGISTERS.0, SECURE_FAULT_REGISTERS.1)
                .await
        }
        false => None,
    };
    let secure = |offset| word(secure.as_deref()?, offset);
    Some(cortex_m_fault(&CortexMFaults {
        ccr: at(0xe000_ed14)?,
        shcsr: at(0xe000_ed24)?,
        cfsr: at(0xe000_ed28)?,
        hfsr: at(0xe000_ed2c)?,
        mmfar: at(0xe000_ed34)?,
        bfar: at(0xe000_ed38)?,
        sfsr: secure(0),
        sfar: secure(4),
    }))
}

fn words(architecture: Architecture, core: &Core, fault: &str) -> Option<FaultReport> {
    let system = |name| core.system(name);
    let word = |name| system(name).map(|value| value as u32);
    Some(match (architecture, fault) {
        (Architecture::Riscv32, _) => riscv(core, 32)?,
        (Architecture::Riscv64, _) => riscv(core, 64)?,
        (Architecture::Aarch64, _) => armv8_exception(system("ESR")?, system("FAR")?),
        (Architecture::Arm, "data abort") => armv7_data_abort(word("DFSR")?, word("DFAR")?),
        (Architecture::Arm, "prefetch abort") => armv7_prefetch_abort(word("IFSR")?, word("IFAR")?),
        _ => FaultReport::default(),
    })
}

/// Of a trap to supervisor mode by its own registers.
fn riscv(core: &Core, bits: u32) -> Option<FaultReport> {
    let Some((cause, value)) = core.system("scause").zip(core.system("stval")) else {
        return Some(riscv_trap(
            core.system("mcause")?,
            core.system("mtval")?,
            bits,
        ));
    };
    let mut report = riscv_trap(cause, value, bits);
    for (name, _) in &mut report.registers {
        *name = if *name == "mcause" { "scause" } else { "stval" };
    }
    Some(report)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// An instruction as a disassembler shows it: Thumb's by halfwords, others as one word.
fn instruction_text(architecture: Architecture, is_thumb: bool, bytes: &[u8]) -> Option<String> {
    let first = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
    let second = u16::from_le_bytes(bytes.get(2..4)?.try_into().ok()?);
    let is_wide = match architecture {
        Architecture::Arm if is_thumb => first >> 11 >= 0b11101,
        Architecture::Riscv32 | Architecture::Riscv64 => first & 3 == 3,
        _ => true,
    };
    Some(match architecture {
        _ if !is_wide => format!("{first:04x}"),
        Architecture::Arm if is_thumb => format!("{first:04x} {second:04x}"),
        _ => format!("{second:04x}{first:04x}"),
    })
}

#[cfg(test)]
mod tests {
    use firmware_info::{MemoryPieces, Registers};

    use super::*;
    use crate::cores::CoreName;

    /// Words at addresses of a Cortex-M, and nothing else.
    struct Words(Vec<(u64, u32)>);

    impl ReadMemory for Words {
        async fn read(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
            let mut bytes = Vec::new();
            for at in (address..).step_by(4).take(length / 4) {
                let mut known = self.0.iter();
                let (_, word) = known.find(|(known, _)| *known == at)?;
                bytes.extend(word.to_le_bytes());
            }
            Some(bytes)
        }
    }

    /// What is said of a core that is in the handler of a fault, by the registers that tell of it.
    async fn said(
        image: &str,
        registers: Registers,
        at_fault: Option<&'static str>,
        system: &[(&'static str, u64)],
        memory: Vec<(u64, u32)>,
    ) -> Option<String> {
        let path = format!("../firmware-info/fixtures/{image}.elf");
        let firmware = Firmware::open(path).unwrap();
        let backtrace = firmware.backtrace(&registers, &mut MemoryPieces::default());
        let core = Core {
            name: CoreName::default(),
            registers,
            system: system.to_vec(),
            at_fault,
            interrupted: Vec::new(),
            panicked_in: None,
        };
        let found = fault(&firmware, &core, &backtrace, true, &mut Words(memory)).await?;
        Some(format!("{}: {}", found.exception, found.words))
    }

    #[tokio::test]
    async fn faults_by_registers_of_any_width() {
        const READ: &str = "a read that is forbidden or that nothing answered (load access fault)";
        const NOTHING: &str = "an access that nothing answered (synchronous external)";
        const HIGH: u64 = 0xffff_ffff_0000_0000;
        type Row = (
            &'static str,
            &'static str,
            &'static [(&'static str, u64)],
            String,
        );
        let rows: [Row; 13] = [
            ("riscv32", "trap", &[("mcause", 5), ("mtval", 0)], format!("trap: exception: {READ} at 0x00000000")),
            // A 32-bit core's, as a stub for 64 bit has it.
            ("riscv32", "trap", &[("mcause", HIGH | 5), ("mtval", 8)], format!("trap: exception: {READ} at 0x00000008")),
            ("riscv32", "trap", &[("mcause", HIGH | 1 << 31 | 7), ("mtval", 0)], "trap: interrupt: a timer interrupt (timer)".to_owned()),
            ("riscv64", "trap", &[("mcause", 5), ("mtval", 1 << 40)], format!("trap: exception: {READ} at 0x10000000000")),
            // Of supervisor mode its own, where the machine's are known as well.
            (
                "riscv64",
                "trap",
                &[("mcause", 2), ("mtval", 0), ("scause", 13), ("stval", 0xffff_ffff_8000_0000)],
                "trap: exception: a read that the page tables do not allow (load page fault) at 0xffffffff80000000".to_owned(),
            ),
            ("riscv64", "trap", &[("mcause", 5)], String::new()),
            ("riscv64", "trap", &[("scause", 5)], String::new()),
            ("arm", "data abort", &[("DFSR", HIGH | 8), ("DFAR", HIGH | 0x10)], format!("data abort: data abort: {NOTHING} at 0x00000010")),
            ("arm", "prefetch abort", &[("IFSR", 8), ("IFAR", 0xffff_0000)], format!("prefetch abort: prefetch abort: {NOTHING} at 0xffff0000")),
            (
                "arm",
                "undefined instruction",
                &[],
                "undefined instruction: exception: an instruction that the core does not have, or that this mode may not use (undefined instruction)".to_owned(),
            ),
            ("arm", "data abort", &[("DFSR", 8)], String::new()),
            ("aarch64", "data abort", &[("ESR", 0x9600_0010), ("FAR", 1 << 39)], format!("data abort: data abort: {NOTHING} at 0x8000000000")),
            ("aarch64", "data abort", &[("FAR", 0)], String::new()),
        ];
        for (image, at_fault, system, expected) in rows {
            let registers = match image {
                "arm" => Registers::arm([0; 16]),
                "aarch64" => Registers::aarch64(0, 0, [0; 31]),
                _ => Registers::riscv(0, [0; 32]),
            };
            let image = format!("profiles/{image}");
            let said = said(&image, registers, Some(at_fault), system, Vec::new()).await;
            assert_eq!(said.unwrap_or_default(), expected, "{image} {system:x?}");
        }
    }

    /// CPUID, CFSR, HFSR and BFAR of a Cortex-M, whose other registers from CCR on are zero.
    fn system_control([cpuid, cfsr, hfsr, bfar]: [u32; 4]) -> Vec<(u64, u32)> {
        let mut words = vec![(CPUID, cpuid)];
        words.extend((FAULT_REGISTERS.0..).step_by(4).take(10).map(|at| {
            let value = match at {
                0xe000_ed28 => cfsr,
                0xe000_ed2c => hfsr,
                0xe000_ed38 => bfar,
                _ => 0,
            };
            (at, value)
        }));
        words
    }

    #[tokio::test]
    async fn faults_of_a_cortex_m_by_what_its_memory_has() {
        const M3: u32 = 0x410f_c231;
        const M33: u32 = 0x411f_d210;
        const UNKNOWN: &str =
            "HardFault: HardFault: a fault that no register says more of (no status)";
        let m0 = || vec![(CPUID, 0x410c_c200)];
        let secure = [(0xe000_ede4, 8), (0xe000_ede8, 0)];
        let rows = [
            (
                3,
                system_control([M3, 0x8200, 1 << 30, 0x6000_0010]),
                "HardFault: BusFault: a data access that nothing answered (PRECISERR) at 0x60000010; escalated",
            ),
            (
                6,
                system_control([M3, 1 << 25, 0, 0]),
                "UsageFault: UsageFault: a division by zero (DIVBYZERO)",
            ),
            (3, system_control([M3, 0, 0, 0]), UNKNOWN),
            // An Armv8-M has SFSR; where that cannot be read the rest is told.
            (
                7,
                [system_control([M33, 0, 0, 0]), secure.to_vec()].concat(),
                "SecureFault: SecureFault: ",
            ),
            (
                6,
                system_control([M33, 1 << 16, 0, 0]),
                "UsageFault: UsageFault: an undefined instruction (UNDEFINSTR)",
            ),
            // An Armv6-M has no such registers; and one whose memory cannot be read.
            (3, m0(), UNKNOWN),
            (3, Vec::new(), UNKNOWN),
            // SysTick.
            (15, m0(), ""),
        ];
        for (exception, memory, expected) in rows {
            let mut registers = Registers::arm([0; 16]);
            registers.xpsr = Some(0x2100_0000 | exception);
            let said = said("faults/faults", registers, None, &[], memory).await;
            let said = said.unwrap_or_default();
            assert!(said.starts_with(expected), "{exception}: {said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{exception}: {said}");
        }
    }

    #[test]
    fn instructions_are_shown_as_a_disassembler_does() {
        let thumb = |bytes: &[u8]| instruction_text(Architecture::Arm, true, bytes);
        assert_eq!(
            thumb(&[0xb0, 0xfb, 0xf1, 0xf0]).as_deref(),
            Some("fbb0 f0f1")
        );
        assert_eq!(thumb(&[0x00, 0x60, 0xf1, 0xf0]).as_deref(), Some("6000"));
        let arm = instruction_text(Architecture::Arm, false, &[0, 0x20, 0x93, 0xe5]);
        assert_eq!(arm.as_deref(), Some("e5932000"));
        let riscv = |bytes: &[u8]| instruction_text(Architecture::Riscv32, true, bytes);
        assert_eq!(
            riscv(&[0x23, 0x20, 0x05, 0x00]).as_deref(),
            Some("00052023")
        );
        assert_eq!(thumb(&[0]), None);
    }
}
