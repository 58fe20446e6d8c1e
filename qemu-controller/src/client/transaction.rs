//! Several commands that belong together and must not stop half-way: they are finished even if
//! their caller goes away.
//!
//! ```text
//!   caller ──turn──▶ spawned task: command, command, …, put back ──▶ result
//!     └ dropped, or out of time: the task goes on alone, and the next transaction waits for it
//! ```
//!
//! The *turn* is one lock of the session. Whatever changes the guest's run state on a user's behalf
//! takes it too, single commands included: a transaction puts back the run state that it found, and
//! would otherwise undo what was asked for meanwhile.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use qmp_proto::commands::{Cont, QueryStatus, RunState, Stop};
use qmp_proto::{Command, Version};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinError;
use tokio::time::timeout_at;
use tracing::Instrument as _;

use crate::client::Shared;
use crate::client::command::{self, Deadline};
use crate::client::events::Events;
use crate::error::{CommandError, WaitPhase};

/// How long each command of a transaction may take after its caller has gone: what was taken apart
/// is put together again when a QEMU that was held up comes back. A big guest's save is one
/// command, and keeps QEMU from answering while it lasts.
pub(crate) const UNATTENDED_DEADLINE: Duration = Duration::from_secs(600);

/// What the task of a transaction has of its session. It does not keep QEMU alive: after the last
/// handle is dropped its commands fail with [`SessionEnd::Released`](crate::SessionEnd::Released).
#[derive(Clone)]
pub(crate) struct Transaction {
    shared: Arc<Shared>,
    /// QEMU's version, from its greeting.
    pub(crate) qemu: Version,
}

/// The right to be the one that changes the guest's run state.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Shared {
    /// Waits for the turn, in order. `name` is for the error.
    pub(crate) async fn take_turn(
        &self,
        name: &str,
        deadline: Deadline,
    ) -> Result<Turn, CommandError> {
        let turn = timeout_at(deadline.at, Arc::clone(&self.turn).lock_owned()).await;
        self.run_requests.turns.fetch_add(1, Relaxed);
        turn.map_err(|_| CommandError::Deadline {
            command: name.to_owned(),
            deadline: deadline.set,
            phase: WaitPhase::Queued.at_deadline(deadline.at),
        })
    }

    /// The turn, if it is free.
    #[cfg(feature = "debugger")]
    pub(crate) fn try_turn(&self) -> Option<Turn> {
        let turn = Arc::clone(&self.turn).try_lock_owned().ok()?;
        self.run_requests.turns.fetch_add(1, Relaxed);
        Some(turn)
    }

    /// Runs `work` to its end as a task on the session's own runtime, and waits for its result;
    /// `name` is for the errors. There is one transaction at a time, the others wait for their turn
    /// in order.
    ///
    /// Dropped while it waits for its turn, nothing is ever sent. Dropped later, or out of time,
    /// the task goes on: each of its commands ends by itself after ten minutes, or with the
    /// session. `keep_alive` is dropped when the task is done.
    pub(crate) async fn transaction<T, E, F>(
        self: &Arc<Self>,
        qemu: Version,
        name: &str,
        deadline: Deadline,
        keep_alive: Option<Arc<dyn Any + Send + Sync>>,
        work: impl FnOnce(Transaction) -> F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<CommandError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let turn = self.take_turn(name, deadline).await?;
        let work = work(Transaction {
            shared: Arc::clone(self),
            qemu,
        });
        let task = async move {
            let result = work.await;
            drop((turn, keep_alive));
            result
        };
        let task = self.runtime.spawn(task.instrument(self.span.clone()));
        let command = name.to_owned();
        match timeout_at(deadline.at, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                resume_panic(error);
                // The driver says so too.
                let ended = self.end().await;
                Err(CommandError::Ended { command, ended }.into())
            }
            Err(_) => Err(CommandError::Deadline {
                command,
                deadline: deadline.set,
                phase: WaitPhase::Sent.at_deadline(deadline.at),
            }
            .into()),
        }
    }
}

/// Of a task that has no result: goes on with its panic. Otherwise its runtime was shut down.
pub(crate) fn resume_panic(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

impl Transaction {
    /// Of a session in the making: nobody else has it yet, and who makes it sets the deadline.
    pub(crate) fn first(shared: Arc<Shared>, qemu: Version) -> Self {
        Self { shared, qemu }
    }

    /// Runs a command. Commands that are polled together go down in the order in which they are
    /// polled, and QEMU runs them in that order.
    pub(crate) async fn command<C: Command>(&self, command: &C) -> Result<C::Return, CommandError> {
        command::command(&self.shared, UNATTENDED_DEADLINE, command).await
    }

    /// All events from now on.
    pub(crate) fn events(&self) -> Events {
        self.shared.subscribe()
    }

    /// The run state. Events say that a guest runs; why one is stopped, only QEMU can say.
    pub(crate) async fn run_state(&self) -> Result<RunState, CommandError> {
        match self.known_run_state() {
            RunState::Running => Ok(RunState::Running),
            _ => Ok(self.command(&QueryStatus).await?.status),
        }
    }

    /// The run state by what has been read: an event that QEMU sent before the last answer counts.
    pub(crate) fn known_run_state(&self) -> RunState {
        self.shared.run_state().borrow().clone()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The session's runtime.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.runtime
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

    /// Lets the guest run, or stops it, whatever it does now. A failed load leaves `restore-vm`,
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
