//! Our end of the stub's socket: one request at a time, and somebody who always reads.
//!
//! ```text
//!   a verb ──poll──▶ ┌─ Stub (one lock) ─┐ ◀──poll── reader task
//!   (while it asks)  │ socket · Client   │   (while nobody asks)
//!                    └───────────────────┘
//! ```
//!
//! A stub whose stream nobody reads wedges QEMU 7.2 after 278 stops. So a task reads whenever no
//! verb does; a verb that begins takes over the socket's wake-ups, and gives them back when it
//! ends, so that a question costs no hop between tasks.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use gdb_remote::client::{Client, Closed, Event, Phase, PointKind, Reply, RequestError, SendError};
use gdb_remote::handshake::{Handshake, StubIdentity};
use gdb_remote::reply::{StopReply, ThreadId};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::timeout;

use super::error::DebugError;
use super::questions::Question;
use crate::client::transport::UnixSocket;

/// What is read at once: twice the largest packet of QEMU's.
const CHUNK: usize = 8 * 1024;

/// A breakpoint or watchpoint as the stub has it: kind, address, size.
pub(super) type Point = (PointKind, u64, u32);

pub(super) struct Stub {
    state: Mutex<State>,
}

pub(super) struct State {
    socket: UnixSocket,
    client: Client,
    /// How many verbs are in progress: while there is one, the reader task does not read.
    attended: usize,
    reader: Waker,
    /// `c` or `s` was sent and not answered. Each is answered once, however the guest stops.
    pub(super) runs: bool,
    /// The thread that is current in the stub: that stopped last, or was selected since.
    pub(super) thread: Option<ThreadId>,
    /// While others are looked at, the one that is to be current again.
    pub(super) back_to: Option<ThreadId>,
    /// What is set in the stub.
    pub(super) points: BTreeSet<Point>,
    /// A register that was changed for a look, by its number, and what was in it.
    pub(super) put_back: Option<(u32, Vec<u8>)>,
    /// A verb was dropped in the middle: what it set is to be taken out.
    pub(super) is_dirty: bool,
    /// A verb lets the guest run: dropped in the middle, the guest is to run on.
    pub(super) is_moving: bool,
    /// Whether the guest is to run when nobody debugs it any more, as far as we know.
    pub(super) should_run: bool,
}

/// Held by a verb in progress. The events of the stub are the verb's to read meanwhile.
pub(super) struct Attention(Arc<Stub>);

impl Attention {
    pub(super) fn new(stub: &Arc<Stub>) -> Self {
        stub.state().attended += 1;
        Self(Arc::clone(stub))
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.attended -= 1;
        state.reader.wake_by_ref();
    }
}

/// Gives the request up if it is not answered.
struct InFlight<'a>(&'a Stub);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().client.abandon();
    }
}

impl Stub {
    /// Takes our end of the pair, and reads from now on.
    pub(super) fn new(socket: UnixSocket) -> Arc<Self> {
        let mut client = Client::new(Handshake::new().multiprocess());
        // An acknowledgment that QEMU does not wait for any more would stop a running guest.
        client.stop_acknowledging();
        let stub = Arc::new(Self {
            state: Mutex::new(State {
                socket,
                client,
                attended: 0,
                reader: Waker::noop().clone(),
                runs: false,
                thread: None,
                back_to: None,
                points: BTreeSet::new(),
                put_back: None,
                is_dirty: false,
                is_moving: false,
                should_run: false,
            }),
        });
        let reader = Arc::clone(&stub);
        tokio::spawn(async move { reader.read_unattended().await });
        stub
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of the handshake.
    pub(super) async fn connected(&self, deadline: Duration) -> Result<StubIdentity, DebugError> {
        let what = "who it is";
        let connected = async {
            loop {
                match self.next_event().await {
                    Event::Connected => return Ok(self.state().client.identity().clone()),
                    Event::Closed(why) => return Err(DebugError::Closed(why)),
                    _ => {}
                }
            }
        };
        timeout(deadline, connected)
            .await
            .unwrap_or(Err(DebugError::Deadline { what, deadline }))
    }

    /// Asks all of these, as many at once as QEMU takes, and waits for their answers, which come in
    /// the same order. Dropped, the answers will be dropped too.
    pub(super) async fn ask_all(
        &self,
        questions: &[Question<'_>],
        deadline: Duration,
    ) -> Result<Vec<Result<Reply, RequestError>>, DebugError> {
        let mut answers = Vec::with_capacity(questions.len());
        let answered = async {
            poll_fn(|cx| self.poll_until_idle(cx)).await;
            let _in_flight = InFlight(self);
            let mut to_send = questions.iter();
            let mut in_flight = 0;
            while answers.len() < questions.len() {
                {
                    let mut state = self.state();
                    while in_flight == 0 || state.client.takes_requests() {
                        let Some(&question) = to_send.next() else {
                            break;
                        };
                        let sent = question.send(&mut state.client);
                        sent.map_err(|error| not_sent(question.what(), error))?;
                        in_flight += 1;
                        match question {
                            Question::Insert(point) => _ = state.points.insert(point),
                            Question::Select(thread) => state.thread = Some(thread),
                            _ => {}
                        }
                    }
                }
                let answer = self.reply(&mut None).await?;
                in_flight -= 1;
                // One that QEMU does not have is out as well: a verb that was dropped may have sent
                // this before, and not have had the answer.
                if let Question::Remove(point) = questions[answers.len()] {
                    self.state().points.remove(&point);
                }
                answers.push(answer);
            }
            Ok(())
        };
        let answered = timeout(deadline, answered).await;
        let Some(unanswered) = questions.get(answers.len()) else {
            return Ok(answers);
        };
        let what = unanswered.what();
        Err(match answered {
            Ok(Err(error)) => error,
            _ => DebugError::Deadline { what, deadline },
        })
    }

    /// Asks, and waits for the answer. Dropped, the answer will be dropped too.
    pub(super) async fn ask(
        &self,
        what: &'static str,
        deadline: Duration,
        send: impl FnOnce(&mut Client) -> Result<(), SendError>,
    ) -> Result<Reply, DebugError> {
        self.ask_beside_stops(what, deadline, send, &mut None).await
    }

    /// Reads every stop reply that QEMU has sent so far; the last one, which is about the stop that
    /// lasts. QEMU 7.2 sends one at each stop, of a monitor's commands too: left in the stream, it
    /// would be taken for the answer to the next `c`, while the guest still runs. Whatever is sent
    /// to a guest that runs stops it and is not answered. The guest is stopped.
    pub(super) async fn drain_stops(
        &self,
        deadline: Duration,
    ) -> Result<Option<StopReply>, DebugError> {
        let mut last = None;
        let what = "reading registers";
        let asked =
            self.ask_beside_stops(what, deadline, |client| client.read_registers(), &mut last);
        match asked.await {
            // Its answer comes after them, whatever it is.
            Ok(_) | Err(DebugError::Refused { .. }) => Ok(last),
            Err(error) => Err(error),
        }
    }

    async fn ask_beside_stops(
        &self,
        what: &'static str,
        deadline: Duration,
        send: impl FnOnce(&mut Client) -> Result<(), SendError>,
        last: &mut Option<StopReply>,
    ) -> Result<Reply, DebugError> {
        let answered = async {
            poll_fn(|cx| self.poll_until_idle(cx)).await;
            let _in_flight = InFlight(self);
            let sent = send(&mut self.state().client);
            sent.map_err(|error| not_sent(what, error))?;
            let reply = self.reply(last).await?;
            reply.map_err(|error| DebugError::Refused { what, error })
        };
        timeout(deadline, answered)
            .await
            .unwrap_or(Err(DebugError::Deadline { what, deadline }))
    }

    async fn reply(
        &self,
        last: &mut Option<StopReply>,
    ) -> Result<Result<Reply, RequestError>, DebugError> {
        loop {
            match self.next_event().await {
                Event::Reply(reply) => return Ok(reply),
                Event::Closed(why) => return Err(DebugError::Closed(why)),
                Event::Stopped(reply) => *last = Some(reply),
                _ => {}
            }
        }
    }

    /// Lets the guest run, or execute one instruction. [`Event::Stopped`] comes once.
    pub(super) async fn run(
        &self,
        what: &'static str,
        send: impl FnOnce(&mut Client) -> Result<(), SendError>,
    ) -> Result<(), DebugError> {
        {
            let mut state = self.state();
            let sent = send(&mut state.client);
            sent.map_err(|error| match error {
                SendError::WrongPhase(Phase::Running) => DebugError::Running,
                error => DebugError::Invalid { what, error },
            })?;
            state.runs = true;
        }
        // Before anybody else gets the turn: a monitor's `stop` that overtakes it stops nothing.
        poll_fn(|cx| {
            let mut state = self.state();
            state.write(cx);
            match state.client.output() {
                [] => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        Ok(())
    }

    /// Waits until the guest stops, or the connection is over.
    pub(super) async fn stopped(&self) -> Result<StopReply, DebugError> {
        loop {
            match self.next_event().await {
                Event::Stopped(reply) => return Ok(reply),
                Event::Reply(Err(error)) => {
                    self.state().runs = false;
                    let what = "running the guest";
                    return Err(DebugError::Refused { what, error });
                }
                Event::Closed(why) => return Err(DebugError::Closed(why)),
                _ => {}
            }
        }
    }

    /// The monitor says that the guest runs, or does not: nothing but that is to be relied upon.
    pub(super) fn note(&self, is_running: bool) {
        let mut state = self.state();
        if is_running {
            state.client.note_running();
        } else {
            state.client.note_stopped();
        }
    }

    /// Closes the connection.
    pub(super) fn hang_up(&self) {
        // Whatever the system says, it is over.
        let mut state = self.state();
        let _ = state.socket.get_ref().shutdown(Shutdown::Both);
        state.client.handle_eof();
        state.reader.wake_by_ref();
    }

    async fn next_event(&self) -> Event {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// How many bytes of memory one packet brings at most.
    pub(super) fn memory_piece(&self) -> usize {
        self.state().client.memory_piece()
    }

    /// Whether no answer is awaited, and all was written.
    pub(super) fn is_idle(&self) -> bool {
        self.state().is_idle()
    }

    /// Waits until an answer has come that nobody waits for any more; false at the deadline.
    pub(super) async fn idle(&self, deadline: Duration) -> bool {
        let idle = poll_fn(|cx| self.poll_until_idle(cx));
        timeout(deadline, idle).await.is_ok()
    }

    /// Waits until an answer has come that nobody waits for any more.
    fn poll_until_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        while !state.is_idle() {
            let event = state.poll(cx);
            // An answer that nobody waits for is no event.
            if event.is_pending() && !state.is_idle() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Event> {
        self.state().poll(cx)
    }

    async fn read_unattended(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            state.reader = cx.waker().clone();
            if state.client.phase() == Phase::Closed {
                return Poll::Ready(());
            }
            if state.attended > 0 {
                return Poll::Pending;
            }
            while let Poll::Ready(event) = state.poll(cx) {
                if let Event::Closed(_) = event {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl State {
    /// A verb lets the guest run, or has stopped one that ran.
    pub(super) fn moves(&mut self) {
        (self.should_run, self.is_moving) = (true, true);
    }

    /// What takes out all that is set.
    pub(super) fn removals(&self) -> Vec<Question<'static>> {
        self.points.iter().copied().map(Question::Remove).collect()
    }

    /// Whether QEMU has had all that we sent, and answered what is to be answered.
    fn is_idle(&self) -> bool {
        let phase = self.client.phase();
        phase == Phase::Closed || phase != Phase::Busy && self.client.is_flushed()
    }

    /// The next event, after what is to be written was written and what is there was read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            self.write(cx);
            if let Some(event) = self.client.poll_event() {
                if let Event::Stopped(reply) = &event {
                    self.runs = false;
                    self.thread = reply.thread().or(self.thread);
                    self.back_to = None;
                }
                return Poll::Ready(event);
            }
            if self.client.phase() == Phase::Closed {
                return Poll::Ready(Event::Closed(Closed::Eof));
            }
            ready!(self.read(cx));
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        while !self.client.output().is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, self.client.output()) {
                Poll::Ready(Ok(written)) => self.client.advance_output(written),
                // What QEMU sent before may still be there to be read.
                Poll::Ready(Err(_)) => self.client.advance_output(usize::MAX),
                Poll::Pending => return,
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut chunk)) {
            Ok(()) if !chunk.filled().is_empty() => self.client.handle_input(chunk.filled()),
            _ => self.client.handle_eof(),
        }
        Poll::Ready(())
    }
}

fn not_sent(what: &'static str, error: SendError) -> DebugError {
    match error {
        SendError::WrongPhase(Phase::Running) => DebugError::Running,
        SendError::WrongPhase(Phase::Closed) => DebugError::Closed(Closed::Eof),
        error => DebugError::Invalid { what, error },
    }
}
