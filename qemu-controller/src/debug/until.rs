//! What a guest runs until, and why it stopped.

use std::fmt;

use firmware_info::SymbolOffset;
use gdb_remote::client::PointKind;
use gdb_remote::reply::Access;

use super::registers::Registers;
use super::vectors::Fault;
use crate::escape;
use crate::guest::memory::Location;
use crate::verdict::Verdict;

/// A condition on the registers at a stop.
pub(super) type Condition<'a> = Box<dyn FnMut(&Registers) -> bool + Send + 'a>;

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    Code(Location<'a>),
    Data {
        kind: PointKind,
        at: Location<'a>,
        size: u32,
    },
    Fault,
    Panic,
}

/// A breakpoint or a watchpoint of one run, or several of one purpose: what the guest runs until.
///
/// ```
/// use qemu_controller::debug::Until;
///
/// let third = Until::reaches("tick").skip(2);
/// let with_five = Until::reaches(0x122).when(|registers| registers.get("r0") == Some(5));
/// let written = Until::writes("counter", 4);
/// let gone_wrong = [Until::faults(), Until::panics()];
/// ```
pub struct Until<'a> {
    pub(super) what: What<'a>,
    pub(super) condition: Option<Condition<'a>>,
    pub(super) skip: u64,
}

impl<'a> Until<'a> {
    fn new(what: What<'a>) -> Self {
        Self {
            what,
            condition: None,
            skip: 0,
        }
    }

    fn data(kind: PointKind, at: Location<'a>, size: u32) -> Self {
        Self::new(What::Data { kind, at, size })
    }

    /// Until the instruction at this symbol or address is about to be executed.
    #[must_use]
    pub fn reaches(at: impl Into<Location<'a>>) -> Self {
        Self::new(What::Code(at.into()))
    }

    /// Until so many bytes at this symbol or address are written, or some of them.
    #[must_use]
    pub fn writes(at: impl Into<Location<'a>>, size: u32) -> Self {
        Self::data(PointKind::Write, at.into(), size)
    }

    /// Until they are read.
    #[must_use]
    pub fn reads(at: impl Into<Location<'a>>, size: u32) -> Self {
        Self::data(PointKind::Read, at.into(), size)
    }

    /// Until they are read or written.
    #[must_use]
    pub fn accesses(at: impl Into<Location<'a>>, size: u32) -> Self {
        Self::data(PointKind::Access, at.into(), size)
    }

    /// Until the guest takes a fault, before the first instruction of the handler: the registers
    /// and the stack are as the fault left them, and nothing has locked up.
    ///
    /// - Cortex-M: HardFault, MemManage, BusFault, UsageFault, SecureFault, of each core, where the
    ///   vector table says. A table that is moved or changed meanwhile is followed.
    /// - A profile: undefined instructions and aborts, where the vector base registers (VBAR) say.
    /// - RISC-V: exceptions but breakpoints and calls of the environment, where mtvec and stvec say.
    ///
    /// These registers are read at the start of the run, and again after each instruction of the
    /// session's firmware that writes one.
    ///
    /// Another exception that has the same handler is none. A fault that has no handler to go to
    /// (a second one inside HardFault, a vector table that cannot be read) ends QEMU
    /// ([`Verdict::LockedUp`]). On other architectures [`DebugError::NoFaults`].
    ///
    /// [`DebugError::NoFaults`]: super::DebugError::NoFaults
    #[must_use]
    pub fn faults() -> Self {
        Self::new(What::Fault)
    }

    /// Until the firmware gives itself up: at the first instruction of the function that a panic
    /// of Rust (`#[panic_handler]`), a failed assertion of C or `abort` comes to, as far as the
    /// firmware's symbols have them. A firmware that has none of them never stops for this.
    #[must_use]
    pub fn panics() -> Self {
        Self::new(What::Panic)
    }

    /// Only where the registers are so; the guest runs on otherwise.
    #[must_use]
    pub fn when(mut self, condition: impl FnMut(&Registers) -> bool + Send + 'a) -> Self {
        self.condition = Some(Box::new(condition));
        self
    }

    /// Passes over the first `count` hits that the [condition](Self::when) takes.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }
}

impl fmt::Debug for Until<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until")
            .field("what", &self.what)
            .field("skip", &self.skip)
            .finish_non_exhaustive()
    }
}

/// Where and why a guest stopped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// The program counter; `None` where the guest has ended.
    pub pc: Option<u64>,
    /// The symbol at or before it, where the firmware's symbols are known.
    pub place: Option<SymbolOffset>,
}

/// Why a guest stopped, as it was read from QEMU.
#[derive(Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// It is about to execute the instruction that was waited for.
    Reached {
        /// Which of those that were given, from 0 on.
        index: usize,
        /// How often it was reached in this run, those times included that were passed over.
        hits: u64,
    },
    /// It accessed what was watched; the access is done.
    Watched {
        /// Which of those that were given, from 0 on.
        index: usize,
        /// How often it was accessed in this run, those times included that were passed over.
        hits: u64,
        /// Read or write; `Either` where both were watched for.
        access: Access,
        /// The address, as QEMU reports it.
        address: u64,
        /// What was there before.
        old: Vec<u8>,
        /// What is there now.
        new: Vec<u8>,
    },
    /// It took a fault, and is about to execute the first instruction of the handler.
    Faulted {
        /// Which of those that were given, from 0 on.
        index: usize,
        /// How many faults were taken in this run, those included that were passed over.
        hits: u64,
        /// Which fault.
        fault: Fault,
    },
    /// It has given itself up, and is about to execute the first instruction of this function.
    Panicked {
        /// Which of those that were given, from 0 on.
        index: usize,
        /// How often in this run, those times included that were passed over.
        hits: u64,
        /// The function's name; as the source has it with the feature `source`.
        function: String,
    },
    /// It executed what it was to step.
    Stepped,
    /// A monitor stopped it: [`Session::pause`](crate::Session::pause), or another client.
    Paused,
    /// It stopped with this signal of GDB's, for a reason of its own.
    Signal(u8),
    /// The deadline passed; it was stopped where it was.
    DeadlinePassed,
    /// It has come to its end.
    Ended(Box<Verdict>),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        match (self.pc, &self.place) {
            (Some(pc), Some(place)) => {
                let place = escape::line(&place.to_string());
                write!(f, " at {pc:#x} ({place})")
            }
            (Some(pc), None) => write!(f, " at {pc:#x}"),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached { .. } => f.write_str("reached"),
            Self::Watched {
                address, old, new, ..
            } => write!(
                f,
                "accessed {address:#x}, {old:02x?} before and {new:02x?} now,"
            ),
            Self::Faulted { fault, .. } => {
                write!(f, "took a fault ({fault}), and its handler begins")
            }
            Self::Panicked { .. } => f.write_str("panicked"),
            Self::Stepped => f.write_str("stepped"),
            Self::Paused => f.write_str("paused"),
            Self::Signal(signal) => write!(f, "stopped by signal {signal}"),
            Self::DeadlinePassed => f.write_str("stopped at the deadline"),
            Self::Ended(verdict) => write!(f, "ended: {verdict}"),
        }
    }
}
