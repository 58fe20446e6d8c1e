//! A real debugger instead of ours: it connects to this program, and gets a stub of its own while
//! it is there.
//!
//! ```text
//!  waiting ──connects, says something──► a stub for it, relayed ──has gone──► stub taken away ─┐
//!     ▲                                                                                        │
//!     └──────────── its breakpoints are gone, the guest runs on if it ran ◄────────────────────┘
//! ```
//!
//! QEMU listens nowhere. So a port that is in use is known at once, a look at the port does not stop
//! the guest, a second debugger is turned away and not put into the stub's queue, and one that came
//! for a moment is not missed.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use gdb_port::StubAddress;
use qemu_launch::{Argv, Endpoint};
use qmp_proto::commands::QueryStatus;
use tokio::io::{AsyncWriteExt as _, copy, sink, split};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{Instrument as _, debug, warn};

use super::attach::{Attachment, Place, run_on};
use super::error::DebugError;
use super::listener::{DebuggerListener, Visitor};
use super::{Debugger, KeepAlive, UNATTENDED, connect};
use crate::client::Shared;
use crate::client::command::command;
use crate::client::run_state::DebuggerPlace;
use crate::client::transaction::Turn;
use crate::client::transport::tokio_stream;
use crate::config::QemuConfig;
use crate::error::CommandError;
use crate::session::Session;

/// How long QEMU may take for what a debugger asked for last, before its stub is taken away.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A session's guest waits for a real debugger, or has one; from [`Debugger::hand_over`].
///
/// Debuggers may come and go, one at a time; each may stay as long as it likes. Dropping this ends
/// the connection of one that is there, and leaves no breakpoint of it; the guest runs on if it ran.
pub struct HandOver {
    session: Session,
    address: StubAddress,
    visits: watch::Receiver<Visits>,
    /// Those that [`attached`](Self::attached) and [`left`](Self::left) have told of.
    told: Visits,
    /// Dropped, the task ends.
    orders: watch::Sender<Orders>,
    task: JoinHandle<bool>,
    place: Option<Arc<Place>>,
}

/// What has been seen of debuggers.
#[derive(Clone, Copy, Debug, Default)]
struct Visits {
    come: u64,
    gone: u64,
    /// Whether the guest runs since the last one has gone.
    runs: bool,
}

impl Debugger {
    /// Lets a real debugger have the guest: it can connect here from now on, and the guest stays
    /// as it is until one has come. It has the monitor by that, which reaches files and programs, so
    /// nobody but this user's own (and root's) is let in, as [`DebuggerListener`] says. QEMU itself
    /// listens nowhere.
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use qemu_controller::Endpoint;
    ///
    /// let debugger = session.debugger().await?;
    /// let mut hand_over = debugger.hand_over(Endpoint::PrivateSocket).await?;
    /// println!("{}", hand_over.command());
    /// let runs = hand_over.left().await?;
    /// let debugger = hand_over.take_back().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DebugError::Listen`] where nobody can be let connect, with the port or path; the debugger
    /// is dropped then.
    pub async fn hand_over(self, at: Endpoint) -> Result<HandOver, DebugError> {
        let listener = DebuggerListener::bind(&at)?;
        let address = listener.address().clone();
        let (session, deadline) = (self.session.clone(), self.session.deadline);
        let shared = session.inner.shared.share();
        let (visits, seen) = watch::channel(Visits::default());
        let (orders, receiver) = watch::channel(Orders::LetThemIn);
        let (attachment, place) = self.attachment.release();
        let place = place.map(Arc::new);
        let waiting = Waiting {
            shared: Arc::clone(&shared),
            keep_alive: session.keep_alive(),
            listener,
            visits,
            orders: receiver,
            should_run: attachment.should_run(),
            _place: place.clone(),
        };
        // Waits to be told, so that a future that is dropped leaves nothing half-way.
        let (begin, begun) = oneshot::channel();
        let span = shared.span.clone();
        let task = async move {
            if let Ok(_turn) = waiting.take_turn().await {
                attachment.stub.state().should_run = false;
                attachment.close_logged().await;
            }
            drop(attachment);
            let _ = begin.send(());
            waiting.serve().await
        };
        let task = shared.runtime.spawn(task.instrument(span));
        let hand_over = HandOver {
            session,
            address,
            visits: seen,
            told: Visits::default(),
            orders,
            task,
            place,
        };
        let what = "when it was to be taken away";
        match timeout(deadline, begun).await {
            Ok(_) => Ok(hand_over),
            Err(_) => Err(DebugError::Deadline { what, deadline }),
        }
    }
}

impl HandOver {
    /// Where a debugger connects.
    #[must_use]
    pub fn address(&self) -> &StubAddress {
        &self.address
    }

    /// The line that connects gdb-multiarch, as a shell takes it.
    #[must_use]
    pub fn command(&self) -> String {
        let config = self.session.inner.config.as_ref();
        let elf = config.and_then(QemuConfig::symbols_path);
        let mut words: Vec<OsString> = vec!["-q".into()];
        words.extend(elf.map(OsString::from));
        // GDB knows a socket by its path alone.
        let mut target = OsString::from("target remote ");
        match &self.address {
            StubAddress::Unix(path) => target.push(path),
            address => target.push(address.to_string()),
        }
        words.extend(["-ex".into(), target]);
        Argv::new("gdb-multiarch".into(), words).to_string()
    }

    /// Waits until a debugger has come, be it gone again by now. Each is told of once.
    ///
    /// # Errors
    /// [`DebugError::Command`] when the session ends.
    pub async fn attached(&mut self) -> Result<(), DebugError> {
        let told = self.told.come;
        self.told.come = self.wait_for(|visits| visits.come > told).await?.come;
        Ok(())
    }

    /// Waits until a debugger has come and gone; whether the guest runs since. Nothing of its
    /// breakpoints is left. Several that were not told of are one.
    ///
    /// # Errors
    /// [`DebugError::Command`] when the session ends.
    pub async fn left(&mut self) -> Result<bool, DebugError> {
        let told = self.told.gone;
        let visits = self.wait_for(|visits| visits.gone > told).await?;
        self.told = Visits {
            // One that has come since has not been told of.
            come: visits.gone,
            ..visits
        };
        Ok(visits.runs)
    }

    /// Takes the stub back. A debugger that is still there loses its connection.
    ///
    /// # Errors
    /// [`DebugError`], as of [`Session::debugger`].
    pub async fn take_back(mut self) -> Result<Debugger, DebugError> {
        self.orders.send_replace(Orders::TakeBack);
        let session = self.session.clone();
        let deadline = session.deadline;
        let what = "when it was to be taken back";
        let ended = timeout(deadline, &mut self.task).await;
        let ended = ended.map_err(|_| DebugError::Deadline { what, deadline })?;
        drop(self);
        let debugger = session.debugger().await?;
        // It ran when the first debugger came, and nobody has come since.
        debugger.attachment.stub.state().should_run |= ended.unwrap_or(false);
        Ok(debugger)
    }

    async fn wait_for(
        &mut self,
        mut is_it: impl FnMut(&Visits) -> bool,
    ) -> Result<Visits, DebugError> {
        let seen = self
            .visits
            .wait_for(|visits| is_it(visits))
            .await
            .map(|visits| *visits);
        match seen {
            Ok(visits) => Ok(visits),
            // The task is over, with the session.
            Err(_) => Err(
                command(&self.session.inner.shared.share(), UNATTENDED, &QueryStatus)
                    .await
                    .map_or_else(DebugError::from, |_| DebugError::Busy),
            ),
        }
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        // The task frees it; who asks for a debugger waits for that.
        if let Some(place) = &self.place {
            place.set(DebuggerPlace::Closing);
        }
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What is to become of the task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Orders {
    LetThemIn,
    /// The debugger of ours takes the guest as it is.
    TakeBack,
}

/// The task that lets debuggers in.
struct Waiting {
    shared: Arc<Shared>,
    keep_alive: Option<KeepAlive>,
    listener: DebuggerListener,
    visits: watch::Sender<Visits>,
    orders: watch::Receiver<Orders>,
    /// The guest was stopped for the debugger of ours alone, and none has come since.
    should_run: bool,
    _place: Option<Arc<Place>>,
}

impl Waiting {
    /// Lets one after another in, until that is to end or the session has; whether the guest is to
    /// run for whoever takes it back.
    async fn serve(mut self) -> bool {
        loop {
            let mut orders = self.orders.clone();
            let visitor = tokio::select! {
                is_taken_back = until_over(&mut orders) => {
                    if !is_taken_back && self.should_run {
                        self.let_run().await;
                    }
                    return self.should_run;
                }
                _ = self.shared.end() => return false,
                visitor = next(&mut self.listener) => visitor,
            };
            if let Err(error) = self.visit(visitor).await {
                // A QEMU that has ended, mostly; of another one the next debugger may have the guest.
                debug!(%error, "a debugger could not be let in, or not be cleaned up after");
            }
        }
    }

    /// Gives a debugger a stub, and takes it away when it has gone.
    async fn visit(&mut self, mut peer: Visitor) -> Result<(), DebugError> {
        let mut stub = {
            let _turn = self.take_turn().await?;
            let (socket, _) = connect::connect(&self.shared, UNATTENDED).await?;
            tokio_stream(socket).map_err(DebugError::Socket)?
        };
        self.should_run = false;
        let handed_over = &self.shared.run_requests.handed_over;
        handed_over.store(true, Relaxed);
        self.visits.send_modify(|visits| visits.come += 1);
        let mut orders = self.orders.clone();
        let has_gone = tokio::select! {
            // First of all: whoever comes when it has gone is the next, and not a second one.
            biased;
            _ = relay(&mut peer, &mut stub) => true,
            _ = until_over(&mut orders) => false,
            never = turn_away(&mut self.listener) => match never {},
        };
        let mut listens = has_gone.then_some(peer);
        let _ = timeout(LAST_WORDS, last_words(&mut stub, listens.as_mut())).await;
        drop((listens, stub));
        let runs = self.clean_up().await?;
        self.visits.send_modify(|visits| {
            visits.gone += 1;
            visits.runs = runs;
        });
        Ok(())
    }

    /// Removes the breakpoints that a debugger has left which was killed: our own handshake does.
    /// Whether the guest runs.
    async fn clean_up(&self) -> Result<bool, DebugError> {
        let _turn = self.take_turn().await?;
        let shared = Arc::clone(&self.shared);
        let ours = Attachment::open(shared, self.keep_alive.clone(), UNATTENDED).await?;
        let runs = ours.should_run();
        ours.close_logged().await;
        Ok(runs)
    }

    async fn let_run(&self) {
        let turn = self.take_turn().await;
        if turn.is_ok() && run_on(&self.shared, UNATTENDED).await.is_err() {
            debug!("the guest was not let run");
        }
    }

    async fn take_turn(&self) -> Result<Turn, CommandError> {
        self.shared.take_turn("hand over", UNATTENDED.into()).await
    }
}

/// The next debugger that is let in.
async fn next(listener: &mut DebuggerListener) -> Visitor {
    loop {
        match listener.next().await {
            Ok(visitor) => return visitor,
            Err(stranger) => warn!("{stranger}"),
        }
    }
}

/// A stub serves one.
async fn turn_away(listener: &mut DebuggerListener) -> Infallible {
    loop {
        let second = next(listener).await;
        tokio::spawn(async { second.refuse("another debugger is here already").await });
    }
}

/// Waits until nobody is to be let in any more; whether the debugger of ours takes the guest back.
async fn until_over(orders: &mut watch::Receiver<Orders>) -> bool {
    let taken = orders.wait_for(|orders| *orders == Orders::TakeBack).await;
    taken.is_ok()
}

/// Passes on what each says, until one of them has hung up.
async fn relay(peer: &mut Visitor, stub: &mut UnixStream) -> io::Result<()> {
    let (mut from_peer, mut to_peer) = split(peer);
    let (mut from_stub, mut to_stub) = stub.split();
    let ended = tokio::select! {
        ended = copy(&mut from_peer, &mut to_stub) => ended,
        ended = copy(&mut from_stub, &mut to_peer) => ended,
    };
    ended.map(drop)
}

/// What was asked for last is done when QEMU closes its end. A debugger that sends no more may still
/// read the answer.
async fn last_words(stub: &mut UnixStream, peer: Option<&mut Visitor>) -> io::Result<()> {
    stub.shutdown().await?;
    match peer {
        Some(peer) => drop(copy(stub, peer).await),
        None => drop(copy(stub, &mut sink()).await),
    }
    Ok(())
}
