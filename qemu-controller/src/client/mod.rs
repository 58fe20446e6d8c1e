//! One QMP connection on tokio: what the handles of a session and its driver share, under one lock.
//!
//! It knows no process but by its handle, and no feature. The rule of this crate's folders, which
//! `xtask/tests/layers.rs` checks: *`client` imports nothing of `session`, `guest`, `snapshot`,
//! `fork`; `guest`, `snapshot` and `fork` do not know each other (`fork` may use `snapshot`);
//! `session` names them all. A debugger may fork the guest that it has stopped: `debug` names `fork`,
//! and never the other way round.*

pub(crate) mod command;
#[cfg(feature = "debugger")]
mod descriptor;
pub(crate) mod driver;
pub(crate) mod events;
mod history;
pub(crate) mod log_sink;
pub(crate) mod qtest;
pub(crate) mod run_state;
pub(crate) mod transaction;
pub(crate) mod transcript;
pub(crate) mod transport;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use qmp_proto::Command as _;
use qmp_proto::commands::{QueryStatus, Quit, RunState};
use qmp_proto::{
    Capability, CommandId, Connection, Greeting, MAX_IN_FLIGHT, Phase, RawReturn, SendError,
    ServerError,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tracing::{Span, info};

use crate::error::SessionEnd;
use events::{Events, Subscribers};
use history::History;
use run_state::{RunRequests, RunStateTracker};
use transcript::Transcript;
use transport::BoxTransport;

/// What one command comes back with.
pub(crate) type Answer = Result<RawReturn, ServerError>;

/// What the handles and the driver share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// A permit for each in-band command that QEMU may still take; who waits for one is served in
    /// order.
    in_band: Semaphore,
    /// The same for out-of-band commands.
    out_of_band: Semaphore,
    /// The monitor's end of the stream is closed; how QEMU ended may not be known yet.
    closed: AtomicBool,
    /// Set once, when the session has ended.
    pub(crate) ended: watch::Sender<Option<SessionEnd>>,
    /// Held by what takes several commands: there is one at a time.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// Who asked for which run state, for a debugger.
    pub(crate) run_requests: RunRequests,
    /// Where the driver runs, and whatever is finished after its caller has gone.
    pub(crate) runtime: Handle,
    /// In which whatever concerns this session is traced.
    pub(crate) span: Span,
}

pub(crate) struct State {
    /// Closed with the session's end.
    pub(crate) transport: Option<BoxTransport>,
    pub(crate) connection: Connection,
    pub(crate) waiters: HashMap<CommandId, Waiter>,
    /// Permits that are out, in-band and out of band: commands in flight, abandoned ones included.
    permits_out: [usize; 2],
    pub(crate) greeting: Option<oneshot::Sender<Greeting>>,
    pub(crate) negotiated: Option<oneshot::Sender<Result<(), ServerError>>>,
    /// None when the session has ended.
    pub(crate) subscribers: Option<Subscribers>,
    /// The run state as those who watch it have seen it.
    pub(crate) run_state: Option<watch::Sender<RunState>>,
    /// Kept from events and from answers to `query-status`; published with the events that came
    /// with it.
    pub(crate) latest: RunStateTracker,
    /// The last answer to `query-status`, and the run state in it.
    pub(crate) last_status: Option<(RawReturn, RunState)>,
    /// Kept when the session has ended.
    pub(crate) history: History,
    pub(crate) transcript: Option<Transcript>,
    /// A write failed; what is still to be read comes first, and tells why.
    pub(crate) write_failed: bool,
    /// How the session is to end after a failed write; the driver takes it.
    pub(crate) pending_end: Option<SessionEnd>,
    pub(crate) driver: Waker,
}

/// Somebody who waits for an answer.
pub(crate) struct Waiter {
    answer: oneshot::Sender<Answer>,
    /// It is an answer to `query-status`, with the run state in it.
    pub(crate) is_status: bool,
}

/// In which of QEMU's queues a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Band {
    In,
    Out,
}

/// A slot among the commands that QEMU takes at once.
pub(crate) struct InFlightSlot<'a> {
    band: Band,
    permit: SemaphorePermit<'a>,
}

/// The session's own hold on what it shares with its driver: dropping it ends the driver and closes
/// the stream.
pub(crate) struct SessionGuard(Arc<Shared>);

impl SessionGuard {
    /// In the runtime that the driver will have.
    pub(crate) fn new(
        transport: BoxTransport,
        connection: Connection,
        transcript: Option<Transcript>,
        span: Span,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                transport: Some(transport),
                connection,
                waiters: HashMap::new(),
                permits_out: [0; 2],
                greeting: None,
                negotiated: None,
                subscribers: Some(Subscribers::default()),
                // Before the first answered `query-status` nobody can ask.
                run_state: Some(watch::Sender::new(RunState::Prelaunch)),
                latest: RunStateTracker::new(RunState::Prelaunch),
                last_status: None,
                history: History::default(),
                transcript,
                write_failed: false,
                pending_end: None,
                driver: Waker::noop().clone(),
            }),
            in_band: Semaphore::new(MAX_IN_FLIGHT),
            out_of_band: Semaphore::new(MAX_IN_FLIGHT),
            closed: AtomicBool::new(false),
            ended: watch::Sender::new(None),
            turn: Arc::default(),
            run_requests: RunRequests::default(),
            runtime: Handle::current(),
            span,
        }))
    }

    /// For the driver, and for futures that may outlive the handle.
    pub(crate) fn share(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }
}

impl Deref for SessionGuard {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Shared {
    /// A panic under the lock is a bug of ours; the state is consistent enough that a second panic
    /// would not help.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
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
        state.encode(|connection| connection.negotiate(enable))?;
        let (sender, receiver) = oneshot::channel();
        state.negotiated = Some(sender);
        state.write_from_submit();
        Ok(receiver)
    }

    /// Waits, in order, for a slot among the commands that QEMU takes at once; none when the
    /// session has ended.
    pub(crate) async fn slot(&self, band: Band) -> Option<InFlightSlot<'_>> {
        let permit = self.slots(band).acquire().await.ok()?;
        Some(InFlightSlot { band, permit })
    }

    fn slots(&self, band: Band) -> &Semaphore {
        match band {
            Band::In => &self.in_band,
            Band::Out => &self.out_of_band,
        }
    }

    /// Gives back the places of commands that QEMU has answered, to whomever.
    pub(crate) fn free_slots(&self, state: &mut State) {
        let in_band = state.connection.in_flight_in_band();
        let out_of_band = state.connection.in_flight() - in_band;
        for (band, in_flight) in [(Band::In, in_band), (Band::Out, out_of_band)] {
            let out = &mut state.permits_out[band as usize];
            // A running negotiation is in flight too, and has no permit.
            let freed = out.saturating_sub(in_flight);
            *out -= freed;
            self.slots(band).add_permits(freed);
        }
    }

    /// Encodes a command and writes it as far as the socket takes it; the answer arrives in the
    /// receiver, which fails when the session ends first.
    pub(crate) fn submit(
        &self,
        slot: InFlightSlot<'_>,
        name: &str,
        encode: impl FnOnce(&mut Connection) -> Result<CommandId, SendError>,
    ) -> Result<(CommandId, oneshot::Receiver<Answer>), SendError> {
        let mut state = self.state();
        let id = state.encode(encode)?;
        slot.permit.forget();
        state.permits_out[slot.band as usize] += 1;
        let (answer, receiver) = oneshot::channel();
        state.history.sent(name);
        let is_status = name == QueryStatus::NAME;
        state.waiters.insert(id, Waiter { answer, is_status });
        state.write_from_submit();
        Ok((id, receiver))
    }

    /// The caller gave up: its late reply will be dropped, its slot with QEMU is kept until then.
    pub(crate) fn abandon(&self, id: CommandId) {
        let mut state = self.state();
        if state.waiters.remove(&id).is_some() {
            state.connection.abandon(id);
        }
    }

    /// Everything from this moment on. After the end of the session, a stream that is over.
    pub(crate) fn subscribe(&self) -> Events {
        self.state()
            .subscribers
            .as_mut()
            .map_or_else(Events::ended, Subscribers::subscribe)
    }

    /// The run state as it is known; the sender is gone when the session has ended.
    pub(crate) fn run_state(&self) -> watch::Receiver<RunState> {
        match &self.state().run_state {
            Some(run_state) => run_state.subscribe(),
            None => watch::Sender::new(RunState::Shutdown).subscribe(),
        }
    }

    /// How the session ended, if it has.
    pub(crate) fn how_it_ended(&self) -> Option<SessionEnd> {
        self.ended.borrow().clone()
    }

    /// Whether the monitor's end of the stream was seen to be closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Asks QEMU to end, and waits for nothing: one that a wrapper started is not our child, and
    /// would outlive the wrapper.
    pub(crate) fn send_quit(&self) {
        let mut state = self.state();
        // Where it cannot be sent, its process is all there is.
        if state
            .encode(|connection| connection.execute(Quit::NAME, &()))
            .is_ok()
        {
            state.write_from_submit();
        }
    }

    /// Waits for the end of the session.
    pub(crate) async fn end(&self) -> SessionEnd {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(SessionEnd::RuntimeGone),
            // The sender lives in `self`.
            Err(_) => SessionEnd::RuntimeGone,
        }
    }

    /// Closes the stream and ends the session, here and now: the driver's runtime may not run
    /// again.
    pub(crate) fn release(&self) {
        self.finish(SessionEnd::Released);
        self.state().driver.wake_by_ref();
    }

    /// Releases the session when the transaction that has begun, if one has, is over.
    pub(crate) fn release_in_turn(self: &Arc<Self>) {
        if let Ok(_turn) = self.turn.try_lock() {
            return self.release();
        }
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let _turn = shared.turn.lock().await;
            shared.release();
        });
    }

    /// Publishes how the session ended; the first caller wins.
    pub(crate) fn finish(&self, ended: SessionEnd) {
        let waiters = {
            let mut state = self.state();
            if self.ended.borrow().is_some() {
                return;
            }
            info!(parent: &self.span, %ended, "session ended");
            self.ended.send_replace(Some(ended));
            state.transport = None;
            state.subscribers = None;
            state.run_state = None;
            state.transcript = None;
            state.greeting = None;
            state.negotiated = None;
            std::mem::take(&mut state.waiters)
        };
        self.in_band.close();
        self.out_of_band.close();
        drop(waiters);
    }
}

impl State {
    /// Runs one of the connection's senders, and writes down what it put out. After the end of the
    /// session, which may come between a slot and its command, nobody would ever answer.
    fn encode<T>(
        &mut self,
        send: impl FnOnce(&mut Connection) -> Result<T, SendError>,
    ) -> Result<T, SendError> {
        if self.transport.is_none() {
            return Err(SendError::WrongPhase {
                phase: Phase::Closed,
            });
        }
        let before = self.connection.output().len();
        let sent = send(&mut self.connection)?;
        if let Some(transcript) = &mut self.transcript {
            transcript.sent(&self.connection.output()[before..]);
        }
        Ok(sent)
    }
}

impl Waiter {
    /// Delivers the answer; its future may have been dropped this very moment.
    pub(crate) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use qmp_proto::Limits;

    use super::*;

    #[tokio::test]
    async fn a_place_that_was_given_before_the_end_sends_nothing_after_it() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let shared = SessionGuard::new(
            Box::pin(ours),
            Connection::new(Limits::default()),
            None,
            Span::none(),
        );
        let slot = shared.slot(Band::In).await.unwrap();
        shared.release();
        let sent = shared.submit(slot, "stop", |_| panic!("there is nobody to send it"));
        assert!(matches!(
            sent,
            Err(SendError::WrongPhase {
                phase: Phase::Closed
            })
        ));
    }
}
