//! Keeping the machine as it is at the moments after which there may be no machine.

use std::collections::BTreeMap;
use std::time::Duration;

use super::manifest::{MomentKind, MomentNote};
use crate::debug::{DebugError, Debugger};
use crate::fork::MachineState;
use crate::session::Session;
use crate::source::CoreReport;
use crate::source::RunReport;
use crate::source::witness::{Sight, Witness};
use crate::verdict::Verdict;

/// How long a state may take: a machine may have much memory.
const STATE: Duration = Duration::from_secs(20);

/// Keeps the machine as it was at the last moment that matters; for [`Session::run_recorded`].
///
/// A fault and a panic are kept over an exit and a deadline that follow: these are what came of
/// them.
#[derive(Debug, Default)]
pub struct Recorder {
    every_exit: bool,
    pub(super) moment: Option<Moment>,
}

/// The machine as it was.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) note: MomentNote,
    pub(super) state: Result<MachineState, String>,
}

impl Recorder {
    /// Keeps the machine also where it is about to exit with status 0. Default false.
    #[must_use]
    pub fn every_exit(mut self, every: bool) -> Self {
        self.every_exit = every;
        self
    }

    /// What the machine was about to do that was kept last, if one was.
    #[must_use]
    pub fn moment(&self) -> Option<MomentKind> {
        self.moment.as_ref().map(|moment| moment.note.kind)
    }

    /// Keeps the machine as it is now. A guest that runs is stopped, and runs on afterwards.
    ///
    /// # Errors
    /// [`DebugError`]; what was kept before stays.
    pub async fn keep(&mut self, session: &Session, kind: MomentKind) -> Result<(), DebugError> {
        let mut debugger = session.debugger().await?;
        self.keep_stopped(session, &mut debugger, kind, None).await;
        Ok(())
    }

    /// The same of a guest that is stopped; where one core is what matters, its report.
    pub(crate) async fn keep_stopped(
        &mut self,
        session: &Session,
        debugger: &mut Debugger,
        kind: MomentKind,
        report: Option<&CoreReport>,
    ) {
        let read = debugger.read_registers().await;
        let registers: BTreeMap<_, _> = match &read {
            Ok(all) => {
                let names = all.names().map(|name| {
                    let bytes = all.bytes(name).unwrap_or_default();
                    (name.to_owned(), hex(bytes))
                });
                names.collect()
            }
            Err(_) => BTreeMap::new(),
        };
        let reports = match report {
            Some(report) => vec![report.clone()],
            // Without an ELF file there are none.
            None => debugger.core_reports().await.unwrap_or_default(),
        };
        let fault = report.and_then(|report| report.fault.as_ref());
        let state = session.with_deadline(STATE).save_state().await;
        self.moment = Some(Moment {
            note: MomentNote {
                kind,
                has_state: state.is_ok(),
                registers,
                core: report.map_or(0, |report| report.core.number),
                exception: fault.map(|fault| fault.exception.to_owned()),
                panicked_in: report.and_then(|report| report.panicked_in.clone()),
                words: reports.iter().map(|core| format!("{core:#}")).collect(),
                cores: reports.iter().map(CoreReport::to_json).collect(),
            },
            state: state.map_err(|error| error.to_string()),
        });
    }

    /// Whether a fault or a panic is kept.
    pub(crate) fn has_cause(&self) -> bool {
        matches!(self.moment(), Some(MomentKind::Fault | MomentKind::Panic))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Witness for Recorder {
    fn wants_calls(&self) -> bool {
        true
    }

    async fn sees(&mut self, session: &Session, debugger: &mut Debugger, sight: Sight<'_>) {
        let (kind, report) = match sight {
            Sight::Cause(report) if report.panicked_in.is_some() => {
                (MomentKind::Panic, Some(report))
            }
            Sight::Cause(report) => (MomentKind::Fault, Some(report)),
            _ if self.has_cause() => return,
            Sight::Call => match debugger.status_of_exit().await {
                Some(status) if status != 0 || self.every_exit => (MomentKind::Exit, None),
                _ => return,
            },
            Sight::Deadline => (MomentKind::Deadline, None),
        };
        self.keep_stopped(session, debugger, kind, report).await;
    }
}

impl Session {
    /// Runs the guest as [`run_watched`](Self::run_watched) does, and keeps the machine as it was
    /// at the last moment that matters: before the first instruction of a fault's handler or of a
    /// panic, before an exit with another status than 0, at the deadline.
    ///
    /// A state takes some milliseconds, during which the guest's clock stands still; each
    /// semihosting call costs a stop of half a millisecond.
    pub async fn run_recorded(
        &self,
        deadline: Duration,
        is_held_up: impl Fn() -> bool + Send,
        recorder: &mut Recorder,
    ) -> RunReport {
        let report = self.run_witnessed(deadline, is_held_up, recorder).await;
        if matches!(report.verdict, Verdict::TimedOut(_)) && recorder.moment.is_none() {
            // A machine that could not be watched. That it cannot be kept either, the bundle says.
            let _ = recorder.keep(self, MomentKind::Deadline).await;
        }
        report
    }
}
