//! Where a guest is that did not come to its end: run state, program counter, symbol, exception.

use std::fmt;
use std::time::Duration;

use firmware_info::{
    Cause, FaultReport, SymbolOffset, m68k_exception, mips_exception, xtensa_exception,
};
use qemu_launch::DumpedRegisters;
use qmp_proto::commands::{HumanMonitorCommand, QueryStatus, RunState};

use crate::client::transaction::Transaction;
use crate::cores::CoreName;
use crate::error::{CommandError, WaitPhase};
use crate::escape;
use crate::guest::memory::MemoryError;
use crate::session::Session;
use crate::verdict::GuestResets;

/// How long a look at a guest that missed its deadline may take; it takes some milliseconds.
const LOOK: Duration = Duration::from_secs(8);

/// More other cores than anybody reads of on one line.
const MOST_SHOWN: usize = 7;

/// A run that was not over when its deadline passed, and where the guest was then.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Hang {
    /// The deadline that was set; zero where there was none ([`Session::look`]).
    pub deadline: Duration,
    /// The run state; `None` where QEMU itself does not answer, or the session was
    /// [busy](Self::busy).
    pub run_state: Option<RunState>,
    /// Another transaction of the session, a long save for example, was not done; the guest was
    /// not looked at.
    pub busy: bool,
    /// The monitor was closed, and QEMU's process has not exited.
    pub monitor_closed: bool,
    /// The program counter of core 0.
    pub pc: Option<u64>,
    /// The symbol at or before the program counter, where the firmware's symbols are known.
    pub place: Option<SymbolOffset>,
    /// No code is at core 0's program counter: memory of zeros, or none. It has left its code, or
    /// never came there.
    pub no_code: bool,
    /// The exception that core 0 is in, on a Cortex-M.
    pub exception: Option<Exception>,
    /// The exception that core 0 handles, as far as the monitor tells it on other cores: by Cause of
    /// a MIPS core at exception level, by EXCCAUSE of an Xtensa core with PS.EXCM set, by the frame
    /// on an m68k core's stack, by the mode of a 32-bit Arm core of the A or R profile.
    pub handles: Option<FaultReport>,
    /// Core 0 is an x86 core in HLT with interrupts off: only an NMI, an INIT or a reset wakes it.
    pub halted: bool,
    /// Where each core is, of a machine that has several.
    pub places: Vec<CorePlace>,
    /// Where each core is, how it came there, and why it faulted if it is in the handler of a
    /// fault; empty where the firmware's file is not known.
    #[cfg(feature = "source")]
    pub cores: Vec<crate::CoreReport>,
    /// How often the guest reset itself.
    pub guest_resets: GuestResets,
}

/// Where a core is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CorePlace {
    /// Which core.
    pub core: CoreName,
    /// Its program counter.
    pub pc: Option<u64>,
    /// The symbol at or before the program counter, where the firmware's symbols are known.
    pub place: Option<SymbolOffset>,
    /// The exception that it is in, on a Cortex-M.
    pub exception: Option<Exception>,
    /// The exception that it handles, as in [`Hang::handles`].
    pub handles: Option<FaultReport>,
    /// As [`Hang::halted`].
    pub halted: bool,
}

/// An exception that a Cortex-M is in the handler of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exception {
    /// Its number, as in xPSR: 3 for HardFault, 15 for SysTick, 16 and more for interrupts.
    pub number: u16,
    /// The function that the vector table names for it, where the firmware's symbols are known.
    pub handler: Option<String>,
}

impl Hang {
    /// A core sits in the handler of a fault.
    #[must_use]
    pub fn in_fault_handler(&self) -> bool {
        let is_fault = |exception: &Option<Exception>, handles: &Option<FaultReport>| {
            exception.as_ref().is_some_and(Exception::is_fault) || handles.is_some()
        };
        let mut places = self.places.iter();
        is_fault(&self.exception, &self.handles)
            || places.any(|place| is_fault(&place.exception, &place.handles))
    }
}

impl Exception {
    /// It is a fault: HardFault, MemManage, BusFault, UsageFault or SecureFault.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self.number, 3..=7)
    }

    /// Its name in the architecture; `None` for an interrupt.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        firmware_info::exception_name(self.number)
    }
}

impl Session {
    /// Where the guest is: its run state, program counter, symbol and exception. A guest that runs
    /// is stopped for some milliseconds and runs on; one that is stopped, or that a debugger holds,
    /// stays so. Waits at most 8 s for a QEMU that does not answer, and says so in the result.
    ///
    /// [`run_to_end`](Self::run_to_end) answers with the same once its deadline has passed, but
    /// lets a guest run that was stopped.
    pub async fn look(&self) -> Hang {
        self.hang(Duration::ZERO).await
    }

    /// Looks where the guest is. One that runs is stopped for it, some milliseconds: while it
    /// runs, QEMU's program counter is that of the last time it left its translated code.
    pub(crate) async fn hang(&self, deadline: Duration) -> Hang {
        let session = self.with_deadline(LOOK);
        #[cfg(feature = "source")]
        let (elf, runtime) = (
            std::sync::Arc::clone(&self.inner.firmware),
            self.inner.shared.runtime.clone(),
        );
        let look = |transaction: Transaction| async move {
            let before = transaction.command(&QueryStatus).await?;
            transaction.run(false).await?;
            let registers = registers(&transaction).await;
            #[cfg(feature = "source")]
            let cores = match &registers {
                Ok(cores) => {
                    crate::source::monitor::look_at_cores(&transaction, &elf, cores, &runtime).await
                }
                Err(_) => Vec::new(),
            };
            #[cfg(not(feature = "source"))]
            let cores = ();
            let run_state = match transaction.run(before.running).await {
                Ok(()) => before.status,
                // It came to its end before it was stopped: nothing runs any more.
                Err(CommandError::Refused { .. }) => {
                    transaction.command(&QueryStatus).await?.status
                }
                Err(error) => return Err(error),
            };
            Ok::<_, CommandError>((run_state, registers?, cores))
        };
        let mut hang = Hang {
            deadline,
            ..Hang::default()
        };
        match session.transaction("info registers", look).await {
            Ok((run_state, registers, cores)) => {
                #[cfg(feature = "source")]
                {
                    hang.cores = session.with_thread_stacks(cores).await;
                }
                #[cfg(not(feature = "source"))]
                let () = cores;
                hang.run_state = Some(run_state);
                session.explain(&mut hang, registers).await;
            }
            // Its turn did not come.
            Err(CommandError::Deadline {
                phase: WaitPhase::Queued,
                ..
            }) => hang.busy = true,
            Err(CommandError::Deadline { phase, .. }) => {
                hang.monitor_closed = phase == WaitPhase::MonitorClosed;
            }
            Err(_) => {}
        }
        hang.guest_resets = self.guest_resets();
        hang
    }

    async fn explain(&self, hang: &mut Hang, cores: Vec<(CoreName, DumpedRegisters)>) {
        for (core, registers) in cores {
            let place = self.place_of(core, &registers).await;
            if place.core.number == 0 {
                hang.pc = place.pc;
                hang.place.clone_from(&place.place);
                hang.no_code = match (place.pc, &place.place) {
                    (Some(pc), None) => self.has_no_code(pc).await,
                    _ => false,
                };
                hang.exception.clone_from(&place.exception);
                hang.handles.clone_from(&place.handles);
                hang.halted = place.halted;
            }
            hang.places.push(place);
        }
        if hang.places.len() == 1 {
            hang.places.clear();
        }
    }

    async fn has_no_code(&self, pc: u64) -> bool {
        match self.read_memory(pc, 16).await {
            Ok(bytes) => bytes.iter().all(|byte| *byte == 0),
            Err(error) => matches!(error, MemoryError::Unmapped { .. }),
        }
    }

    async fn place_of(&self, core: CoreName, registers: &DumpedRegisters) -> CorePlace {
        let pc = registers.pc();
        let place = match pc {
            Some(pc) => self.place(pc).await,
            None => None,
        };
        let xpsr = registers.register("XPSR").unwrap_or(0);
        let exception = match (xpsr & 0x1ff) as u16 {
            0 => None,
            number => Some(Exception {
                number,
                // Each core has a vector table.
                handler: self.with_core(core.number).handler(number).await,
            }),
        };
        let handles = match handled(registers) {
            None => self.handled_on_m68k(registers).await,
            handles => handles,
        };
        CorePlace {
            core,
            pc,
            place,
            exception,
            handles,
            halted: is_halted(registers),
        }
    }

    /// The exception that an m68k core handles: of the frame on its stack, or below what LINK saved
    /// there, where the vector table names the function that the core is in.
    async fn handled_on_m68k(&self, registers: &DumpedRegisters) -> Option<FaultReport> {
        let register = |name| registers.register(name);
        let (table, pc) = (register("VBR")?, register("PC")?);
        for frame in [register("A7")?, register("A6")? + 4] {
            let Ok(first) = self.read_u32(frame).await else {
                continue;
            };
            let Ok(second) = self.read_u32(frame + 4).await else {
                continue;
            };
            let (vector, stacked) = match first >> 28 {
                // ColdFire: format and vector, SR, pc. In the other frame T0 would be set here.
                4..=7 => (first >> 18 & 0xff, second),
                // 68010 and later: SR, pc, format and vector.
                _ => (second >> 2 & 0x3ff, first << 16 | second >> 16),
            };
            let handler = self.read_u32(table + u64::from(4 * vector)).await.ok();
            if let Some(handler) = handler
                && self.is_same_function(handler.into(), pc).await
            {
                return m68k_exception(vector as u16, stacked.into());
            }
        }
        None
    }

    async fn is_same_function(&self, entry: u64, pc: u64) -> bool {
        if entry == pc {
            return true;
        }
        match (self.place(entry).await, self.place(pc).await) {
            (Some(entry), Some(pc)) => entry.symbol == pc.symbol,
            _ => false,
        }
    }
}

/// The registers of each core.
async fn registers(
    transaction: &Transaction,
) -> Result<Vec<(CoreName, DumpedRegisters)>, CommandError> {
    let command = HumanMonitorCommand::new("info registers -a");
    let text = transaction.command(&command).await?;
    // Of a text that names no core, all is the first one's.
    let mut cores: Vec<_> = text.split("CPU#").collect();
    if cores.len() > 1 {
        cores.remove(0);
    }
    let names = match cores.len() {
        // The usual machine.
        1 => Vec::new(),
        _ => CoreName::all(transaction.shared(), LOOK).await?,
    };
    let mut names = names.into_iter();
    let name = |number| names.next().unwrap_or(CoreName::numbered(number));
    let registers = cores.into_iter().map(DumpedRegisters::parse);
    Ok((0..).map(name).zip(registers).collect())
}

/// The exception that a core handles, by registers that QEMU prints.
fn handled(registers: &DumpedRegisters) -> Option<FaultReport> {
    let register = |name| registers.register(name);
    if let (Some(status), Some(cause), Some(epc)) =
        (register("Status"), register("Cause"), register("EPC"))
    {
        // EXL
        return mips_exception(cause, epc).filter(|_| status >> 1 & 1 == 1);
    }
    if let (Some(exccause), Some(excvaddr), Some(epc1), Some(status)) = (
        register("EXCCAUSE"),
        register("EXCVADDR"),
        register("EPC1"),
        register("PS"),
    ) {
        // EXCM, which is set after a reset, too.
        return xtensa_exception(exccause, excvaddr, epc1)
            .filter(|_| status >> 4 & 1 == 1 && epc1 != 0);
    }
    let (name, meaning) = match register("PSR")? & 0x1f {
        0x17 => ("abort mode", "a data or prefetch abort"),
        0x1b => ("undefined mode", "an undefined instruction"),
        _ => return None,
    };
    let mut report = FaultReport::default();
    report.causes.push(Cause::new("exception", name, meaning));
    Some(report)
}

/// An x86 core in HLT with EFLAGS.IF clear.
fn is_halted(registers: &DumpedRegisters) -> bool {
    let flags = registers.register("RFL").or(registers.register("EFL"));
    registers.register("HLT") == Some(1) && flags.is_some_and(|flags| flags >> 9 & 1 == 0)
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.deadline.is_zero() {
            write!(f, "the run was not over after {:?}: ", self.deadline)?;
        }
        if self.busy {
            return f.write_str(
                "another transaction of the session was not done, so the guest was not looked at",
            );
        }
        let Some(run_state) = &self.run_state else {
            return f.write_str(if self.monitor_closed {
                "QEMU has closed its monitor, and its process has not exited"
            } else {
                "QEMU does not answer its monitor"
            });
        };
        match run_state {
            // AVR's comes by an instruction that QEMU does not know as well.
            RunState::Debug => {
                f.write_str("the guest is stopped, by a breakpoint or a breakpoint instruction")?;
            }
            _ => write!(f, "the guest is {run_state}")?,
        }
        if let Some(first) = self.places.first() {
            write!(f, ", {}", first.core)?;
        }
        let (place, exception) = (self.place.as_ref(), self.exception.as_ref());
        write_place(f, self.pc, place, self.no_code)?;
        write_state(f, exception, self.handles.as_ref(), self.halted)?;
        let mut others = self
            .places
            .iter()
            .skip(1)
            .filter(|place| place.halted || place.handles.is_some() || !self.has_report(place));
        for place in others.by_ref().take(MOST_SHOWN) {
            write!(f, "; {place}")?;
        }
        match others.count() {
            0 => {}
            more => write!(f, "; and {more} more cores")?,
        }
        match self.guest_resets.count {
            0 => Ok(()),
            _ => write!(f, "; {}", self.guest_resets),
        }
    }
}

impl Hang {
    /// A core whose report tells where it is.
    fn has_report(&self, place: &CorePlace) -> bool {
        #[cfg(feature = "source")]
        return self.cores.iter().any(|report| report.core == place.core);
        #[cfg(not(feature = "source"))]
        {
            let _ = place;
            false
        }
    }
}

impl fmt::Display for CorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)?;
        let (place, exception) = (self.place.as_ref(), self.exception.as_ref());
        write_place(f, self.pc, place, false)?;
        write_state(f, exception, self.handles.as_ref(), self.halted)
    }
}

/// ` at 0x20 in main+0x4`.
fn write_place(
    f: &mut fmt::Formatter<'_>,
    pc: Option<u64>,
    place: Option<&SymbolOffset>,
    no_code: bool,
) -> fmt::Result {
    if let Some(pc) = pc {
        write!(f, " at {pc:#010x}")?;
    }
    if let Some(place) = place {
        write!(f, " in {}", escape::line(&place.to_string()))?;
    }
    match no_code {
        true => f.write_str(", where no code is"),
        false => Ok(()),
    }
}

/// `, in the handler of SysTick`.
fn write_state(
    f: &mut fmt::Formatter<'_>,
    exception: Option<&Exception>,
    handles: Option<&FaultReport>,
    halted: bool,
) -> fmt::Result {
    if let Some(exception) = exception {
        write!(f, ", {exception}")?;
    }
    if let Some(report) = handles {
        write!(f, ", in the handler of an {report}")?;
        for note in &report.notes {
            write!(f, ", {note}")?;
        }
    }
    match halted {
        true => {
            f.write_str(", halted with interrupts off: only an NMI, an INIT or a reset wakes it")
        }
        false => Ok(()),
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_fault() {
            "fault handler"
        } else {
            "handler"
        };
        match self.name() {
            Some(name) => write!(f, "in the {kind} of {name}")?,
            None => write!(f, "in the {kind} of exception {}", self.number)?,
        }
        match &self.handler {
            Some(handler) => write!(f, " ({})", escape::line(&handler.to_string())),
            None => Ok(()),
        }
    }
}
