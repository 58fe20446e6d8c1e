//! Through exceptions on a Cortex-M: the frame that the core pushed, and what it interrupted.

use std::fmt;

use super::evaluate::read_word;
use super::memory::Memory;
use super::registers::Registers;
use super::{End, Guess, Step};
use crate::Firmware;
use crate::image::Architecture;
use crate::vectors::exception_name;

const SP: u16 = 13;
const LR: u16 = 14;

/// Bit 24 of xPSR: Thumb state, the only one there is.
const THUMB: u32 = 1 << 24;
/// Bit 9 of a stacked xPSR: a word was left out to align the frame.
const REALIGNED: u32 = 1 << 9;

/// Bits 21 to 23 of xPSR are 0.
const RESERVED: u32 = 7 << 21;

/// So far below its end a stack that has overflowed is looked for.
const MAX_OVERFLOW: u64 = 64 * 1024;
/// So many words are looked at for a return address.
const SCANNED_WORDS: usize = 512;

/// EXC_RETURN, bit 2: the frame is on the process stack.
const ON_PSP: u64 = 1 << 2;
/// EXC_RETURN, bit 4: the frame has no floating point registers.
const BASIC: u64 = 1 << 4;
/// EXC_RETURN, bit 5 (v8-M): the registers beside the frame were not pushed too.
const NO_ADDITIONAL: u64 = 1 << 5;

/// An exception, as the frame that it pushed tells it. Displayed as `UsageFault: 26 words on PSP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExceptionEntry {
    /// Its number: 3 for HardFault, 15 for SysTick, 16 and more for interrupts. `None` where the
    /// handler's xPSR is not known.
    pub number: Option<u16>,
    /// What the core put into LR; `None` where the handler lost it.
    pub exc_return: Option<u32>,
    /// Where the frame is: r0, r1, r2, r3, r12, LR, PC, xPSR.
    pub frame: u64,
    /// It is on the process stack.
    pub on_psp: bool,
    /// The floating point registers are in it too: 26 words, not 8.
    pub extended: bool,
    /// The stack was not aligned to 8 bytes, and a word was left out.
    pub realigned: bool,
}

/// What LR holds after a reset: the return address of what nothing called.
pub(super) const LR_AFTER_RESET: u64 = 0xffff_ffff;

/// Whether this is the program counter of a core that locked up.
pub(super) fn is_lockup(pc: u64) -> bool {
    pc | 1 == 0xffff_ffff
}

/// EXC_RETURN has ones where no code can be.
pub(super) fn is_exc_return(address: u64) -> bool {
    (0xff00_0000..LR_AFTER_RESET).contains(&address)
}

/// What was interrupted, by EXC_RETURN. `cfa` is the stack pointer that the handler began with.
pub(super) fn exception(
    firmware: &Firmware,
    registers: &Registers,
    exc_return: u64,
    cfa: u64,
    memory: &mut impl Memory,
) -> Result<Step, End> {
    let on_psp = exc_return & ON_PSP != 0;
    let mut frame = match (on_psp, registers.psp) {
        (false, _) => cfa,
        (true, Some(psp)) if !is_read_only(firmware, psp) => psp,
        // Or it was no true EXC_RETURN, which is what the fault is about.
        (true, _) => {
            let unknown = || End::UnknownRegister {
                register: "PSP".to_owned(),
            };
            return guess(firmware, registers, cfa, memory).ok_or_else(unknown);
        }
    };
    // The additional registers of a secure state: a signature, a reserved word, r4 to r11.
    if exc_return & NO_ADDITIONAL == 0 {
        frame = frame.wrapping_add(0x28) & 0xffff_ffff;
    }
    let read = match Stacked::read(firmware, frame, memory) {
        // v8-M: below the stack's limit register it is not.
        Ok(stacked) if !stacked.was_pushed() => Err(End::NotCode {
            address: stacked.pc.into(),
        }),
        read => read,
    };
    let mut stacked = match read {
        Ok(stacked) => stacked,
        Err(end) => return scan(firmware, registers, frame, memory).ok_or(end),
    };
    stacked.entry = ExceptionEntry {
        number: handler_number(registers),
        exc_return: u32::try_from(exc_return).ok(),
        frame,
        on_psp,
        extended: exc_return & BASIC == 0,
        realigned: stacked.xpsr & REALIGNED != 0,
    };
    Ok(stacked.step(registers, cfa, None))
}

/// What was interrupted where EXC_RETURN is lost: the frame is on the main stack where the handler
/// began, or else on the process stack, and looks like one.
pub(super) fn guess(
    firmware: &Firmware,
    registers: &Registers,
    cfa: u64,
    memory: &mut impl Memory,
) -> Option<Step> {
    let number = handler_number(registers).filter(|number| *number != 0)?;
    let places = [(Some(cfa), false), (registers.psp, true)];
    for (frame, on_psp) in places {
        let Some(frame) = frame.filter(|frame| *frame != 0 && frame.is_multiple_of(4)) else {
            continue;
        };
        let Ok(mut stacked) = Stacked::read(firmware, frame, memory) else {
            continue;
        };
        // A thread's frame on PSP says that no exception was interrupted.
        let fits = stacked.xpsr & THUMB != 0
            && (!on_psp || stacked.xpsr & 0x1ff == 0)
            && firmware.image.is_code(stacked.pc.into());
        if fits {
            stacked.entry = ExceptionEntry {
                number: Some(number),
                exc_return: None,
                frame,
                on_psp,
                extended: false,
                realigned: stacked.xpsr & REALIGNED != 0,
            };
            return Some(stacked.step(registers, cfa, Some(Guess::LostExcReturn)));
        }
    }
    None
}

/// A stack pointer there is none that anything was pushed to.
fn is_read_only(firmware: &Firmware, address: u64) -> bool {
    firmware
        .section_at(address)
        .is_some_and(|section| !section.writable)
}

/// The caller of whatever was interrupted where its frame could not be pushed, since the stack had
/// overflowed into nothing or into a guard: by the first return address above, where there is
/// memory again.
fn scan(
    firmware: &Firmware,
    registers: &Registers,
    frame: u64,
    memory: &mut impl Memory,
) -> Option<Step> {
    let sections = firmware.sections().iter();
    let above = sections.filter(|section| section.loaded && section.writable && section.size > 0);
    let bounds = firmware.stack_bounds();
    let limit = bounds.and_then(|bounds| Some(bounds.limit?.0));
    // Or into a guard, with memory on both sides.
    let within = above.clone().any(|section| section.contains(frame));
    let begins = above.map(|section| section.address).chain(limit);
    let begins = begins.chain(within.then_some(frame));
    let begin = begins.filter(|begin| *begin >= frame).min()?;
    if begin - frame > MAX_OVERFLOW {
        return None;
    }
    let little_endian = firmware.image.little_endian;
    let mut below = None;
    for offset in (0..).step_by(4).take(SCANNED_WORDS) {
        let slot = begin.wrapping_add(offset);
        let word = read_word(memory, little_endian, slot, 4).ok()?;
        if is_return_address(firmware, word) {
            let mut caller = Registers::default();
            caller.xpsr = Some(0);
            (caller.msp, caller.psp) = (registers.msp, registers.psp);
            // A function pushes LR last but for what is above it, and r7 just below it.
            caller.set(SP, slot.wrapping_add(4));
            if let Some(r7) = below {
                caller.set(7, r7);
            }
            caller.set_pc(Architecture::Arm, word);
            return Some(Step {
                registers: caller,
                interrupted_by: None,
                guess: Some(Guess::StackScan),
            });
        }
        below = Some(word);
    }
    None
}

/// Whether a word is the address behind a call: BL, or BLX with a register.
fn is_return_address(firmware: &Firmware, word: u64) -> bool {
    let half = |back: u64| {
        let mut bytes = [0; 2];
        let address = (word & !1).checked_sub(back)?;
        let is_code = firmware.image.is_code(address);
        (is_code && firmware.loaded(address, &mut bytes)).then(|| u16::from_le_bytes(bytes))
    };
    let is_bl = || {
        matches!((half(4), half(2)), (Some(first), Some(second))
        if first & 0xf800 == 0xf000 && second & 0xd000 == 0xd000)
    };
    let is_blx = || half(2).is_some_and(|half| half & 0xff87 == 0x4780);
    word & 1 == 1 && (is_bl() || is_blx())
}

impl Firmware {
    /// The process stack pointer of a Cortex-M that is at the first instruction of an exception's
    /// handler, for a debugger that does not tell it (QEMU before 8.1): where in `memory`, which is
    /// at `address`, a frame with just these registers is. `None` where there is none, or several.
    #[must_use]
    pub fn find_process_stack(
        &self,
        registers: &Registers,
        address: u64,
        memory: &[u8],
    ) -> Option<u64> {
        let exc_return = registers.get(LR).filter(|lr| is_exc_return(*lr))?;
        if exc_return & ON_PSP == 0 || self.architecture() != Architecture::Arm {
            return None;
        }
        let mut wanted = Vec::new();
        for number in [0, 1, 2, 3, 12] {
            wanted.extend((registers.get(number)? as u32).to_le_bytes());
        }
        let word = |at: usize| {
            let bytes = memory.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let is_frame = |at: &usize| {
            let (lr, pc, xpsr) = (word(at + 20), word(at + 24), word(at + 28));
            // After a jump to nowhere it is the caller that is known.
            let is_code = pc.is_some_and(|pc| self.image.is_code(pc.into()))
                || lr.is_some_and(|lr| is_return_address(self, lr.into()));
            memory[*at..].starts_with(&wanted)
                && xpsr.is_some_and(|xpsr| xpsr & (RESERVED | 0x1ff) == 0)
                && is_code
        };
        let mut frames = (0..memory.len()).step_by(4).filter(is_frame);
        let found = frames.next().filter(|_| frames.next().is_none())?;
        address.checked_add(found as u64)
    }
}

fn handler_number(registers: &Registers) -> Option<u16> {
    registers.xpsr.map(|xpsr| (xpsr & 0x1ff) as u16)
}

/// The frame that the core pushed.
struct Stacked {
    /// r0, r1, r2, r3, r12.
    scratch: [u32; 5],
    lr: u32,
    pc: u32,
    xpsr: u32,
    entry: ExceptionEntry,
}

impl Stacked {
    fn read(firmware: &Firmware, frame: u64, memory: &mut impl Memory) -> Result<Self, End> {
        let mut words = [0_u32; 8];
        for (at, word) in (0..).step_by(4).zip(&mut words) {
            let address = frame.wrapping_add(at) & 0xffff_ffff;
            *word = read_word(memory, firmware.image.little_endian, address, 4)? as u32;
        }
        let [r0, r1, r2, r3, r12, lr, pc, xpsr] = words;
        Ok(Self {
            scratch: [r0, r1, r2, r3, r12],
            lr,
            pc,
            xpsr,
            entry: ExceptionEntry {
                number: None,
                exc_return: None,
                frame,
                on_psp: false,
                extended: false,
                realigned: false,
            },
        })
    }

    /// Not what memory holds that nothing was written to: zeros, or a pattern that an operating
    /// system fills its stacks with.
    fn was_pushed(&self) -> bool {
        self.xpsr & RESERVED == 0 && (self.pc, self.lr, self.xpsr) != (0, 0, 0)
    }

    fn step(self, handler: &Registers, cfa: u64, guess: Option<Guess>) -> Step {
        let mut registers = handler.clone();
        for (number, value) in [0, 1, 2, 3, 12].into_iter().zip(self.scratch) {
            registers.set(number, value.into());
        }
        registers.set(LR, self.lr.into());
        registers.set_pc(Architecture::Arm, self.pc.into());
        registers.xpsr = Some(self.xpsr);
        let words = if self.entry.extended { 26 } else { 8 };
        let size = 4 * (words + u64::from(self.entry.realigned));
        let sp = self.entry.frame.wrapping_add(size) & 0xffff_ffff;
        registers.set(SP, sp);
        if self.entry.on_psp {
            registers.psp = Some(sp);
            registers.msp = Some(cfa);
        } else {
            registers.msp = Some(sp);
        }
        Step {
            registers,
            interrupted_by: Some(self.entry),
            guess,
        }
    }
}

impl fmt::Display for ExceptionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number.map(|number| (number, exception_name(number))) {
            None => f.write_str("an exception")?,
            Some((_, Some(name))) => f.write_str(name)?,
            Some((number, None)) => write!(f, "interrupt {}", number.saturating_sub(16))?,
        }
        let words = if self.extended { 26 } else { 8 };
        let stack = if self.on_psp { "PSP" } else { "MSP" };
        write!(f, ": {words} words on {stack}")?;
        if self.realigned {
            f.write_str(", realigned")?;
        }
        Ok(())
    }
}
