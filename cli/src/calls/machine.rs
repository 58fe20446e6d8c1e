//! A machine: its session, the debugger of it once it was asked for, and what the firmware printed.

use std::time::Duration;

use qemu_controller::debug::Debugger;
use qemu_controller::{RunState, Session};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::timeout;

use super::answer::Status;
use super::error::{CallError, CallErrorKind};
use super::printed::Printed;

/// How long the verdict of a QEMU that has ended may take.
const VERDICT: Duration = Duration::from_secs(1);

/// A debugger that is there, for one call.
pub(crate) type Opened<'a> = MappedMutexGuard<'a, Debugger>;

pub(crate) struct Machine {
    pub(crate) session: Session,
    debugger: Mutex<Option<Debugger>>,
    pub(crate) printed: Printed,
    pub(crate) transcript: Printed,
    pub(crate) has_semihosting: bool,
}

impl Machine {
    pub(crate) fn new(
        session: Session,
        printed: Printed,
        transcript: Printed,
        has_semihosting: bool,
    ) -> Self {
        Self {
            session,
            debugger: Mutex::new(None),
            printed,
            transcript,
            has_semihosting,
        }
    }

    /// The debugger of a guest that is stopped. It is opened once, and only there: opening one
    /// stops a guest that runs.
    pub(crate) async fn debugger(&self) -> Result<Opened<'_>, CallError> {
        if self.session.query_status().await?.status == RunState::Running {
            let message = "the guest runs; pause it first, or use run_until";
            return Err(CallError::new(CallErrorKind::Running, message));
        }
        self.debugger_for_run().await
    }

    /// The core that a paused guest is looked at by; the first of one that runs.
    pub(crate) async fn current_core(&self) -> Result<usize, CallError> {
        let core = match self.debugger.try_lock().as_deref() {
            Ok(Some(debugger)) => debugger.current_core(),
            _ => 0,
        };
        match core {
            0 => Ok(0),
            _ if self.session.query_status().await?.status == RunState::Running => Ok(0),
            _ => Ok(core),
        }
    }

    /// The debugger of a guest that may run.
    pub(crate) async fn debugger_for_run(&self) -> Result<Opened<'_>, CallError> {
        let Ok(mut debugger) = self.debugger.try_lock() else {
            let message = "another call has the debugger: wait for its answer, or pause the guest";
            return Err(CallError::new(CallErrorKind::Running, message));
        };
        if debugger.is_none() {
            *debugger = Some(self.session.debugger().await?);
        }
        MutexGuard::try_map(debugger, Option::as_mut)
            .map_err(|_| CallError::new(CallErrorKind::Failed, "there is no debugger"))
    }

    /// How it is, without disturbing it.
    pub(crate) async fn status(&self, name: &str) -> Status {
        let written = self.printed.piece(None, 0).written;
        let status = |state, run_state: Option<String>, why: Option<String>| Status {
            machine: name.to_owned(),
            state,
            run_state,
            why,
            exit_code: None,
            printed_bytes: written,
            guest_resets: self.session.guest_resets(),
        };
        match self.session.query_status().await {
            Ok(found) if found.status == RunState::Running => {
                status("running", Some(found.status.to_string()), None)
            }
            Ok(found) => status("paused", Some(found.status.to_string()), None),
            Err(error) if error.ended().is_some() => {
                let verdict = timeout(VERDICT, self.session.wait()).await.ok();
                let why = match &verdict {
                    Some(verdict) => verdict.to_string(),
                    None => error.to_string(),
                };
                let exit_code = verdict.map(|verdict| verdict.exit_code());
                Status {
                    exit_code,
                    ..status("ended", None, Some(why))
                }
            }
            Err(error) => status("unknown", None, Some(error.to_string())),
        }
    }
}
