//! Where a guest is that did not come to its end: run state, program counter, symbol, exception.

use std::fmt;
use std::time::Duration;

use firmware_info::{Cause, FaultReport, SymbolOffset, mips_exception};
use qemu_launch::DumpedRegisters;
use qmp_proto::commands::{HumanMonitorCommand, QueryStatus, RunState};

use crate::client::transaction::Transaction;
use crate::error::{CommandError, WaitPhase};
use crate::session::Session;

/// How long a look at a guest that missed its deadline may take; it takes some milliseconds.
const LOOK: Duration = Duration::from_secs(8);

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
    /// The program counter of CPU 0.
    pub pc: Option<u64>,
    /// The symbol at or before the program counter, where the firmware's symbols are known.
    pub place: Option<SymbolOffset>,
    /// The exception that CPU 0 is in, on a Cortex-M.
    pub exception: Option<Exception>,
    /// The exception that CPU 0 handles, as far as the monitor tells it on other cores: by Cause of
    /// a MIPS core at exception level, by the mode of a 32-bit Arm core of the A or R profile.
    pub handles: Option<FaultReport>,
    /// Where each core is, how it came there, and why it faulted if it is in the handler of a
    /// fault; empty where the firmware's file is not known.
    #[cfg(feature = "source")]
    pub cores: Vec<crate::CoreReport>,
    /// How often the guest reset itself.
    pub guest_resets: u64,
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
    /// The core sits in the handler of a fault.
    #[must_use]
    pub fn in_fault_handler(&self) -> bool {
        self.exception.as_ref().is_some_and(Exception::is_fault) || self.handles.is_some()
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
            let registers = transaction
                .command(&HumanMonitorCommand::new("info registers -a"))
                .await;
            #[cfg(feature = "source")]
            let cores = match &registers {
                Ok(text) => {
                    crate::source::monitor::look_at_cores(&transaction, &elf, text, &runtime).await
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
                    hang.cores = cores;
                }
                #[cfg(not(feature = "source"))]
                let () = cores;
                hang.run_state = Some(run_state);
                session
                    .explain(&mut hang, &DumpedRegisters::parse(&registers))
                    .await;
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
        hang.guest_resets = self.inner.shared.state().history.guest_resets;
        hang
    }

    async fn explain(&self, hang: &mut Hang, registers: &DumpedRegisters) {
        hang.pc = registers.pc();
        if let Some(pc) = hang.pc {
            hang.place = self.place(pc).await;
        }
        let number = registers
            .register("XPSR")
            .map_or(0, |xpsr| (xpsr & 0x1ff) as u16);
        if number != 0 {
            let handler = self.handler(number).await;
            hang.exception = Some(Exception { number, handler });
        }
        hang.handles = handled(registers);
    }
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
    let (name, meaning) = match register("PSR")? & 0x1f {
        0x17 => ("abort mode", "a data or prefetch abort"),
        0x1b => ("undefined mode", "an undefined instruction"),
        _ => return None,
    };
    let mut report = FaultReport::default();
    report.causes.push(Cause::new("exception", name, meaning));
    Some(report)
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
        write!(f, "the guest is {run_state}")?;
        if let Some(pc) = self.pc {
            write!(f, " at {pc:#010x}")?;
        }
        if let Some(place) = &self.place {
            write!(f, " in {place}")?;
        }
        if let Some(exception) = &self.exception {
            write!(f, ", {exception}")?;
        }
        if let Some(report) = &self.handles {
            write!(f, ", in the handler of an {report}")?;
            for note in &report.notes {
                write!(f, ", {note}")?;
            }
        }
        match self.guest_resets {
            0 => Ok(()),
            1 => f.write_str("; it reset itself once"),
            resets => write!(f, "; it reset itself {resets} times"),
        }
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
            Some(handler) => write!(f, " ({handler})"),
            None => Ok(()),
        }
    }
}
