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
    Architecture, Backtrace, Firmware, Frame, MemoryPieces, Registers, exception_name,
};
use tokio::runtime::Handle;

use super::fault::fault;
use super::report::{CoreReport, StackUse};
use crate::client::transaction::resume_panic;
use crate::cores::CoreName;
use crate::guest::symbols::ElfFile;

/// What is read from the stack at once.
const PIECE: u64 = 1024;

/// How often a backtrace may come into another file's code.
const MOST_FILES: usize = 8;

/// More pieces than any honest stack of a firmware is cut into.
const MOST_PIECES: usize = 64;

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
    pub(super) fn system(&self, name: &str) -> Option<u64> {
        let mut known = self.system.iter();
        known
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// The exception of a Cortex-M that it handles, if that is a fault.
    pub(super) fn fault_exception(&self) -> Option<&'static str> {
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
    // Whose frame could not be pushed.
    let is_thread = fault.is_some() && culprit.is_none() && has_frame_on_psp(&core.registers);
    let psp = core.registers.psp;
    let firmware = Arc::clone(firmware);
    let measuring = move || match is_thread {
        true => stack_use(&firmware, psp?, true),
        false => stack_use_of(&firmware, &frame?),
    };
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

/// Whether a core has just begun an exception's handler that interrupted a thread.
fn has_frame_on_psp(registers: &Registers) -> bool {
    // Bits 31 to 24 are those of an EXC_RETURN, bit 2 says that the frame is on PSP.
    let lr = registers.get(14).unwrap_or(0);
    registers.xpsr.is_some() && lr >> 24 == 0xff && lr & 4 != 0
}

/// Where the process stack pointer is, where the guest's debugger does not tell it. Threads' stacks
/// are arrays of the firmware as a rule, or on its heap.
async fn process_stack(
    firmware: &Arc<Firmware>,
    registers: &Registers,
    memory: &mut impl ReadMemory,
    runtime: &Handle,
) -> Option<u64> {
    if !has_frame_on_psp(registers) {
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
        let (elf, asked) = (Arc::clone(firmware), registers.clone());
        let asking = move || {
            let backtrace = elf.backtrace(&asked, &mut pieces);
            (backtrace, pieces)
        };
        let backtrace;
        (backtrace, pieces) = match runtime.spawn_blocking(asking).await {
            Ok(answer) => answer,
            Err(error) => {
                resume_panic(error);
                // Nobody reads the guest's memory any more.
                return firmware.backtrace(&registers, &mut MemoryPieces::default());
            }
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

fn stack_use_of(firmware: &Firmware, frame: &Frame) -> Option<StackUse> {
    let pointer = frame.registers.get(match firmware.architecture() {
        Architecture::Arm => 13,
        Architecture::Aarch64 => 31,
        _ => 2,
    })?;
    let is_on_psp = frame.interrupted_by.is_some_and(|entry| entry.on_psp);
    stack_use(firmware, pointer, is_on_psp)
}

/// How much of its stack a stack pointer leaves: of a thread's stack by the array that it is in, of
/// the main one by the firmware's symbols.
fn stack_use(firmware: &Firmware, pointer: u64, is_on_psp: bool) -> Option<StackUse> {
    let bounds = firmware.stack_bounds();
    let main = bounds.and_then(|bounds| {
        let (limit, symbol) = bounds.limit?;
        Some((limit, bounds.top, symbol))
    });
    let main = main.filter(|(limit, top, _)| {
        pointer <= *top && limit.saturating_sub(pointer) <= FAR_BELOW && limit < top
    });
    let own = firmware.symbol_at(pointer).map(|found| found.symbol);
    let is_data = firmware
        .section_at(pointer)
        .is_some_and(|section| section.writable);
    let own = own.filter(|symbol| symbol.size > 0 && is_data && (is_on_psp || main.is_none()));
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

    struct NoMemory;

    impl ReadMemory for NoMemory {
        async fn read(&mut self, _: u64, _: usize) -> Option<Vec<u8>> {
            None
        }
    }

    /// A session may be asked from another runtime than its own.
    #[tokio::test]
    async fn a_core_is_told_by_its_registers_once_the_runtime_is_shut_down() {
        let gone = tokio::runtime::Builder::new_current_thread().build();
        let gone = gone.unwrap();
        let runtime = gone.handle().clone();
        gone.shutdown_background();
        let path = "../firmware-info/fixtures/riscv/debug.elf";
        let elf = Arc::new(ElfFile::known(Firmware::open(path).unwrap()));
        let firmware = Arc::clone(elf.firmware().unwrap());
        let pc = firmware.symbol("weigh").unwrap().address;
        let core = Core {
            name: CoreName::default(),
            registers: Registers::riscv(pc, [0; 32]),
            system: Vec::new(),
            at_fault: None,
            interrupted: Vec::new(),
            panicked_in: None,
        };
        let report = look(&elf, &firmware, core, &mut NoMemory, &runtime).await;
        assert_eq!(report.backtrace.frames[0].pc, pc);
    }
}
