//! A debugger that the session owns: breakpoints, watchpoints, steps, registers and memory, through
//! a GDB stub that is made when it is asked for and of which nothing is left when it is dropped.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use qemu_controller::debug::Until;
//! # async fn example(session: qemu_controller::Session) -> Result<(), Box<dyn std::error::Error>> {
//! let mut debugger = session.debugger().await?;
//! let stop = debugger.run_until([Until::reaches("tick")], Duration::from_secs(5)).await?;
//! println!("{stop}: {:?}", debugger.read_registers().await?);
//! # Ok(()) }
//! ```
//!
//! One owner of the run state: [`pause`](Session::pause), [`resume`](Session::resume),
//! [`reset`](Session::reset), loads, saves and forks work while a debugger is open, and each of its
//! verbs knows what they did. A verb that asks the guest something holds the session's turn, so
//! that nothing lets the guest run in between: to a running guest nothing is sent.

mod attach;
#[cfg(feature = "source")]
pub(crate) mod backtrace;
mod code;
mod connect;
mod error;
mod forks;
mod hand_over;
#[cfg(feature = "source")]
mod interrupted;
mod listener;
pub(crate) mod panics;
mod questions;
mod registers;
mod run;
mod sites;
mod standing;
mod step;
mod stub;
mod until;
mod vectors;
mod waiting;
mod wanted;
mod watched;

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use gdb_remote::client::Reply;
use gdb_remote::handshake::StubIdentity;
use gdb_remote::target::Target;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::client::transaction::Turn;
use crate::error::CommandError;
use crate::guest::memory::Location;
use crate::guest::symbols::ElfFile;
use crate::session::Session;
use attach::{Attachment, CloseOnDrop, Place};
use questions::Question;
use run::Since;
use sites::CodeSites;
use stub::{Attention, Point};

#[cfg(feature = "source")]
pub(crate) use backtrace::Cause;
pub use error::DebugError;
pub use gdb_remote::reply::{Access, Id, ThreadId};
pub use hand_over::HandOver;
pub use listener::{DebuggerListener, Stranger, Visitor};
pub(crate) use questions::Write;
pub use registers::Registers;
pub(crate) use standing::Arrival;
pub use until::{Stop, StopReason, Until};
pub use vectors::Fault;
#[cfg(feature = "bundle")]
pub(crate) use vectors::fault_called;

/// How long each step of cleaning up may take after the caller has gone.
const UNATTENDED: Duration = Duration::from_secs(30);

/// How long after its stub's stream a QEMU that has ended may take to be known as such.
const BLAME: Duration = Duration::from_secs(1);

/// Stands for 'not known': the count of turns never comes so far.
const UNSURE: u64 = u64::MAX;

type KeepAlive = Arc<dyn Any + Send + Sync>;

/// A debugger of a session's guest; from [`Session::debugger`].
///
/// Dropping it, or any of its futures at any point, leaves no breakpoint and no watchpoint, and
/// the run state that was last asked for: a guest that ran when the debugger came runs on, unless
/// it was stepped, run until something, or paused since. A run whose future is dropped goes on
/// without its breakpoints.
pub struct Debugger {
    attachment: CloseOnDrop,
    session: Session,
    /// The session's count of turns when the guest was last known to be stopped.
    turns: u64,
    /// Whose doing it may be where the guest is now.
    since: Since,
    /// The pc that was told last; the guest may be elsewhere by now.
    seen: u64,
    /// Of those that are set: what is there to follow the vectors of faults.
    guards: BTreeSet<Point>,
    /// Once they were looked for.
    panic_functions: Option<Vec<u64>>,
    /// What there is to know of the guest's code by, once it was asked.
    elf: Option<Arc<ElfFile>>,
    /// Once they were looked for.
    code_sites: Option<CodeSites>,
}

/// One verb in progress. It holds the session's turn, so nobody else changes the run state, and the
/// reader task leaves the stub's stream to it.
///
/// Dropped in the middle, its turn goes to a task that waits for the answer to the last question (a
/// packet that arrives late would stop a guest that runs again) and takes out what was set. So
/// whatever is asked of the session next comes after that.
struct Verb {
    turn: Option<Turn>,
    attachment: Arc<Attachment>,
    attention: Option<Attention>,
    /// It has set something, or moved the guest, and has not come to its end.
    is_unfinished: bool,
}

impl Verb {
    /// It has come to its end.
    fn done(mut self) {
        self.is_unfinished = false;
    }
}

impl Drop for Verb {
    fn drop(&mut self) {
        let stub = &self.attachment.stub;
        if !self.is_unfinished && stub.is_idle() {
            return;
        }
        stub.state().is_dirty |= self.is_unfinished;
        let (attachment, attention) = (Arc::clone(&self.attachment), self.attention.take());
        let shared = Arc::clone(&attachment.shared);
        let turn = self.turn.take().or_else(|| shared.try_turn());
        let span = shared.span.clone();
        let cleaning = async move {
            let turn = match turn {
                Some(turn) => Ok(turn),
                None => {
                    let deadline = UNATTENDED.into();
                    attachment.shared.take_turn("clean up", deadline).await
                }
            };
            if turn.is_ok() && attachment.stub.idle(UNATTENDED).await {
                // A QEMU that has ended has nothing left to clean up.
                let _ = attachment.clean_up(UNATTENDED).await;
            }
            drop((turn, attention));
        };
        shared.runtime.spawn(cleaning.instrument(span));
    }
}

impl Session {
    /// Opens a debugger, for which QEMU makes a GDB stub on a socket pair: nothing listens. **This
    /// stops a running guest**; it runs on when the debugger is dropped, or asked to run. Takes
    /// some milliseconds, and a session that has no stub of its own
    /// ([`QemuConfig::gdb`](crate::QemuConfig::gdb)).
    ///
    /// # Errors
    /// [`DebugError`]; the guest goes on as it was. [`DebugError::Busy`] while there is another
    /// one.
    pub async fn debugger(&self) -> Result<Debugger, DebugError> {
        let deadline = self.deadline;
        let shared = self.inner.shared.share();
        let place = Place::take(Arc::clone(&shared), deadline).await?;
        let keep_alive = self.keep_alive();
        let attachment = self
            .transaction("debugger", move |_| async move {
                let attachment = Attachment::open(shared, keep_alive, deadline).await?;
                Ok::<_, DebugError>(CloseOnDrop::new(attachment, place))
            })
            .await?;
        Ok(Debugger {
            attachment,
            session: self.clone(),
            turns: UNSURE,
            since: Since::Ours,
            seen: 0,
            guards: BTreeSet::new(),
            panic_functions: None,
            elf: None,
            code_sites: None,
        })
    }

    /// For a task that takes a stub away: a QEMU that outlives its session is not let go before.
    fn keep_alive(&self) -> Option<KeepAlive> {
        let process = self.inner.process.as_ref();
        let outlived = process.is_none_or(|process| process.is_kept());
        outlived.then(|| Arc::clone(&self.inner) as KeepAlive)
    }
}

/// What is asked of a guest that is stopped.
impl Debugger {
    /// What the stub said of itself: features, and architecture and registers of the first cluster's
    /// cores. On a machine whose clusters have other cores each is read and written by its own
    /// registers.
    #[must_use]
    pub fn identity(&self) -> &StubIdentity {
        &self.attachment.identity
    }

    /// QEMU's name of the architecture, such as `arm` or `riscv32`.
    pub(crate) fn architecture(&self) -> &str {
        &self.attachment.arch
    }

    pub(crate) fn is_big_endian(&self) -> bool {
        self.attachment.big_endian
    }

    /// The descriptions of the cores of each cluster.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        let clusters = self.attachment.clusters.iter();
        clusters.map(|cluster| &cluster.target)
    }

    /// All general registers of the current thread.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::Running`] where the guest runs, as for every verb here.
    pub async fn read_registers(&mut self) -> Result<Registers, DebugError> {
        let _verb = self.begin("read registers").await?;
        self.registers().await
    }

    /// One register by its name: any that the target description has, of the system too.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::NoRegister`] names those that there are.
    pub async fn read_register(&mut self, name: &str) -> Result<u64, DebugError> {
        let _verb = self.begin("read a register").await?;
        self.value(self.register(name)?).await
    }

    /// Sets a register.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::TooWide`] for a value that does not fit.
    pub async fn write_register(&mut self, name: &str, value: u64) -> Result<(), DebugError> {
        self.write_all(&[Write::Register(name, value)]).await
    }

    /// Reads memory as the current thread sees it, by symbol or address. Reading a device's
    /// registers may change the device.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::NoMemory`] if any part of it is no memory.
    pub async fn read_memory<'a>(
        &mut self,
        from: impl Into<Location<'a>>,
        length: usize,
    ) -> Result<Vec<u8>, DebugError> {
        let address = self.address(from.into()).await?;
        let _verb = self.begin("read memory").await?;
        self.memory(address, length).await
    }

    /// Writes memory, flash too, and with QEMU 10.0 and later the registers of devices. An earlier
    /// one writes none of those, so what was written is read again, which may change a device.
    ///
    /// # Errors
    /// [`DebugError`]; of [`DebugError::NoMemory`], whole packets before the address were written.
    pub async fn write_memory<'a>(
        &mut self,
        to: impl Into<Location<'a>>,
        bytes: &[u8],
    ) -> Result<(), DebugError> {
        let address = self.address(to.into()).await?;
        self.write_all(&[Write::Memory(address, bytes)]).await
    }

    /// The threads: with QEMU, the cores.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn threads(&mut self) -> Result<Vec<ThreadId>, DebugError> {
        let _verb = self.begin("list threads").await?;
        match self.ask("the threads", |client| client.threads()).await? {
            Reply::Threads(threads) => Ok(threads),
            _ => Ok(Vec::new()),
        }
    }

    /// Makes a thread the current one, until the guest runs: whose registers are read and
    /// written, and which steps.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::Refused`] if there is none of this id.
    pub async fn select_thread(&mut self, thread: ThreadId) -> Result<(), DebugError> {
        let _verb = self.begin("select a thread").await?;
        self.select(thread).await
    }

    /// The core that the current thread is: the one that stopped last, or was selected.
    #[must_use]
    pub fn current_core(&self) -> usize {
        match self.thread().map(|thread| thread.thread) {
            // QEMU numbers its cores from 1 as threads.
            Some(Id::One(number)) => usize::try_from(number.saturating_sub(1)).unwrap_or_default(),
            _ => 0,
        }
    }

    async fn select(&self, thread: ThreadId) -> Result<(), DebugError> {
        let before = self.thread();
        let selected = self.ask_one(Question::Select(thread)).await;
        if let Err(DebugError::Refused { .. }) = selected {
            self.attachment.stub.state().thread = before;
        }
        selected.map(drop)
    }

    /// The thread that stopped last, or was selected: it is the one that steps.
    pub(crate) fn thread(&self) -> Option<ThreadId> {
        self.attachment.stub.state().thread
    }

    /// Each core, to be [visited](Self::visit) in turn; `None` is the current one, where there is no
    /// other. [`Attachment::select_back`] ends the tour; one that ends early, by an error or dropped,
    /// the next verb ends.
    fn tour(&self) -> Vec<Option<ThreadId>> {
        match self.attachment.cores.len() {
            2.. => {
                let mut state = self.attachment.stub.state();
                state.back_to = state.thread;
                self.attachment.cores.iter().copied().map(Some).collect()
            }
            _ => vec![None],
        }
    }

    /// Makes a core of a tour the current one.
    async fn visit(&self, core: Option<ThreadId>) -> Result<(), DebugError> {
        match core {
            Some(core) => self.select(core).await,
            None => Ok(()),
        }
    }
}

impl Debugger {
    /// Waits for the turn, cleans up after a verb that was dropped, and sees that the guest is
    /// stopped.
    async fn begin(&mut self, name: &str) -> Result<Verb, DebugError> {
        let verb = self.take_turn(name).await?;
        if self.turns == UNSURE {
            let deadline = self.session.deadline;
            if self.attachment.is_running(deadline).await? {
                return Err(DebugError::Running);
            }
            self.attachment.stub.drain_stops(deadline).await?;
        }
        self.turns = self.count_of_turns();
        Ok(verb)
    }

    /// As [`begin`](Self::begin), with a guest that runs stopped.
    async fn begin_stopped(&mut self, name: &str) -> Result<Verb, DebugError> {
        let mut verb = self.take_turn(name).await?;
        let deadline = self.session.deadline;
        if self.turns == UNSURE {
            if self.attachment.is_running(deadline).await? {
                // Whatever comes of this verb, a guest that ran is not left stopped by its half.
                self.attachment.stub.state().moves();
                verb.is_unfinished = true;
                self.attachment.stop(deadline).await?;
            }
            self.attachment.stub.drain_stops(deadline).await?;
        }
        verb.is_unfinished = true;
        self.turns = self.count_of_turns();
        Ok(verb)
    }

    async fn take_turn(&mut self, name: &str) -> Result<Verb, DebugError> {
        let deadline = self.session.deadline;
        let shared = &self.attachment.shared;
        let turn = shared.take_turn(name, deadline.into()).await?;
        let verb = Verb {
            turn: Some(turn),
            attachment: self.attachment.share(),
            attention: Some(Attention::new(&self.attachment.stub)),
            is_unfinished: false,
        };
        let is_dirty = self.attachment.stub.state().is_dirty;
        // Nobody but us had the turn since: the guest is as we left it.
        if is_dirty || self.turns.checked_add(1) != Some(self.count_of_turns()) {
            self.turns = UNSURE;
        }
        self.attachment.clean_up(deadline).await?;
        Ok(verb)
    }

    fn count_of_turns(&self) -> u64 {
        self.attachment.shared.run_requests.turns.load(Relaxed)
    }

    async fn ask(
        &self,
        what: &'static str,
        send: impl FnOnce(&mut gdb_remote::client::Client) -> Result<(), gdb_remote::client::SendError>,
    ) -> Result<Reply, DebugError> {
        let deadline = self.session.deadline;
        match self.attachment.stub.ask(what, deadline, send).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.blame(error, what).await),
        }
    }

    /// Where the stub's stream is over, mostly QEMU has ended, and then that is what is said.
    async fn blame(&self, error: DebugError, what: &str) -> DebugError {
        if !matches!(error, DebugError::Closed(_)) {
            return error;
        }
        let end = self.attachment.shared.end();
        match timeout((self.session.deadline / 2).min(BLAME), end).await {
            Ok(ended) => DebugError::Command(CommandError::Ended {
                command: what.to_owned(),
                ended,
            }),
            Err(_) => error,
        }
    }

    async fn address(&self, location: Location<'_>) -> Result<u64, DebugError> {
        let address = self.session.address(location).await;
        address.map_err(DebugError::Place)
    }
}

impl fmt::Debug for Debugger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debugger").finish_non_exhaustive()
    }
}
