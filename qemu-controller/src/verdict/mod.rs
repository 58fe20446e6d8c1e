//! How a run of the firmware ended: one word for each way, an exit code for CI, and a short report.

use std::fmt;
use std::sync::Arc;

use firmware_info::SymbolOffset;
use qemu_launch::{Exit, ExitKind, RegisterDump};
use qmp_proto::commands::{RunState, ShutdownCause, ShutdownEvent};

use crate::error::SessionEnd;
use crate::escape;

mod guest_resets;
mod hang;
mod report;
mod run;
pub(crate) mod triple_fault;

pub use guest_resets::GuestResets;
pub use hang::{CorePlace, Exception, Hang};
pub use report::VerdictReport;

/// How a run of the firmware ended. No two causes share a variant.
///
/// Its `Display` is a short report for people. For CI there is [`exit_code`](Self::exit_code):
///
/// | verdict | exit code |
/// |---|---|
/// | [`Exited`](Self::Exited) | the firmware's own status |
/// | [`ShutDown`](Self::ShutDown) | 0 |
/// | [`Reset`](Self::Reset), [`ResetOrTripleFault`](Self::ResetOrTripleFault), [`Watchdog`](Self::Watchdog) | 120 |
/// | [`Panicked`](Self::Panicked) | 121 |
/// | [`Stopped`](Self::Stopped) | 122 |
/// | [`TimedOut`](Self::TimedOut) | 124, as of `timeout(1)` |
/// | [`QemuFailed`](Self::QemuFailed), [`Lost`](Self::Lost) | 125 |
/// | `Faulted` (feature `source`) | 139: 128 and SIGSEGV |
/// | [`LockedUp`](Self::LockedUp), [`TripleFault`](Self::TripleFault) | 134: 128 and SIGABRT, as a shell sees it |
/// | [`Interrupted`](Self::Interrupted) | 128 and the signal's number; 143 where it is not known |
///
/// Only a firmware that exits with status 0, or shuts its machine down, makes a 0.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The firmware ended the run with a status of its own: by semihosting, or by a device of the
    /// board that does so.
    Exited {
        /// The status, as QEMU exits with it: 0 to 255. A semihosting exit without a status is 0
        /// when it reports success and 1 otherwise.
        status: u8,
    },
    /// The guest shut the machine down.
    ShutDown,
    /// The guest asked for a reset, and the machine is configured not to reboot
    /// ([`QemuConfig::no_reboot`](crate::QemuConfig::no_reboot)).
    Reset,
    /// The same of an x86 guest, whose triple faults QEMU reports as resets, where its log was
    /// somebody else's (`-d`, `-trace`, coverage), or an accelerator such as KVM has none.
    ResetOrTripleFault,
    /// The board's watchdog expired and did what QEMU has it do: as a rule a reset, of a machine that
    /// is configured not to reboot. Of a watchdog of which QEMU sends no event it is
    /// [`Reset`](Self::Reset).
    Watchdog,
    /// An x86 core could enter no handler, not even that of a double fault, and the machine is
    /// configured not to reboot.
    TripleFault,
    /// The guest told QEMU that it panicked (through a device for that).
    Panicked,
    /// The core locked up: a fault that the fault handler itself could not take. QEMU aborts then.
    LockedUp {
        /// Why, and the registers.
        dump: Arc<RegisterDump>,
        /// The symbol at or before the program counter, where the firmware's symbols are known.
        place: Option<SymbolOffset>,
    },
    /// A core stays in the handler of a fault: nothing will come of this run any more. Only a run
    /// that is [watched](crate::Session::run_watched) ends so. QEMU still runs.
    #[cfg(feature = "source")]
    Faulted(Box<crate::CoreReport>),
    /// QEMU failed: a fatal error, an assertion, a crash. Says nothing of the firmware.
    QemuFailed(Exit),
    /// This session ended it: by [`stop`](crate::Session::stop), a command or a signal.
    Stopped,
    /// Somebody else ended it.
    Interrupted(Interruption),
    /// It still ran when the deadline passed. QEMU still runs, and the guest is as it was.
    TimedOut(Box<Hang>),
    /// The session was lost, so nobody can say: attached to a QEMU whose end has no event, the
    /// connection broken, or the session let go.
    Lost(SessionEnd),
}

/// Who else ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interruption {
    /// A signal that QEMU heeds (SIGTERM, SIGINT, SIGHUP); which, it does not say.
    AskedBySignal,
    /// This signal, which left QEMU no choice.
    KilledBySignal(i32),
    /// Another client of one of its monitors, or the user of a window.
    OtherClient,
    /// A debugger at its GDB stub: by `kill`, or by a reset of a machine that does not reboot.
    Debugger,
}

/// What is known of a run that has ended.
pub(crate) struct RunFacts {
    /// Where the core locked up.
    pub(crate) place: Option<SymbolOffset>,
    /// How the session ended; `None` where QEMU stays and only the guest has come to its end …
    pub(crate) ended: Option<SessionEnd>,
    /// … which is then in this state.
    pub(crate) final_state: Option<RunState>,
    pub(crate) shutdown: Option<ShutdownEvent>,
    /// The watchdog expired before it.
    pub(crate) watchdog: bool,
    /// This session asked QEMU to end, by command …
    pub(crate) asked: bool,
    /// … or by signal.
    pub(crate) signalled: bool,
    /// A reset that the guest asked for was a triple fault; `None` where that is not known.
    pub(crate) triple_fault: Option<bool>,
    /// The guest can exit by semihosting.
    pub(crate) semihosting: bool,
    /// There is a GDB stub …
    pub(crate) gdb: bool,
    /// … and no monitor but this session's.
    pub(crate) only_monitor: bool,
}

impl Verdict {
    pub(crate) fn of(facts: RunFacts) -> Self {
        let exit = match &facts.ended {
            Some(SessionEnd::Exited(exit)) => Some(exit),
            _ => None,
        };
        if let Some(exit) = exit {
            // An abort or a crash may come after a SHUTDOWN; it is what counts.
            match exit.kind() {
                ExitKind::Lockup(dump) => {
                    return Self::LockedUp {
                        dump: Arc::clone(dump),
                        place: facts.place,
                    };
                }
                ExitKind::Signalled(_) if facts.signalled => return Self::Stopped,
                ExitKind::Signalled(signal) => {
                    return Self::Interrupted(Interruption::KilledBySignal(*signal));
                }
                ExitKind::Aborted { .. } | ExitKind::Crashed(_) | ExitKind::Unknown => {
                    return Self::QemuFailed(exit.clone());
                }
                // QEMU 10.0 sends a SHUTDOWN as of the guest before, 7.2 none.
                ExitKind::Exited(0) if facts.gdb && says_killed_by_debugger(exit) => {
                    return Self::Interrupted(Interruption::Debugger);
                }
                _ => {}
            }
        }
        if facts.ended.is_none() && facts.final_state == Some(RunState::GuestPanicked) {
            return Self::Panicked;
        }
        match (&facts.shutdown, exit, facts.ended.clone()) {
            (Some(shutdown), exit, _) => Self::of_shutdown(&facts, shutdown, exit),
            (None, Some(exit), _) => Self::of_silent_exit(&facts, exit),
            (None, None, Some(ended)) => Self::Lost(ended),
            (None, None, None) => Self::ShutDown,
        }
    }

    fn of_shutdown(facts: &RunFacts, shutdown: &ShutdownEvent, exit: Option<&Exit>) -> Self {
        // A device may ask for a shutdown with a status.
        let status = exit
            .and_then(Exit::code)
            .and_then(|code| u8::try_from(code).ok())
            .filter(|&code| code != 0);
        match &shutdown.reason {
            _ if facts.watchdog && shutdown.guest => Self::Watchdog,
            ShutdownCause::GuestReset => match facts.triple_fault {
                Some(true) => Self::TripleFault,
                Some(false) => Self::Reset,
                None => Self::ResetOrTripleFault,
            },
            ShutdownCause::SubsystemReset => Self::Reset,
            ShutdownCause::GuestPanic => Self::Panicked,
            ShutdownCause::HostSignal if facts.signalled => Self::Stopped,
            ShutdownCause::HostSignal => Self::Interrupted(Interruption::AskedBySignal),
            ShutdownCause::HostQmpQuit | ShutdownCause::HostQmpSystemReset if facts.asked => {
                Self::Stopped
            }
            // By way of the stub's human monitor.
            ShutdownCause::HostQmpQuit | ShutdownCause::HostQmpSystemReset
                if facts.gdb && facts.only_monitor =>
            {
                Self::Interrupted(Interruption::Debugger)
            }
            ShutdownCause::HostQmpQuit
            | ShutdownCause::HostQmpSystemReset
            | ShutdownCause::HostUi => Self::Interrupted(Interruption::OtherClient),
            ShutdownCause::HostError => match (exit, &facts.ended) {
                (Some(exit), _) => Self::QemuFailed(exit.clone()),
                (None, ended) => Self::Lost(ended.clone().unwrap_or(SessionEnd::Closed)),
            },
            _ if !shutdown.guest && facts.asked => Self::Stopped,
            _ => status.map_or(Self::ShutDown, |status| Self::Exited { status }),
        }
    }

    /// QEMU exits without a SHUTDOWN where the guest exits by semihosting or a device, or where
    /// QEMU fails.
    fn of_silent_exit(facts: &RunFacts, exit: &Exit) -> Self {
        match (
            exit.kind(),
            exit.code().and_then(|code| u8::try_from(code).ok()),
        ) {
            // QEMU's own line and status 1: the guest can only be meant where it has a way to exit
            // so.
            (ExitKind::OptionError { .. }, _) if !facts.semihosting => {
                Self::QemuFailed(exit.clone())
            }
            (_, Some(0)) if facts.asked && !facts.semihosting => Self::Stopped,
            (_, Some(status)) => Self::Exited { status },
            (_, None) => Self::QemuFailed(exit.clone()),
        }
    }

    /// What a program that ran the firmware for CI should exit with; see the table above. A
    /// deadline that passed is never a success.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited { status } => *status,
            Self::ShutDown => 0,
            Self::Reset | Self::ResetOrTripleFault | Self::Watchdog => 120,
            Self::Panicked => 121,
            Self::Stopped => 122,
            Self::TimedOut(_) => 124,
            Self::QemuFailed(_) | Self::Lost(_) => 125,
            Self::LockedUp { .. } | Self::TripleFault => 134,
            #[cfg(feature = "source")]
            Self::Faulted(_) => 139,
            Self::Interrupted(Interruption::KilledBySignal(signal)) => {
                u8::try_from(*signal).map_or(143, |signal| signal.saturating_add(128))
            }
            Self::Interrupted(_) => 143,
        }
    }

    /// The firmware said that all is well: [`exit_code`](Self::exit_code) is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit_code() == 0
    }

    /// The verdict in one word that stays as it is, for logs that programs read.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::ShutDown => "shut-down",
            Self::Reset | Self::ResetOrTripleFault => "reset",
            Self::Watchdog => "watchdog",
            Self::TripleFault => "triple-fault",
            Self::Panicked => "panicked",
            Self::LockedUp { .. } => "locked-up",
            #[cfg(feature = "source")]
            Self::Faulted(_) => "faulted",
            Self::QemuFailed(_) => "qemu-failed",
            Self::Stopped => "stopped",
            Self::Interrupted(_) => "interrupted",
            Self::TimedOut(_) => "timed-out",
            Self::Lost(_) => "lost",
        }
    }
}

/// The signal that leaves no choice; the same number everywhere.
const SIGKILL: i32 = 9;

/// A debugger's `kill` makes QEMU exit with status 0.
fn says_killed_by_debugger(exit: &Exit) -> bool {
    let said = exit.stderr().to_string_lossy();
    said.lines()
        .any(|line| line.ends_with("QEMU: Terminated via GDBstub"))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { status } => write!(f, "the firmware exited with status {status}"),
            Self::ShutDown => f.write_str("the firmware shut the machine down"),
            Self::Reset => f.write_str("the firmware asked for a reset"),
            Self::ResetOrTripleFault => write!(
                f,
                "the firmware asked for a reset, or took a triple fault: {}",
                triple_fault::ALIKE
            ),
            Self::Watchdog => f.write_str("the watchdog expired, and ended the run"),
            Self::TripleFault => f.write_str(
                "the core took a triple fault: it could enter no handler, not even that of a \
                 double fault; QEMU's log (-d int) has the exceptions before it",
            ),
            Self::Panicked => f.write_str("the firmware says that it panicked"),
            Self::LockedUp { dump, place } => {
                let place = place.as_ref();
                let place = place.map_or_else(String::new, |place| format!(" in {place}"));
                f.write_str(&escape::line(&format!("the core locked up{place}: {dump}")))
            }
            #[cfg(feature = "source")]
            Self::Faulted(core) => {
                let exception = core
                    .fault
                    .as_ref()
                    .map_or("a fault", |fault| fault.exception);
                write!(f, "a core stays in the handler of {exception}: {core}")
            }
            Self::QemuFailed(exit) => {
                f.write_str("QEMU failed, which says nothing of the firmware: ")?;
                f.write_str(&escape::each_line(exit))?;
                let said = exit.stderr().to_string_lossy();
                if said.is_empty() {
                    Ok(())
                } else {
                    write!(f, "\n{}", escape::each_line(&said))
                }
            }
            Self::Stopped => f.write_str("the run was stopped before the firmware came to its end"),
            Self::Interrupted(by) => write!(f, "the run was ended from outside: {by}"),
            Self::TimedOut(hang) => hang.fmt(f),
            Self::Lost(ended) => write!(f, "how the run ended is not known: {ended}"),
        }
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskedBySignal => f.write_str("a signal asked QEMU to end"),
            Self::KilledBySignal(SIGKILL) => {
                f.write_str("signal 9 killed QEMU, as the system sends it where memory has run out")
            }
            Self::KilledBySignal(signal) => write!(f, "signal {signal} killed QEMU"),
            Self::OtherClient => f.write_str("another client of its monitor ended QEMU"),
            Self::Debugger => f.write_str("a debugger ended QEMU"),
        }
    }
}
