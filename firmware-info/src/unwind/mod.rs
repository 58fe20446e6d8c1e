//! Backtraces: from the registers of a stopped core through its stack, frame by frame.

use std::fmt;

use crate::Firmware;
use crate::error::DebugInfoError;
use crate::image::Architecture;
use crate::source::SourceFrame;
use crate::symbol::SymbolOffset;

mod call_frames;
mod cortex_m;
mod evaluate;
mod memory;
mod registers;

pub use cortex_m::ExceptionEntry;
pub use memory::{Memory, MemoryPieces};
pub use registers::Registers;

pub(crate) use call_frames::CallFrames;
pub(crate) use evaluate::Context;

/// More frames than any honest stack has.
const MAX_FRAMES: usize = 1000;

/// The frames of a stopped core, innermost first, and why there are no more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backtrace {
    /// The frames; one at least. Functions that were inlined share the frame of their caller.
    pub frames: Vec<Frame>,
    /// Why it ends.
    pub end: End,
}

/// One function's activation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Frame {
    /// The program counter: of the innermost and of an interrupted frame the next instruction, of
    /// any other one the instruction behind its call.
    pub pc: u64,
    /// Its registers, as far as they are known.
    pub registers: Registers,
    /// The functions there, innermost first: those inlined, then the one whose frame it is. From
    /// the debug information, or else from the symbols; empty where neither knows the address.
    pub functions: Vec<SourceFrame>,
    /// The symbol there.
    pub symbol: Option<SymbolOffset>,
    /// The exception that interrupted it: the frame before this one is its handler's outermost.
    pub interrupted_by: Option<ExceptionEntry>,
    /// How it was found, where that was a guess.
    pub guess: Option<Guess>,
    /// The address of the frame: the stack pointer before its call. Known once its caller was
    /// looked for.
    pub(crate) cfa: Option<u64>,
    /// `pc` is that of the next instruction, not of a return address.
    exact: bool,
}

/// What was not read but guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guess {
    /// The function within has no call frame information; its caller is where the link register
    /// points.
    LinkRegister,
    /// The core could not push the frame of what it interrupted, since the stack had overflowed into
    /// nothing or a guard; its caller is at the first return address above.
    StackScan,
    /// The handler within lost EXC_RETURN; an exception's frame was looked for on the stacks.
    LostExcReturn,
}

/// Why a backtrace ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The reset handler or the entry point: nothing called it.
    Reset,
    /// The call frame information says that nothing called this function, or its return address is
    /// 0, or what LR of a Cortex-M holds after a reset.
    Outermost,
    /// The core locked up: there is no code at its program counter.
    LockedUp,
    /// The code has no call frame information, as of assembly.
    NoCallFrames {
        /// The program counter.
        pc: u64,
    },
    /// There is no code at the return address.
    NotCode {
        /// The return address.
        address: u64,
    },
    /// A function that never returns did not save its return address.
    ReturnAddressLost,
    /// The memory that is needed cannot be read.
    Unreadable {
        /// Its address.
        address: u64,
    },
    /// A register that is needed is not known.
    UnknownRegister {
        /// Its name.
        register: String,
    },
    /// The next frame would be the same again.
    Repeats,
    /// There are more frames than are shown.
    TooMany,
    /// Frames of this instruction set cannot be read.
    Unsupported,
    /// The call frame information cannot be used.
    CallFrames(DebugInfoError),
}

impl End {
    /// It ends where a call chain ends, not where something is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Reset | Self::Outermost)
    }
}

impl Firmware {
    /// The frames of a core that has stopped with these registers.
    ///
    /// It takes what it can read: an answer that ends early says why. `memory` is asked for words
    /// of the stack, and may refuse; where memory cannot be read at once, see [`MemoryPieces`].
    pub fn backtrace(&self, registers: &Registers, memory: &mut impl Memory) -> Backtrace {
        let mut frames = vec![self.frame(registers.clone(), true)];
        if self.architecture() == Architecture::Arm && cortex_m::is_lockup(registers.pc()) {
            return Backtrace {
                frames,
                end: End::LockedUp,
            };
        }
        let end = loop {
            let last = frames.last_mut().expect("there is one from the start");
            match self.caller(last, memory) {
                Ok(frame) if frames.len() < MAX_FRAMES => frames.push(frame),
                Ok(_) => break End::TooMany,
                Err(end) => break end,
            }
        };
        Backtrace { frames, end }
    }

    fn frame(&self, registers: Registers, exact: bool) -> Frame {
        let pc = registers.pc();
        let at = pc.saturating_sub(u64::from(!exact));
        let symbol = self.symbol_at(at);
        let mut functions = self.source_frames(at).unwrap_or_default();
        if functions.is_empty() {
            functions.extend(symbol.as_ref().map(|found| SourceFrame {
                function: Some(found.symbol.name.as_str().into()),
                location: None,
                inlined: false,
            }));
        }
        Frame {
            pc,
            registers,
            functions,
            symbol,
            interrupted_by: None,
            guess: None,
            cfa: None,
            exact,
        }
    }

    /// The frame that called this one, or that was interrupted by it.
    fn caller(&self, frame: &mut Frame, memory: &mut impl Memory) -> Result<Frame, End> {
        if frame.interrupted_by.is_none() && self.is_reset(frame) && frame.guess.is_none() {
            // For its address only, which its variables are found by.
            let _ = self.step(frame, memory);
            return Err(End::Reset);
        }
        let step = self.step(frame, memory)?;
        Ok(Frame {
            interrupted_by: step.interrupted_by,
            guess: step.guess,
            ..self.frame(step.registers, step.interrupted_by.is_some())
        })
    }

    /// In the reset handler or the entry point's function, beside which nothing is a caller.
    fn is_reset(&self, frame: &Frame) -> bool {
        let Some(symbol) = &frame.symbol else {
            return false;
        };
        let entry = self.entry() & !u64::from(self.architecture() == Architecture::Arm);
        let reset = self.vector_table().and_then(|table| table.reset());
        let begins = [Some(entry), reset];
        begins.into_iter().flatten().any(|begin| {
            symbol.symbol.address == begin
                || (begin != 0
                    && self
                        .symbol_at(begin)
                        .is_some_and(|at| at.symbol.address == symbol.symbol.address))
        })
    }
}

pub(crate) fn damaged(error: gimli::Error) -> End {
    End::CallFrames(error.into())
}

/// What is outside a frame: its caller, or what an exception interrupted.
pub(crate) struct Step {
    registers: Registers,
    interrupted_by: Option<ExceptionEntry>,
    guess: Option<Guess>,
}

impl Frame {
    /// Where its code is looked up: of a return address the call before it.
    pub(crate) fn lookup(&self) -> u64 {
        self.pc.saturating_sub(u64::from(!self.exact))
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }
}

impl fmt::Display for Backtrace {
    /// One line a function, inlined ones too: `#0 0x0000012c in hash at main.c:51:17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, frame) in self.frames.iter().enumerate() {
            if let Some(entry) = &frame.interrupted_by {
                writeln!(f, "   <{entry}>")?;
            }
            write!(f, "#{number} {:#010x} in ", frame.pc)?;
            match &frame.functions[..] {
                [] => f.write_str("??")?,
                [function, outer @ ..] => {
                    write!(f, "{function}")?;
                    for function in outer {
                        write!(f, "\n   in {function}")?;
                    }
                }
            }
            match frame.guess {
                Some(guess) => writeln!(f, " ({guess})")?,
                None => writeln!(f)?,
            }
        }
        if self.end.is_complete() {
            Ok(())
        } else {
            writeln!(f, "   {}", self.end)
        }
    }
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkRegister => "a guess by the link register",
            Self::StackScan => "a guess: the first return address on the stack",
            Self::LostExcReturn => "a guess: the handler lost EXC_RETURN",
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("the reset handler"),
            Self::Outermost => f.write_str("the outermost function"),
            Self::LockedUp => f.write_str("the core locked up: there is no code where it stands"),
            Self::NoCallFrames { pc } => {
                write!(f, "no call frame information for the code at {pc:#010x}")
            }
            Self::NotCode { address } => {
                write!(
                    f,
                    "the return address {address:#010x} is not in the firmware's code"
                )
            }
            Self::ReturnAddressLost => {
                f.write_str("a function that never returns did not save its return address")
            }
            Self::Unreadable { address } => {
                write!(f, "the memory at {address:#010x} cannot be read")
            }
            Self::UnknownRegister { register } => write!(f, "{register} is not known"),
            Self::Repeats => {
                f.write_str("the next frame would be the same again: the stack is corrupt")
            }
            Self::TooMany => write!(f, "more than {MAX_FRAMES} frames"),
            Self::Unsupported => f.write_str("frames of this instruction set cannot be read"),
            Self::CallFrames(error) => {
                write!(f, "the call frame information cannot be used: {error}")
            }
        }
    }
}
