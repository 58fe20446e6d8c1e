//! Through exceptions on a Cortex-M: the frame that the core pushed, and what it interrupted.

use std::fmt;

use super::evaluate::read_word;
use super::memory::Memory;
use super::registers::Registers;
use super::{End, Step};
use crate::Firmware;
use crate::image::Architecture;
use crate::vectors::exception_name;

const SP: u16 = 13;
const LR: u16 = 14;

/// Bit 24 of xPSR: Thumb state, the only one there is.
const THUMB: u32 = 1 << 24;
/// Bit 9 of a stacked xPSR: a word was left out to align the frame.
const REALIGNED: u32 = 1 << 9;

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

/// Whether this is the program counter of a core that locked up.
pub(super) fn is_lockup(pc: u64) -> bool {
    pc | 1 == 0xffff_ffff
}

/// EXC_RETURN has ones where no code can be. 0xffffffff is what LR holds after a reset.
pub(super) fn is_exc_return(address: u64) -> bool {
    (0xff00_0000..0xffff_ffff).contains(&address)
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
    let mut frame = if on_psp {
        let unknown = || End::UnknownRegister {
            register: "PSP".to_owned(),
        };
        registers.psp.ok_or_else(unknown)?
    } else {
        cfa
    };
    // The additional registers of a secure state: a signature, a reserved word, r4 to r11.
    if exc_return & NO_ADDITIONAL == 0 {
        frame = frame.wrapping_add(0x28) & 0xffff_ffff;
    }
    let mut stacked = Stacked::read(firmware, frame, memory)?;
    stacked.entry = ExceptionEntry {
        number: handler_number(registers),
        exc_return: u32::try_from(exc_return).ok(),
        frame,
        on_psp,
        extended: exc_return & BASIC == 0,
        realigned: stacked.xpsr & REALIGNED != 0,
    };
    Ok(stacked.step(registers, cfa, false))
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
            && firmware
                .section_at(stacked.pc.into())
                .is_some_and(|section| section.executable);
        if fits {
            stacked.entry = ExceptionEntry {
                number: Some(number),
                exc_return: None,
                frame,
                on_psp,
                extended: false,
                realigned: stacked.xpsr & REALIGNED != 0,
            };
            return Some(stacked.step(registers, cfa, true));
        }
    }
    None
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

    fn step(self, handler: &Registers, cfa: u64, guess: bool) -> Step {
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
        Step::Interrupted {
            registers,
            entry: self.entry,
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
