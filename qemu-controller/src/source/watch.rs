//! A run that is watched for faults and panics, so that its end can say what they were.
//!
//! ```text
//!  run until a fault, a panic, the deadline ──▶ fault or panic: look at the core, run on
//!        ▲                                        │
//!        └─── not for good ◀── a sample every 50 ms: is it still in the handler, and the same?
//!                                                 └── three times: it stays ──▶ Faulted
//! ```
//!
//! A firmware that handles a fault and returns runs on: only a handler that has become a loop of
//! nothing ends the run. It is stopped for a millisecond at each fault and each sample; its own time
//! stands still meanwhile.

use std::time::Duration;

use qemu_launch::RegisterDump;
use tokio::time::{Instant, timeout};

use super::look::{self, Core, ReadMemory};
use super::registers;
use super::report::CoreReport;
use super::run_report::RunReport;
use super::staying::{SAMPLE, Staying, Trouble};
use super::witness::{Sight, Witness};
use crate::client::command::instant_after;
use crate::cores::CoreName;
use crate::debug::{Cause, DebugError, Debugger, StopReason, Until};
use crate::session::Session;
use crate::verdict::Verdict;

/// A firmware that takes more faults than this and goes on makes a use of them: from then on it is
/// looked at after a pause only.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// How long a firmware may take to set up its RTT channels: memory that is watched is slow.
const SETTING_UP: Duration = Duration::from_millis(500);

impl Session {
    /// Runs the guest to its end as [`run_to_end`](Self::run_to_end) does, and looks at each fault
    /// and panic as it happens, through a [debugger](Self::debugger) of its own: the end of the run
    /// can then say which function and line it was, and how it came there, a lockup too.
    ///
    /// A core that *stays* in the handler of a fault, as a loop that changes no register, ends the
    /// run at once with [`Verdict::Faulted`], and one that stays in a panic with
    /// [`Verdict::Panicked`]. A firmware that handles a fault and goes on is not disturbed. Where
    /// `is_held_up` says that the firmware may be waiting for somebody to take its output, a loop
    /// tells nothing, and the run goes on.
    ///
    /// Of a firmware without an ELF file the report has addresses, and panics are not known.
    ///
    /// The guest stops for some milliseconds before it runs, and for one at each fault; its own
    /// time stands still meanwhile. Where there can be no debugger
    /// ([`DebugError`](crate::debug::DebugError)) it is `run_to_end` alone.
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) {
    /// // Nobody takes the firmware's output but this program, which always does.
    /// let report = session.run_watched(std::time::Duration::from_secs(10), || false).await;
    /// println!("{report}");
    /// assert!(report.verdict.success());
    /// # }
    /// ```
    pub async fn run_watched(
        &self,
        deadline: Duration,
        is_held_up: impl Fn() -> bool + Send,
    ) -> RunReport {
        self.run_witnessed(deadline, is_held_up, &mut ()).await
    }

    /// The same before a witness.
    pub(crate) async fn run_witnessed(
        &self,
        deadline: Duration,
        is_held_up: impl Fn() -> bool + Send,
        witness: &mut impl Witness,
    ) -> RunReport {
        let at = instant_after(deadline);
        let Ok(debugger) = self.debugger().await else {
            return self.run_to_end(left(at)).await.into();
        };
        let exits = match witness.wants_calls() || self.reads_rtt() {
            true => self.semihosting_sites(&debugger).await,
            false => Vec::new(),
        };
        let mut watch = Watch {
            exits,
            witness,
            session: self.clone(),
            debugger,
            modes: self.rtt_modes().await,
            trouble: Trouble::default(),
            panic_has_faulted: false,
            looks: 0,
            last_look: Instant::now(),
        };
        let verdict = match watch.run(at, is_held_up).await {
            Ended::By(verdict) => verdict,
            Ended::AtDeadline => {
                drop(watch.debugger);
                let mut verdict = self.run_to_end(Duration::ZERO).await;
                if let Verdict::TimedOut(hang) = &mut verdict {
                    hang.deadline = deadline;
                }
                verdict
            }
            Ended::Unwatchable => {
                drop(watch.debugger);
                self.run_to_end(left(at)).await
            }
            Ended::Unwatched => {
                drop(watch.debugger);
                match timeout(left(at), self.wait()).await {
                    Ok(verdict) => verdict,
                    Err(_) => self.run_to_end(Duration::ZERO).await,
                }
            }
        };
        let cause = match (watch.trouble.report, &verdict) {
            (None, Verdict::LockedUp { dump, .. }) => self.report_of_dump(dump).await,
            (cause, _) => cause,
        };
        RunReport { verdict, cause }
    }
}

/// What is in RTT's rings when QEMU ends is lost.
#[cfg(feature = "rtt")]
impl Session {
    fn reads_rtt(&self) -> bool {
        self.inner.rtt.is_some()
    }

    /// Where the modes of the channels are that are to wait when they are full.
    async fn rtt_modes(&self) -> Vec<u64> {
        match &self.inner.rtt {
            Some(rtt) => rtt.modes().await,
            None => Vec::new(),
        }
    }

    async fn before_an_end(&self) {
        // Where none is read, or QEMU is gone, there is nothing to do.
        let _ = self.drain_rtt().await;
    }
}

#[cfg(not(feature = "rtt"))]
impl Session {
    fn reads_rtt(&self) -> bool {
        false
    }

    async fn rtt_modes(&self) -> Vec<u64> {
        Vec::new()
    }

    async fn before_an_end(&self) {}
}

impl Session {
    /// Of a core that locked up without taking a fault first, since its vector table is nowhere:
    /// by the registers that QEMU leaves, with nobody to read memory from.
    async fn report_of_dump(&self, dump: &RegisterDump) -> Option<Box<CoreReport>> {
        let firmware = self.firmware_info().ok()?;
        let all = dump.registers();
        let registers = registers::of(firmware.architecture(), |name| all.register(name))?;
        let core = Core {
            name: CoreName::default(),
            registers,
            system: Vec::new(),
            at_fault: None,
            interrupted: Vec::new(),
            panicked_in: None,
        };
        let runtime = &self.inner.shared.runtime;
        Some(Box::new(
            look::look(&self.inner.firmware, firmware, core, &mut Gone, runtime).await,
        ))
    }
}

/// The memory of a QEMU that has ended.
struct Gone;

impl ReadMemory for Gone {
    async fn read(&mut self, _: u64, _: usize) -> Option<Vec<u8>> {
        None
    }
}

/// How watching ended.
enum Ended {
    By(Verdict),
    AtDeadline,
    /// The debugger knows no faults of this architecture, and the guest has not run yet.
    Unwatchable,
    /// Somebody else paused the guest, or the debugger failed.
    Unwatched,
}

struct Watch<'a, W> {
    session: Session,
    debugger: Debugger,
    witness: &'a mut W,
    /// The semihosting calls, where what is lost behind them is to be read or seen: QEMU may be gone.
    exits: Vec<u64>,
    /// Where the firmware is about to write the modes of RTT channels that are to wait.
    modes: Vec<u64>,
    trouble: Trouble,
    /// It is in the handler of a fault that its panic has come to.
    panic_has_faulted: bool,
    looks: u32,
    last_look: Instant,
}

impl<W: Witness> Watch<'_, W> {
    async fn run(&mut self, at: Instant, is_held_up: impl Fn() -> bool) -> Ended {
        let (mut wanted, mut has_run) = (true, false);
        loop {
            let mut deadline = left(at);
            if self.trouble.staying.is_some() {
                deadline = deadline.min(SAMPLE);
            }
            let mut until = match wanted {
                true => vec![Until::faults(), Until::panics()],
                false => vec![Until::faults()],
            };
            until.extend(self.exits.iter().map(|exit| Until::reaches(*exit)));
            if let (Some(_), Some(returns)) = (&self.trouble.staying, &self.trouble.returns) {
                until.extend(returns.iter().map(|site| Until::reaches(*site)));
            }
            let first_mode = until.len();
            if !self.modes.is_empty() {
                until.extend(self.modes.iter().map(|mode| Until::writes(*mode, 4)));
                deadline = deadline.min(SETTING_UP);
            }
            let stop = match self.debugger.run_until(until, deadline).await {
                Ok(stop) => stop,
                // It cannot watch memory: the channels are made to wait once they are found.
                Err(_) if !self.modes.is_empty() => {
                    self.modes.clear();
                    continue;
                }
                // Nothing says where panics come to, or nothing is there.
                Err(DebugError::Stripped | DebugError::Place(_) | DebugError::NoMemory { .. })
                    if wanted =>
                {
                    wanted = false;
                    continue;
                }
                Err(_) if !has_run => return Ended::Unwatchable,
                Err(_) => return Ended::Unwatched,
            };
            has_run = true;
            self.session.before_an_end().await;
            match stop.reason {
                StopReason::Reached { .. }
                    if stop.pc.is_some_and(|pc| self.trouble.is_return(pc)) => {}
                StopReason::Reached { .. } => self.shows(Sight::Call).await,
                StopReason::Faulted { .. } if self.is_again(None).await => {
                    if let Some(verdict) = self.sample_again(&is_held_up).await {
                        return Ended::By(verdict);
                    }
                }
                StopReason::Panicked { function, .. } if self.is_again(Some(&function)).await => {
                    if let Some(verdict) = self.sample_again(&is_held_up).await {
                        return Ended::By(verdict);
                    }
                }
                // As of the crate `panic-probe`: the panic's handler ends in a fault.
                StopReason::Faulted { .. } if self.is_in_panic() => {
                    let now = self.debugger.read_registers().await.ok();
                    self.trouble.staying = Some(Staying::new(now, false));
                    self.panic_has_faulted = true;
                }
                StopReason::Faulted { fault, .. } => {
                    let fault = Some(fault.name);
                    self.look(Cause { fault, panic: None }).await;
                    if self.trouble.is_endless()
                        && !is_held_up()
                        && let Some(verdict) = self.verdict().await
                    {
                        return Ended::By(verdict);
                    }
                }
                StopReason::Panicked { function, .. } => {
                    let panic = Some(function);
                    self.look(Cause { fault: None, panic }).await;
                }
                StopReason::Watched { index, new, .. } => {
                    let mode = self.modes.remove(index - first_mode);
                    self.make_it_wait(mode, new).await;
                }
                StopReason::Ended(verdict) => return Ended::By(*verdict),
                StopReason::DeadlinePassed if left(at).is_zero() => {
                    self.shows(Sight::Deadline).await;
                    return Ended::AtDeadline;
                }
                StopReason::DeadlinePassed => {
                    self.modes.clear();
                    if self.trouble.stays(&mut self.debugger, is_held_up()).await
                        && let Some(verdict) = self.verdict().await
                    {
                        return Ended::By(verdict);
                    }
                }
                _ => return Ended::Unwatched,
            }
        }
    }

    /// Sets the mode of an RTT channel, which the firmware has just written, before it logs anything.
    async fn make_it_wait(&mut self, mode: u64, mut flags: Vec<u8>) {
        let low = match self.debugger.is_big_endian() {
            true => flags.last_mut(),
            false => flags.first_mut(),
        };
        if let Some(low) = low {
            *low = *low & !0b11 | 2;
        }
        // Where it cannot be written, it is set when the control block is found.
        let _ = self.debugger.write_memory(mode, &flags).await;
    }

    /// Whether it came to the same place with the same registers.
    async fn is_again(&mut self, function: Option<&str>) -> bool {
        let cause = self.trouble.report.as_ref();
        let is_same_cause = cause.is_some_and(|cause| match function {
            None if self.panic_has_faulted => true,
            function => cause.panicked_in.as_deref() == function,
        });
        let now = self.debugger.read_registers().await.ok();
        let again = now
            .zip(self.trouble.staying.as_ref())
            .is_some_and(|(now, staying)| staying.is_again(&now));
        is_same_cause && again
    }

    /// The same as after a while without a stop; not at each of a thousand stops a second.
    async fn sample_again(&mut self, is_held_up: &impl Fn() -> bool) -> Option<Verdict> {
        if !self.trouble.is_due_again()
            || !self.trouble.stays(&mut self.debugger, is_held_up()).await
        {
            return None;
        }
        self.verdict().await
    }

    /// The firmware has panicked, and has not come back from that.
    fn is_in_panic(&self) -> bool {
        let cause = self.trouble.report.as_ref();
        cause.is_some_and(|cause| cause.panicked_in.is_some())
    }

    /// The core has just taken a fault, or panicked.
    async fn look(&mut self, cause: Cause) {
        if self.trouble.returns.is_none() && cause.fault.is_some() {
            self.trouble.returns = Some(self.debugger.exception_returns().await);
        }
        let at_first = self.debugger.read_registers().await.ok();
        if let Some(fault) = cause.fault
            && self
                .trouble
                .nests(self.debugger.current_core(), at_first.as_ref(), fault)
        {
            return;
        }
        self.trouble.staying = Some(Staying::new(at_first, cause.panic.is_some()));
        self.panic_has_faulted = false;
        self.looks += 1;
        if self.looks > LOOKS && self.last_look.elapsed() < PAUSE {
            self.trouble.report = None;
            return;
        }
        self.last_look = Instant::now();
        match self.debugger.report_of_stop(cause).await {
            Ok(report) => {
                self.shows(Sight::Cause(&report)).await;
                self.trouble.report = Some(Box::new(report));
            }
            Err(error) => tracing::debug!(%error, "no look at the core"),
        }
    }

    async fn shows(&mut self, sight: Sight<'_>) {
        let (session, debugger) = (&self.session, &mut self.debugger);
        self.witness.sees(session, debugger, sight).await;
    }

    /// The verdict on a core that stays where it is.
    async fn verdict(&mut self) -> Option<Verdict> {
        let cause = self.trouble.report.as_ref()?;
        match &cause.panicked_in {
            Some(_) if self.panic_has_faulted => Some(Verdict::Panicked),
            Some(function) => {
                let backtrace = self.debugger.backtrace().await.ok()?;
                let mut symbols = backtrace
                    .frames
                    .iter()
                    .filter_map(|frame| frame.symbol.as_ref());
                let is_there = symbols.any(|found| found.symbol.name == *function);
                is_there.then_some(Verdict::Panicked)
            }
            None => Some(Verdict::Faulted(self.trouble.report.take()?)),
        }
    }
}

fn left(at: Instant) -> Duration {
    at.saturating_duration_since(Instant::now())
}
