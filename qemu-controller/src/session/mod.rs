//! The handle that a user holds: QEMU's verbs, each one command and its effect.

// Before the others, so that the documentation of `Session` begins with it.
pub(crate) mod start;

pub(crate) mod attach;
pub mod blocking;
pub(crate) mod error;
mod monitor;
mod progress;
pub(crate) mod stderr;
pub(crate) mod stop;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use qemu_launch::{Process, ProcessHandle};
use qmp_proto::commands::{
    Cont, CpuInfoFast, HumanMonitorCommand, QueryCpusFast, QueryStatus, RunState, StatusInfo, Stop,
    SystemPowerdown, SystemReset, TypedEvent,
};
use qmp_proto::{Command, Greeting, QmpEvent, RawReturn, Version};
use serde::Serialize;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::command::{self, Deadline, EXIT_STATUS_GRACE, call, instant_after};
use crate::client::events::{Events, MissedEvents};
use crate::client::qtest::Qtest;
use crate::client::transaction::{Transaction, Turn};
use crate::client::{Band, SessionGuard, Shared};
use crate::config::{Deadlines, QemuConfig};
use crate::error::{CommandError, SessionEnd, WaitPhase};
use crate::guest::symbols::ElfFile;
use crate::serial::Serial;
use crate::snapshot;
use error::DetachError;
use stop::StopReport;

/// What changes the guest's run state, by QMP or by the human monitor, which has two short names.
const RUN_STATE_COMMANDS: [&str; 5] = ["stop", "cont", "system_reset", "s", "c"];

/// A QEMU that runs, and the QMP session with it.
///
/// Cheap to clone; all clones are the same session. Dropping the last one ends QEMU, unless it was
/// attached to or is to [keep running](crate::QemuConfig::keep_running); it waits up to 250 ms for
/// that, a few milliseconds in practice, so prefer [`stop`](Self::stop) where other tasks share the
/// thread. Every future may be dropped at any point and the session stays in step; every call has a
/// deadline ([`with_deadline`](Self::with_deadline)); and when QEMU dies, everybody who waits
/// learns at once how ([`SessionEnd`]).
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
    pub(crate) deadline: Duration,
    /// Whose memory is read; none where none was named, which is core 0.
    pub(crate) core: Option<usize>,
}

pub(crate) struct Inner {
    pub(crate) shared: SessionGuard,
    /// QEMU's, where this session started it; dropping it ends QEMU.
    pub(crate) process: Option<Process>,
    pub(crate) greeting: Greeting,
    pub(crate) gdb: Option<gdb_port::StubAddress>,
    pub(crate) deadlines: Deadlines,
    /// How QEMU was started, where this session started it.
    pub(crate) config: Option<QemuConfig>,
    pub(crate) serials: Vec<Option<Serial>>,
    pub(crate) semihosting: Option<Serial>,
    pub(crate) firmware: Arc<ElfFile>,
    /// The snapshots, and what is known for them.
    pub(crate) snapshots: Arc<snapshot::Store>,
    pub(crate) qtest: Option<Qtest>,
    #[cfg(feature = "rtt")]
    pub(crate) rtt: Option<crate::rtt::RttReader>,
    /// What code ran.
    #[cfg(feature = "coverage")]
    pub(crate) code_log: Option<crate::coverage::CodeLog>,
    /// How it was stopped, for whoever asks again.
    pub(crate) stopped: OnceCell<StopReport>,
}

impl Inner {
    /// All ports that the firmware prints on.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &Serial> {
        self.serials.iter().flatten().chain(&self.semihosting)
    }
}

impl Drop for Inner {
    /// The process is killed next; a QEMU that is not our child would not notice.
    fn drop(&mut self) {
        let kept = self
            .process
            .as_ref()
            .is_none_or(|process| process.is_kept());
        if !kept && self.shared.how_it_ended().is_none() {
            self.shared.send_quit();
        }
    }
}

/// What is asked of QEMU by command.
impl Session {
    pub(crate) fn new(inner: Inner) -> Self {
        let deadline = inner.deadlines.command;
        Self {
            inner: Arc::new(inner),
            deadline,
            core: None,
        }
    }

    /// The run state (`query-status`).
    ///
    /// # Errors
    /// [`CommandError`], as for every command here.
    pub async fn query_status(&self) -> Result<StatusInfo, CommandError> {
        self.command(&QueryStatus).await
    }

    /// The guest's CPUs (`query-cpus-fast`), without stopping it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn query_cpus(&self) -> Result<Vec<CpuInfoFast>, CommandError> {
        self.command(&QueryCpusFast).await
    }

    /// Lets the guest run (`cont`); it runs when this returns. A guest that runs already goes on.
    ///
    /// # Errors
    /// [`CommandError`]. A guest whose run ends QEMU at once may take the answer with it: then
    /// [`CommandError::Ended`] says how it ended.
    pub async fn resume(&self) -> Result<(), CommandError> {
        self.command(&Cont).await.map(drop)
    }

    /// Pauses the guest (`stop`); it is stopped when this returns, and stays so. One that is paused
    /// already stays paused.
    ///
    /// Like [`resume`](Self::resume) and [`reset`](Self::reset) it waits for a save, a load or a
    /// fork that is under way, within the session's deadline: these put back the run state that
    /// they found.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn pause(&self) -> Result<(), CommandError> {
        self.command(&Stop).await.map(drop)
    }

    /// Resets the machine (`system_reset`) and returns when it has been reset. A running guest
    /// starts over; one that was paused waits at its reset vector, in the run state `prelaunch`.
    /// Where `-action` makes a shutdown of a reset, it returns when the machine has been shut down.
    ///
    /// # Errors
    /// [`CommandError`]; [`Ended`](CommandError::Ended) where a reset ends QEMU, by `-no-reboot`
    /// for example.
    pub async fn reset(&self) -> Result<(), CommandError> {
        let event = self
            .until(
                SystemReset::NAME,
                reset_by_monitor,
                self.command(&SystemReset),
            )
            .await?;
        if event.name == "SHUTDOWN" {
            // Did QEMU end with it? Then this says so.
            self.query_status().await?;
        }
        Ok(())
    }

    /// Asks the guest to power down (`system_powerdown`) and returns when it has been asked. Many
    /// boards, `lm3s6965evb` among them, do not listen.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn powerdown(&self) -> Result<(), CommandError> {
        self.command(&SystemPowerdown).await.map(drop)
    }

    /// Runs a line in QEMU's human monitor and returns what it printed. Its output is for people
    /// and changes between versions.
    ///
    /// # Errors
    /// [`CommandError::HumanMonitor`] where the monitor printed an error, which QMP itself calls a
    /// success; else [`CommandError`].
    pub async fn human_monitor_command(&self, line: &str) -> Result<String, CommandError> {
        let deadline = self.deadline.into();
        let verb = line.split_whitespace().next().unwrap_or_default();
        let _turn = self.turn_for(verb, deadline).await?;
        let mut command = HumanMonitorCommand::new(line);
        command.cpu_index = self.core.and_then(|core| i64::try_from(core).ok());
        let text = command::command(&self.inner.shared, deadline, &command).await?;
        if text.starts_with("Error: ") || text.starts_with("unknown command: ") {
            return Err(CommandError::HumanMonitor {
                line: line.to_owned(),
                text: text.trim_end().to_owned(),
            });
        }
        Ok(text)
    }

    /// Runs any typed command.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn command<C: Command>(&self, command: &C) -> Result<C::Return, CommandError> {
        let deadline = self.deadline.into();
        let _turn = self.turn_for(C::NAME, deadline).await?;
        command::command(&self.inner.shared, deadline, command).await
    }

    /// Runs any command by name, with arguments of any type that serialises to an object, or `&()`
    /// for none.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn execute<A: Serialize + ?Sized>(
        &self,
        command: &str,
        arguments: &A,
    ) -> Result<RawReturn, CommandError> {
        let deadline = self.deadline.into();
        let _turn = self.turn_for(command, deadline).await?;
        call(&self.inner.shared, command, Band::In, deadline, |c| {
            c.execute(command, arguments)
        })
        .await
    }

    /// The turn of a command that changes the guest's run state, which no save or load may put back
    /// afterwards; `None` for any other command.
    async fn turn_for(
        &self,
        command: &str,
        deadline: Deadline,
    ) -> Result<Option<Turn>, CommandError> {
        if RUN_STATE_COMMANDS.contains(&command) {
            let turn = self.inner.shared.take_turn(command, deadline).await?;
            self.inner.shared.run_requests.note(command);
            return Ok(Some(turn));
        }
        Ok(None)
    }

    /// Runs a command out of band, ahead of whatever QEMU is busy with. It takes only a few so, and
    /// refuses the others.
    ///
    /// # Errors
    /// [`CommandError`]; [`Invalid`](CommandError::Invalid) with a QEMU that offers no out-of-band
    /// execution.
    pub async fn execute_oob<A: Serialize + ?Sized>(
        &self,
        command: &str,
        arguments: &A,
    ) -> Result<RawReturn, CommandError> {
        call(&self.inner.shared, command, Band::Out, self.deadline, |c| {
            c.execute_oob(command, arguments)
        })
        .await
    }

    /// Runs a [transaction](Shared::transaction) within the session's deadline.
    ///
    /// A QEMU that outlives its session (attached, or kept running) is not let go before the
    /// transaction is done, or it would be left half taken apart; any other ends with the last
    /// handle, the transaction with it.
    pub(crate) async fn transaction<T, E, F>(
        &self,
        name: &str,
        work: impl FnOnce(Transaction) -> F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<CommandError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let process = self.inner.process.as_ref();
        let outlived = process.is_none_or(|process| process.is_kept());
        let keep_alive = outlived.then(|| Arc::clone(&self.inner) as Arc<dyn Any + Send + Sync>);
        let shared = self.inner.shared.share();
        let qemu = self.qemu_version().clone();
        shared
            .transaction(qemu, name, self.deadline.into(), keep_alive, work)
            .await
    }

    /// This session with another deadline for each call: `session.with_deadline(d).query_status()`.
    /// Default:
    /// [`QemuConfig::command_deadline`](crate::QemuConfig::command_deadline).
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// This session with memory as this core sees it, and the human monitor's commands about it:
    /// `session.with_core(2).read_u32("state")`. Cores of [other clusters](crate::CoreName) may have
    /// other memory at an address, and cores with a memory management unit other translations.
    /// Default: core 0.
    #[must_use]
    pub fn with_core(&self, core: usize) -> Self {
        Self {
            core: Some(core),
            ..self.clone()
        }
    }
}

/// What QEMU tells unasked.
impl Session {
    /// All events from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.shared.subscribe()
    }

    /// Waits for the first event that `wanted` takes. It listens from this call on, not from the
    /// first poll: nothing falls between `let stopped = session.wait_for_event(…)` and what is done
    /// to provoke it.
    ///
    /// # Errors
    /// [`CommandError::NoEvent`] after the session's deadline, [`CommandError::Ended`] when the
    /// session ends first; both name `what`.
    pub fn wait_for_event<F: FnMut(&QmpEvent) -> bool>(
        &self,
        what: &str,
        wanted: F,
    ) -> impl Future<Output = Result<QmpEvent, CommandError>> + use<F> {
        let (event, deadline) = (what.to_owned(), self.deadline);
        let (events, until, shared) = (
            self.events(),
            instant_after(deadline),
            self.inner.shared.share(),
        );
        async move {
            match event_by(&shared, events, until, wanted).await {
                Ok(found) => Ok(found),
                Err(NotSeen::InTime { missed }) => Err(CommandError::NoEvent {
                    event,
                    deadline,
                    missed,
                }),
                Err(NotSeen::BeforeTheEnd) => Err(CommandError::Ended {
                    command: event,
                    ended: shared.end().await,
                }),
            }
        }
    }

    /// The guest's run state as events and answers to `query-status` tell it, without asking: the
    /// receiver has the latest, and wakes when it becomes another one. It is closed when the
    /// session has ended.
    ///
    /// An event tells less than [`query_status`](Self::query_status): a guest that a debugger
    /// stopped is shown as `paused`.
    #[must_use]
    pub fn watch_run_state(&self) -> watch::Receiver<RunState> {
        self.inner.shared.run_state()
    }

    /// Waits until the session has ended, and tells how. Keeps no handle meanwhile: who only waits
    /// does not keep QEMU alive.
    pub fn ended(&self) -> impl Future<Output = SessionEnd> + Send + use<> {
        let shared = self.inner.shared.share();
        async move { shared.end().await }
    }

    /// Leaves QEMU running on purpose: one that was attached to, or that is configured to [keep
    /// running](crate::QemuConfig::keep_running). The session is over then for all its handles
    /// ([`SessionEnd::Released`]); its monitor is free for the next client. A save or load that is
    /// under way is finished first, or QEMU would be left half taken apart.
    ///
    /// # Errors
    /// [`DetachError`] for a QEMU that would end with this session; nothing has changed.
    pub fn detach(&self) -> Result<(), DetachError> {
        match &self.inner.process {
            Some(process) if !process.is_kept() => Err(DetachError),
            _ => {
                self.inner.shared.share().release_in_turn();
                Ok(())
            }
        }
    }

    /// Runs a command whose effect shows in an event, and waits for both; the event may come first.
    async fn until<T>(
        &self,
        name: &str,
        wanted: impl FnMut(&QmpEvent) -> bool,
        command: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<QmpEvent, CommandError> {
        let effect = event_by(
            &self.inner.shared,
            self.events(),
            instant_after(self.deadline),
            wanted,
        );
        command.await?;
        let (command, deadline, phase) = (name.to_owned(), self.deadline, WaitPhase::Effect);
        match effect.await {
            Ok(event) => Ok(event),
            Err(NotSeen::InTime { .. }) => Err(CommandError::Deadline {
                command,
                deadline,
                phase,
            }),
            Err(NotSeen::BeforeTheEnd) => Err(CommandError::Ended {
                command,
                ended: self.ended().await,
            }),
        }
    }
}

/// Why an event was not seen.
enum NotSeen {
    InTime { missed: u64 },
    BeforeTheEnd,
}

async fn event_by(
    shared: &Shared,
    mut events: Events,
    until: Instant,
    mut wanted: impl FnMut(&QmpEvent) -> bool,
) -> Result<QmpEvent, NotSeen> {
    let missed = AtomicU64::new(0);
    let mut found = pin!(async {
        loop {
            match events.next().await {
                Some(Ok(event)) if wanted(&event) => return Ok(event),
                Some(Ok(_)) => {}
                Some(Err(MissedEvents(count))) => drop(missed.fetch_add(count, Relaxed)),
                None => return Err(NotSeen::BeforeTheEnd),
            }
        }
    });
    if let Ok(found) = timeout_at(until, &mut found).await {
        return found;
    }
    // What has come counts, as with an answer.
    let is_over = shared.poll_once();
    match timeout_at(until, found).await {
        Ok(found) => found,
        Err(_) if is_over && timeout(EXIT_STATUS_GRACE, shared.end()).await.is_ok() => {
            Err(NotSeen::BeforeTheEnd)
        }
        Err(_) => Err(NotSeen::InTime {
            missed: missed.load(Relaxed),
        }),
    }
}

/// What is known without asking.
impl Session {
    /// QEMU's version, from its greeting.
    #[must_use]
    pub fn qemu_version(&self) -> &Version {
        &self.inner.greeting.version
    }

    /// QEMU's process, to look on: command line, process id, stderr, its end. Keeps nothing alive;
    /// `None` for a session that was attached.
    #[must_use]
    pub fn process(&self) -> Option<ProcessHandle> {
        self.inner.process.as_deref().cloned()
    }

    /// QEMU's process id; `None` for a session that was attached.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.inner.process.as_ref().map(|process| process.pid())
    }

    /// Where the GDB stub listens; `None` where there is none, where it is an inherited socket
    /// pair, and for a session that was attached ([`check_gdb`](Self::check_gdb) asks that QEMU).
    #[must_use]
    pub fn gdb(&self) -> Option<&gdb_port::StubAddress> {
        self.inner.gdb.as_ref()
    }

    /// The guest's serial port of this number, drained by the session from its first byte; `None`
    /// unless the configuration gave it [`Endpoint::Inherited`](crate::Endpoint::Inherited). Port 0
    /// is there by default.
    #[must_use]
    pub fn serial(&self, port: usize) -> Option<&Serial> {
        self.inner.serials.get(port)?.as_ref()
    }

    /// The console of the guest's semihosting calls, drained by the session from its first byte;
    /// what is written here, the guest reads. `None` unless the configuration has
    /// [`semihosting`](crate::QemuConfig::semihosting).
    #[must_use]
    pub fn semihosting(&self) -> Option<&Serial> {
        self.inner.semihosting.as_ref()
    }
}

/// Whether it is a reset that a monitor asked for, not the guest, or the shutdown that it became.
fn reset_by_monitor(event: &QmpEvent) -> bool {
    matches!(event.typed(), Ok(TypedEvent::Reset(cause) | TypedEvent::Shutdown(cause)) if !cause.guest)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("pid", &self.pid())
            .field("gdb", &self.inner.gdb)
            .field("ended", &self.inner.shared.how_it_ended())
            .finish_non_exhaustive()
    }
}
