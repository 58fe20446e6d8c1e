//! Machines that continue from a state: one from a state that was kept, or many from a session that
//! runs.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{MachineState, StateError};
use crate::client::transaction::resume_panic;
use crate::config::QemuConfig;
use crate::error::{CommandError, SessionEnd};
use crate::session::Session;
use crate::session::error::StartError;

/// How many starts for each processor are under way at once: a further one would only wait, within
/// its own deadline.
const STARTS_PER_PROCESSOR: usize = 2;

impl Session {
    /// Starts a machine that continues from a saved state: its guest does next what the one that
    /// was saved did next. It runs if that one ran, unless it is to
    /// [wait](QemuConfig::wait_for_gdb); else it is paused, in the saved run state.
    ///
    /// The machine has to be the one that was saved: board, CPU, memory, firmware and QEMU's
    /// version. Endpoints, deadlines and whatever else QEMU can do may be others.
    ///
    /// ```no_run
    /// # use qemu_controller::{MachineState, QemuConfig, Session};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = QemuConfig::default().firmware("firmware.elf");
    /// let session = Session::start(config.clone()).await?;
    /// session.save_state().await?.persist("booted.state")?;
    /// // Later, perhaps in another program:
    /// let state = MachineState::open("booted.state")?;
    /// let session = Session::start_from(config, &state).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StartError`], as for [`start`](Self::start). [`StartError::OtherMachine`] says in what the
    /// machine differs from the one that was saved; [`StartError::Exited`] has QEMU's own words
    /// where it could not load the state.
    pub async fn start_from(config: QemuConfig, state: &MachineState) -> Result<Self, StartError> {
        Self::begin_from(config, Some(state.clone())).await
    }

    /// Starts `count` further machines that continue from where this one is now, each by itself:
    /// whatever is done to one is seen by no other. They run if this one runs. This one goes on as
    /// it was.
    ///
    /// Each has the configuration that this session was started with, but endpoints of its own: QMP
    /// over an inherited socket pair, serial ports that it reads itself, and no GDB stub
    /// ([`fork_with`](Self::fork_with) can give it one). It has no QMP transcript, no snapshot file
    /// and no logs of ports, and ends with its session.
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// // Boot once; then each case has a machine of its own.
    /// for (fork, input) in session.fork(2).await?.into_iter().zip(["a", "b"]) {
    ///     fork.serial(0).expect("the board has one").write(input.as_bytes()).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// For the same without this session, or with another configuration for each:
    /// [`save_state`](Self::save_state) and
    /// [`start_from`](Self::start_from).
    ///
    /// # Errors
    /// [`StateError`]; no fork is left then, as none is when this future is dropped.
    pub async fn fork(&self, count: usize) -> Result<Vec<Self>, StateError> {
        self.fork_with(count, |config| config).await
    }

    /// As [`fork`](Self::fork), with a change to the configuration of each, such as
    /// `|config| config.gdb(Endpoint::free_port())`.
    ///
    /// # Errors
    /// As there.
    pub async fn fork_with(
        &self,
        count: usize,
        change: impl Fn(QemuConfig) -> QemuConfig,
    ) -> Result<Vec<Self>, StateError> {
        let config = self.inner.config.as_ref().ok_or(StateError::Attached)?;
        let config = change(config.for_fork().map_err(StateError::Conflict)?);
        let state = self.save_state().await?;
        start_all(count, &config, &state).await
    }
}

/// Starts so many machines from a state, a few at once, in this order.
async fn start_all(
    count: usize,
    config: &QemuConfig,
    state: &MachineState,
) -> Result<Vec<Session>, StateError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let turns = Arc::new(Semaphore::new(processors * STARTS_PER_PROCESSOR));
    let mut starts = JoinSet::new();
    for number in 1..=count {
        let (config, state, turns) = (config.clone(), state.clone(), Arc::clone(&turns));
        starts.spawn(async move {
            let _turn = turns.acquire_owned().await;
            (number, Session::start_from(config, &state).await)
        });
    }
    let mut forks = Vec::new();
    while let Some(started) = starts.join_next().await {
        match started {
            Ok((number, Ok(fork))) => forks.push((number, fork)),
            Ok((number, Err(error))) => {
                let error = Box::new(error);
                return Err(StateError::Fork {
                    number,
                    count,
                    error,
                });
            }
            Err(error) => {
                resume_panic(error);
                let (command, ended) = ("fork".to_owned(), SessionEnd::RuntimeGone);
                return Err(CommandError::Ended { command, ended }.into());
            }
        }
    }
    forks.sort_unstable_by_key(|(number, _)| *number);
    Ok(forks.into_iter().map(|(_, fork)| fork).collect())
}
