//! The heart of a session: one task owns the monitor's stream and the protocol state; handles share them under one lock.
//!
//! ```text
//!   handle ──submit──▶ ┌────────── Shared (one lock) ──────────┐ ◀──poll── driver task
//!   (any task,         │ transport · Connection · waiters ·    │   reads, routes replies and events,
//!    any runtime)      │ events · run state · how it ended     │   finishes what a submit could not write
//!                      └───────────────────────────────────────┘
//! ```
//!
//! A submit encodes the command and writes it at once from the caller's own task, registering the *driver's* waker with the socket; so a command costs one
//! write and no hop to another task on its way down, and what could not be written is the driver's to finish. On the way up the driver reads, hands each
//! reply to its waiter and each event to the subscribers, in the order in which QEMU sent them.
//!
//! The driver ends with the stream. It then waits for the process, so that everybody who waits gets the same answer with the exit status in it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use qemu_launch::Watch;
use qmp_proto::{
    Capability, CommandId, Connection, DecodeError, Event, Greeting, MAX_IN_FLIGHT, QmpEvent, RawReturn,
    SendError, ServerError,
};
use tokio::io::ReadBuf;
use tokio::sync::{Semaphore, SemaphorePermit, broadcast, oneshot, watch};
use tokio::time::timeout;
use tracing::debug;

use crate::error::Ended;
use crate::transport::BoxTransport;

/// How many bytes one read takes at most: a whole schema reply takes some twenty reads, an ordinary reply one.
const READ_CHUNK: usize = 16 * 1024;

/// How many events a subscriber may be behind before it misses the oldest.
pub(crate) const EVENT_BACKLOG: usize = 1024;

/// How long QEMU may take to exit after it closed its monitor; it is a few milliseconds.
const EXIT_AFTER_EOF: Duration = Duration::from_secs(2);

/// How long the socket of a QEMU that has exited is read for its end; it is there already, unless QEMU left a child that holds it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What one command comes back with.
pub(crate) type Answer = Result<RawReturn, ServerError>;

/// What the handles and the driver share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// One permit for each in-band command that QEMU may still take; who waits for one is served in order.
    pub(crate) in_band: Semaphore,
    /// Set once, when the session has ended.
    pub(crate) ended: watch::Sender<Option<Ended>>,
}

struct State {
    /// Closed with the session's end.
    transport: Option<BoxTransport>,
    connection: Connection,
    waiters: HashMap<CommandId, oneshot::Sender<Answer>>,
    /// Permits of `in_band` that are out: commands in flight, abandoned ones included.
    permits_out: usize,
    greeting: Option<oneshot::Sender<Greeting>>,
    negotiated: Option<oneshot::Sender<Result<(), ServerError>>>,
    /// Made by the first subscriber: a session that nobody listens to keeps no backlog.
    events: Option<broadcast::Sender<QmpEvent>>,
    /// A write failed; what is still to be read comes first, and tells why.
    write_failed: bool,
    /// Nobody holds the session any more.
    released: bool,
    driver: Waker,
}

/// In which of QEMU's queues a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    InBand,
    OutOfBand,
}

/// A place among the commands that QEMU takes at once.
pub(crate) struct Place<'a>(Option<SemaphorePermit<'a>>);

/// The session's own hold on what it shares with its driver: dropping it ends the driver and closes the stream.
pub(crate) struct Owned(Arc<Shared>);

impl Owned {
    pub(crate) fn new(transport: BoxTransport, connection: Connection) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                transport: Some(transport),
                connection,
                waiters: HashMap::new(),
                permits_out: 0,
                greeting: None,
                negotiated: None,
                events: None,
                write_failed: false,
                released: false,
                driver: Waker::noop().clone(),
            }),
            in_band: Semaphore::new(MAX_IN_FLIGHT),
            ended: watch::Sender::new(None),
        }))
    }

    /// For the driver, and for futures that may outlive the handle.
    pub(crate) fn share(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }
}

impl Deref for Owned {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.released = true;
        state.driver.wake_by_ref();
    }
}

impl Shared {
    /// A panic under the lock is a bug of ours; the state is consistent enough that a second panic would not help.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the greeting will arrive. Ask before the driver runs.
    pub(crate) fn greeting(&self) -> oneshot::Receiver<Greeting> {
        let (sender, receiver) = oneshot::channel();
        self.state().greeting = Some(sender);
        receiver
    }

    /// Sends `qmp_capabilities`; the answer arrives in the receiver.
    pub(crate) fn negotiate(
        &self,
        enable: &[Capability],
    ) -> Result<oneshot::Receiver<Result<(), ServerError>>, SendError> {
        let mut state = self.state();
        state.connection.negotiate(enable)?;
        let (sender, receiver) = oneshot::channel();
        state.negotiated = Some(sender);
        state.write_from_submit();
        Ok(receiver)
    }

    /// Waits, in order, for a place among the commands that QEMU takes at once; none when the session has ended.
    pub(crate) async fn place(&self, lane: Lane) -> Option<Place<'_>> {
        Some(Place(match lane {
            Lane::InBand => Some(self.in_band.acquire().await.ok()?),
            Lane::OutOfBand => None,
        }))
    }

    /// Encodes a command and writes it as far as the socket takes it; the answer arrives in the receiver, which fails when the session ends first.
    pub(crate) fn submit(
        &self,
        place: Place<'_>,
        encode: impl FnOnce(&mut Connection) -> Result<CommandId, SendError>,
    ) -> Result<(CommandId, oneshot::Receiver<Answer>), SendError> {
        let mut state = self.state();
        let id = encode(&mut state.connection)?;
        if let Some(permit) = place.0 {
            // The driver gives it back when QEMU has answered, to whomever.
            permit.forget();
            state.permits_out += 1;
        }
        let (sender, receiver) = oneshot::channel();
        state.waiters.insert(id, sender);
        state.write_from_submit();
        Ok((id, receiver))
    }

    /// The caller gave up: its late reply will be dropped, its place with QEMU is kept until then.
    pub(crate) fn abandon(&self, id: CommandId) {
        let mut state = self.state();
        if state.waiters.remove(&id).is_some() {
            state.connection.abandon(id);
        }
    }

    /// Everything from this moment on. After the end of the session, a stream that is over.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<QmpEvent> {
        let mut state = self.state();
        if self.ended.borrow().is_some() {
            return broadcast::Sender::new(1).subscribe();
        }
        state
            .events
            .get_or_insert_with(|| broadcast::Sender::new(EVENT_BACKLOG))
            .subscribe()
    }

    /// How the session ended, if it has.
    pub(crate) fn how_it_ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Waits for the end of the session.
    pub(crate) async fn end(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::RuntimeGone),
            // The sender lives in `self`.
            Err(_) => Ended::RuntimeGone,
        }
    }

    /// Tells everybody how it ended; only the first word counts.
    fn finish(&self, ended: Ended) {
        let waiters = {
            let mut state = self.state();
            if !self
                .ended
                .send_if_modified(|was| was.is_none().then(|| *was = Some(ended)).is_some())
            {
                return;
            }
            state.transport = None;
            state.events = None;
            state.greeting = None;
            state.negotiated = None;
            std::mem::take(&mut state.waiters)
        };
        self.in_band.close();
        drop(waiters);
        debug!("session ended");
    }
}

impl State {
    /// Writes what is waiting, from whichever task has the lock; the rest is the driver's, whose waker the socket gets.
    fn write_from_submit(&mut self) {
        let driver = self.driver.clone();
        self.write(&mut Context::from_waker(&driver));
    }

    /// A failed write is not the end yet: QEMU's last words may still be there to be read.
    fn write(&mut self, cx: &mut Context<'_>) {
        let Some(transport) = &mut self.transport else {
            return;
        };
        while !self.write_failed && !self.connection.output().is_empty() {
            match transport.as_mut().poll_write(cx, self.connection.output()) {
                Poll::Ready(Ok(written @ 1..)) => self.connection.advance_output(written),
                Poll::Ready(_) => self.write_failed = true,
                Poll::Pending => return,
            }
        }
    }

    /// Reads and routes until the socket is empty; ready when the stream is over.
    fn poll_read(&mut self, cx: &mut Context<'_>, in_band: &Semaphore) -> Poll<Ended> {
        let mut chunk = [MaybeUninit::uninit(); READ_CHUNK];
        loop {
            let mut chunk = ReadBuf::uninit(&mut chunk);
            let Some(transport) = &mut self.transport else {
                return Poll::Ready(Ended::Closed);
            };
            let end = match ready!(transport.as_mut().poll_read(cx, &mut chunk)) {
                Ok(()) if chunk.filled().is_empty() => Some(Ended::Closed),
                Ok(()) => None,
                // After `quit` the stream often ends so; whatever came before has been read.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(Ended::Closed),
                Err(error) => Some(Ended::Io(Arc::new(error))),
            };
            match end {
                None => self.connection.handle_input(chunk.filled()),
                Some(_) => self.connection.handle_eof(),
            }
            let routed = self.route();
            // A running negotiation is in flight too, and has no permit.
            let freed = self
                .permits_out
                .saturating_sub(self.connection.in_flight_in_band());
            self.permits_out -= freed;
            in_band.add_permits(freed);
            if let Err(error) = routed {
                return Poll::Ready(Ended::Protocol(error));
            }
            if let Some(ended) = end {
                return Poll::Ready(ended);
            }
        }
    }

    /// Hands on what the connection has understood so far.
    fn route(&mut self) -> Result<(), DecodeError> {
        while let Some(event) = self.connection.poll_event()? {
            match event {
                Event::Reply { id, result } => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        // Its future may have been dropped this very moment.
                        let _ = waiter.send(result);
                    }
                }
                Event::Event(event) => {
                    debug!(event = %event.name, "QMP event");
                    if let Some(events) = &self.events {
                        // Without a subscriber there is nobody to miss it.
                        let _ = events.send(event);
                    }
                }
                Event::Greeting(greeting) => {
                    if let Some(waiter) = self.greeting.take() {
                        let _ = waiter.send(greeting);
                    }
                }
                Event::Negotiated(result) => {
                    if let Some(waiter) = self.negotiated.take() {
                        let _ = waiter.send(result);
                    }
                }
                other => debug!(?other, "dropped by the QMP connection"),
            }
        }
        Ok(())
    }
}

/// Runs a session until its stream ends, then tells everybody how. `process` is QEMU's, where it is ours.
pub(crate) async fn drive(shared: Arc<Shared>, process: Option<Watch>) {
    let teller = Teller(shared);
    let shared = &*teller.0;
    let mut stream = pin!(poll_fn(|cx| shared.poll_io(cx)));
    let Some(process) = process else {
        let ended = stream.await;
        return shared.finish(ended);
    };
    let ended = tokio::select! {
        biased;
        ended = &mut stream => ended,
        exit = process.wait() => {
            // What QEMU wrote before it ended is still in the socket.
            let _ = timeout(LAST_WORDS, stream).await;
            return shared.finish(Ended::Exited(exit));
        }
    };
    shared.finish(match ended {
        Ended::Closed | Ended::Io(_) => match timeout(EXIT_AFTER_EOF, process.wait()).await {
            Ok(exit) => Ended::Exited(exit),
            Err(_) => ended,
        },
        other => other,
    });
}

impl Shared {
    fn poll_io(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut state = self.state();
        if !state.driver.will_wake(cx.waker()) {
            state.driver = cx.waker().clone();
        }
        if state.released {
            return Poll::Ready(Ended::Released);
        }
        state.write(cx);
        state.poll_read(cx, &self.in_band)
    }
}

/// Says so when the driver's task is dropped before its end: the runtime was shut down.
struct Teller(Arc<Shared>);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.finish(Ended::RuntimeGone);
    }
}
