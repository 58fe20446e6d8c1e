//! What takes several commands and must not stop half-way: it is finished even if its caller goes
//! away.
//!
//! ```text
//!   caller ──turn──▶ spawned task: command, command, …, put back ──▶ result
//!     └ dropped, or out of time: the task goes on alone, and the next operation waits for it
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use qmp_proto::commands::{Cont, QueryStatus, RunState, Stop};
use qmp_proto::{Command, Version};
use tokio::time::timeout_at;
use tracing::Instrument as _;

use crate::block_changes::BlockChanges;
use crate::client::Shared;
use crate::client::command::{self, instant_after};
use crate::client::events::Events;
use crate::error::{CommandError, WaitPhase};
use crate::session::Session;

/// How long each command of an operation may take after its caller has gone: what was taken apart
/// is put together again when a QEMU that was held up comes back. A big guest's save is one
/// command, and keeps QEMU from answering while it lasts.
pub(crate) const SEEN_THROUGH: Duration = Duration::from_secs(600);

/// What the task of an operation has of its session. It does not keep QEMU alive: after the last
/// handle is dropped its commands fail with [`SessionEnd::Released`](crate::SessionEnd::Released).
#[derive(Clone)]
pub(crate) struct Operation {
    shared: Arc<Shared>,
    /// QEMU's version, from its greeting.
    pub(crate) qemu: Version,
}

impl Session {
    /// Runs `work` to its end as a task on the session's own runtime, and waits for its result
    /// within the session's deadline; `name` is for the errors. There is one operation at a time,
    /// the others wait their turn in order.
    ///
    /// Dropped while it waits for its turn, nothing is ever sent. Dropped later, or out of time,
    /// the task goes on: each of its commands ends by itself after ten minutes, or with the
    /// session. A QEMU that outlives its session (attached, or kept running) is not let go before
    /// the task is done, or it would be left half taken apart; any other ends with the last handle,
    /// the operation with it.
    pub(crate) async fn operation<T, E, F>(
        &self,
        name: &str,
        work: impl FnOnce(Operation) -> F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<CommandError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (deadline, until) = (self.deadline, instant_after(self.deadline));
        let late = |phase| CommandError::Deadline {
            command: name.to_owned(),
            deadline,
            phase,
        };
        let shared = self.inner.shared.share();
        let turn = timeout_at(until, Arc::clone(&shared.turn).lock_owned()).await;
        let turn = turn.map_err(|_| late(WaitPhase::Queued))?;
        let outlived = self
            .inner
            .process
            .as_ref()
            .is_none_or(|process| process.is_kept());
        let kept = outlived.then(|| Arc::clone(&self.inner));
        let work = work(Operation {
            shared: Arc::clone(&shared),
            qemu: self.qemu_version().clone(),
        });
        let task = async move {
            let result = work.await;
            drop((turn, kept));
            result
        };
        let task = shared.runtime.spawn(task.instrument(shared.span.clone()));
        match timeout_at(until, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime was shut down; the driver says so too.
                Err(_) => Err(CommandError::Ended {
                    command: name.to_owned(),
                    ended: shared.end().await,
                }
                .into()),
            },
            Err(_) => Err(late(WaitPhase::Sent).into()),
        }
    }
}

impl Operation {
    /// Of a session in the making: nobody else has it yet, and who makes it sets the deadline.
    pub(crate) fn first(shared: Arc<Shared>, qemu: Version) -> Self {
        Self { shared, qemu }
    }

    /// Runs a command. Commands that are polled together go down in the order in which they are
    /// polled, and QEMU runs them in that order.
    pub(crate) async fn command<C: Command>(&self, command: &C) -> Result<C::Return, CommandError> {
        command::command(&self.shared, SEEN_THROUGH, command).await
    }

    /// All events from now on.
    pub(crate) fn events(&self) -> Events {
        self.shared.subscribe()
    }

    /// What may have been done to block devices, and the names for our own.
    pub(crate) fn blocks(&self) -> &BlockChanges {
        &self.shared.blocks
    }

    /// The run state. That a guest runs the events have told; why one stands still QEMU is asked.
    pub(crate) async fn run_state(&self) -> Result<RunState, CommandError> {
        match self.told_run_state() {
            RunState::Running => Ok(RunState::Running),
            _ => Ok(self.command(&QueryStatus).await?.status),
        }
    }

    /// The run state by what has been read: an event that QEMU sent before the last answer counts.
    pub(crate) fn told_run_state(&self) -> RunState {
        self.shared.run_state().borrow().clone()
    }

    /// QEMU's version as numbers.
    pub(crate) fn qemu_version(&self) -> String {
        let Version {
            major,
            minor,
            micro,
            ..
        } = &self.qemu;
        format!("{major}.{minor}.{micro}")
    }

    /// Lets the guest run, or stand still, whatever it does now. A failed load leaves `restore-vm`,
    /// and a migration `postmigrate`: `cont` leaves both, and `paused` is reached from there by way
    /// of it.
    pub(crate) async fn run(&self, running: bool) -> Result<(), CommandError> {
        let now = self.command(&QueryStatus).await?;
        match (now.running, running) {
            (false, true) => self.command(&Cont).await.map(drop),
            (true, false) => self.command(&Stop).await.map(drop),
            _ => Ok(()),
        }
    }
}
