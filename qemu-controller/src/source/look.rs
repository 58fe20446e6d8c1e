//! A look at a core that is stopped: its registers and its memory become a report.
//!
//! ```text
//!  registers ─► backtrace ─► which memory is missing? ─► read it ─► backtrace … ─► fault registers
//! ```
//!
//! The ELF file is asked off the runtime's thread; memory is read by whoever has the guest stopped,
//! the debugger or the human monitor.

use std::future::Future;
use std::sync::Arc;

use firmware_info::{
    Architecture, Backtrace, Cause, CortexMFaults, FaultReport, Firmware, Frame, MemoryPieces,
    Registers, armv7_data_abort, armv7_prefetch_abort, armv8_exception, cortex_m_fault,
    exception_name, riscv_trap,
};
use tokio::runtime::Handle;

use super::report::{CoreFault, CoreReport, StackUse};
use crate::cores::CoreName;
use crate::guest::symbols::ElfFile;

/// What is read from the stack at once.
const PIECE: u64 = 1024;

/// How often a backtrace may come into another file's code.
const MOST_FILES: usize = 8;

/// More pieces than any honest stack of a firmware is cut into.
const MOST_PIECES: usize = 64;

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

/// So much of the data is searched for a thread's frame: half a second over the stub.
const MOST_SEARCHED: u64 = 1024 * 1024;

/// A stack pointer further below the end of its stack is not on it at all.
const FAR_BELOW: u64 = 64 * 1024;

/// Who reads the memory of a guest that is stopped.
pub(crate) trait ReadMemory {
    /// So many bytes, if they can be read.
    fn read(&mut self, address: u64, length: usize)
    -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// A core that is stopped.
pub(crate) struct Core {
    pub(crate) name: CoreName,
    pub(crate) registers: Registers,
    /// The registers of the system that tell of a fault, where there are any: mcause, DFSR.
    pub(crate) system: Vec<(&'static str, u64)>,
    /// It is at the first instruction of this fault's handler: nothing has changed since the fault.
    pub(crate) at_fault: Option<&'static str>,
    /// What the code that faulted may have had in its registers, where no frame on the stack has
    /// them; the likeliest first.
    pub(crate) interrupted: Vec<Registers>,
    pub(crate) panicked_in: Option<String>,
}

/// Registers of the system that tell of a fault, by the stub's names and the monitor's.
pub(crate) const SYSTEM: [&str; 7] = ["mcause", "mtval", "mepc", "DFSR", "DFAR", "IFSR", "IFAR"];

impl Core {
    fn system(&self, name: &str) -> Option<u64> {
        let mut known = self.system.iter();
        known
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// The exception of a Cortex-M that it handles, if that is a fault.
    fn fault_exception(&self) -> Option<&'static str> {
        let number = (self.registers.xpsr? & 0x1ff) as u16;
        exception_name(number).filter(|_| matches!(number, 3..=7))
    }
}

/// Looks at a core.
pub(crate) async fn look(
    elf: &Arc<ElfFile>,
    firmware: &Arc<Firmware>,
    core: Core,
    memory: &mut impl ReadMemory,
    runtime: &Handle,
) -> CoreReport {
    let mut core = core;
    if core.at_fault.is_some() && core.registers.psp.is_none() {
        core.registers.psp = process_stack(firmware, &core.registers, memory, runtime).await;
    }
    let mut tried = std::mem::take(&mut core.interrupted);
    let is_interrupted = !tried.is_empty();
    if !is_interrupted {
        tried.push(core.registers.clone());
    }
    let backtrace = best_backtrace(elf, firmware, tried, memory, runtime).await;
    let fault = fault(firmware, &core, &backtrace, is_interrupted, memory).await;
    let culprit = fault.as_ref().and_then(|fault| fault.culprit);
    let frame = backtrace.frames.get(culprit.unwrap_or(0)).cloned();
    let firmware = Arc::clone(firmware);
    let measuring = move || frame.and_then(|frame| stack_use(&firmware, &frame));
    let stack = runtime.spawn_blocking(measuring).await.ok().flatten();
    CoreReport {
        core: core.name,
        panicked_in: core.panicked_in,
        backtrace,
        fault,
        stack,
    }
}

/// Of several registers that a core may have had those whose stack has the call chain: the first
/// that comes to its end, or else the longest.
async fn best_backtrace(
    elf: &Arc<ElfFile>,
    firmware: &Arc<Firmware>,
    tried: Vec<Registers>,
    memory: &mut impl ReadMemory,
    runtime: &Handle,
) -> Backtrace {
    let mut best: Option<Backtrace> = None;
    for registers in tried {
        let found = backtrace(elf, firmware, registers, memory, runtime).await;
        if found.end.is_complete() && found.frames.len() > 1 {
            return found;
        }
        match &best {
            Some(best) if best.frames.len() >= found.frames.len() => {}
            _ => best = Some(found),
        }
    }
    best.expect("one at least was tried")
}

/// Where the process stack pointer is, where the guest's debugger does not tell it. Threads' stacks
/// are arrays of the firmware as a rule, or on its heap.
async fn process_stack(
    firmware: &Arc<Firmware>,
    registers: &Registers,
    memory: &mut impl ReadMemory,
    runtime: &Handle,
) -> Option<u64> {
    // Bits 31 to 24 are those of an EXC_RETURN, bit 2 says that the frame is on PSP.
    let lr = registers.get(14).unwrap_or(0);
    if registers.xpsr.is_none() || lr >> 24 != 0xff || lr & 4 == 0 {
        return None;
    }
    let sections = firmware.sections().iter();
    let data = sections.filter(|section| section.loaded && section.writable);
    let mut left = MOST_SEARCHED;
    for section in data {
        let size = section.size.min(left);
        left -= size;
        if size == 0 {
            continue;
        }
        let size = usize::try_from(size).ok()?;
        let Some(bytes) = memory.read(section.address, size).await else {
            continue;
        };
        let (firmware, registers) = (Arc::clone(firmware), registers.clone());
        let begin = section.address;
        let search = move || firmware.find_process_stack(&registers, begin, &bytes);
        if let Ok(Some(found)) = runtime.spawn_blocking(search).await {
            return Some(found);
        }
    }
    None
}

/// The frames of a core; from a frame in the code of another file on by that one.
pub(crate) async fn backtrace(
    elf: &Arc<ElfFile>,
    firmware: &Arc<Firmware>,
    registers: Registers,
    memory: &mut impl ReadMemory,
    runtime: &Handle,
) -> Backtrace {
    let mut whole = backtrace_in(firmware, registers, memory, runtime).await;
    for _ in 0..MOST_FILES {
        let unknown = whole.frames.iter().position(|frame| frame.symbol.is_none());
        let Some(at) = unknown else { break };
        let (elf, pc) = (Arc::clone(elf), whole.frames[at].pc);
        let finding = runtime.spawn_blocking(move || elf.at(pc).cloned());
        let Ok(Some(other)) = finding.await else {
            break;
        };
        let registers = whole.frames[at].registers.clone();
        let mut rest = backtrace_in(&other, registers, memory, runtime).await;
        rest.frames[0].interrupted_by = whole.frames[at].interrupted_by;
        rest.frames[0].guess = whole.frames[at].guess;
        whole.frames.truncate(at);
        whole.frames.append(&mut rest.frames);
        whole.end = rest.end;
    }
    whole
}

/// The frames of a core by one file, with the memory that they need read piece by piece.
async fn backtrace_in(
    firmware: &Arc<Firmware>,
    registers: Registers,
    memory: &mut impl ReadMemory,
    runtime: &Handle,
) -> Backtrace {
    let mut pieces = MemoryPieces::default();
    let mut left = MOST_PIECES;
    loop {
        let (elf, registers) = (Arc::clone(firmware), registers.clone());
        let asking = move || {
            let backtrace = elf.backtrace(&registers, &mut pieces);
            (backtrace, pieces)
        };
        let asked = runtime.spawn_blocking(asking).await;
        let backtrace;
        // It fails where the runtime is shut down, or where unwinding panicked, which is our bug.
        (backtrace, pieces) = match asked {
            Ok(answer) => answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let missing = pieces.take_missing().filter(|_| left > 0);
        let Some((address, length)) = missing else {
            return backtrace;
        };
        left -= 1;
        let rest = PIECE - address % PIECE;
        let wide = usize::try_from(rest).unwrap_or(length).max(length);
        let bytes = match memory.read(address, wide).await {
            Some(bytes) => Some(bytes),
            None => memory.read(address, length).await,
        };
        match bytes {
            Some(bytes) => pieces.insert(address, bytes),
            None => pieces.insert_unreadable(address, length),
        }
    }
}

async fn fault(
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

/// How much of its stack a frame leaves: of a thread's stack by the array that it is in, of the
/// main one by the firmware's symbols.
fn stack_use(firmware: &Firmware, frame: &Frame) -> Option<StackUse> {
    let pointer = frame.registers.get(match firmware.architecture() {
        Architecture::Arm => 13,
        Architecture::Aarch64 => 31,
        _ => 2,
    })?;
    let bounds = firmware.stack_bounds();
    let main = bounds.and_then(|bounds| {
        let (limit, symbol) = bounds.limit?;
        Some((limit, bounds.top, symbol))
    });
    let main = main.filter(|(limit, top, _)| {
        pointer <= *top && limit.saturating_sub(pointer) <= FAR_BELOW && limit < top
    });
    let is_on_psp = frame.interrupted_by.is_some_and(|entry| entry.on_psp);
    let own = firmware.symbol_at(pointer).map(|found| found.symbol);
    let own = own.filter(|symbol| symbol.size > 0 && (is_on_psp || main.is_none()));
    let (limit, top, limit_symbol) = match own {
        Some(symbol) => (
            symbol.address,
            symbol.address.saturating_add(symbol.size),
            symbol.name,
        ),
        None if is_on_psp => return None,
        None => main?,
    };
    Some(StackUse {
        pointer,
        top,
        limit,
        limit_symbol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
