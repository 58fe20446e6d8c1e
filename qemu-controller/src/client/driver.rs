//! The heart of a session: one task owns the monitor's stream and the protocol state; handles share
//! them under one lock.
//!
//! ```text
//!   handle ──submit──▶ ┌────────── Shared (one lock) ──────────┐ ◀──poll── driver task
//!   (any task,         │ transport · Connection · waiters ·    │   reads, routes replies and events,
//!    any runtime)      │ events · run state · how it ended     │   finishes what a submit could not write
//!                      └───────────────────────────────────────┘
//! ```
//!
//! A submit encodes the command and writes it at once from the caller's own task, registering the
//! *driver's* waker with the socket; so a command costs one write and no hop to another task on its
//! way down, and what could not be written is the driver's to finish. On the way up the driver
//! reads, hands each reply to its waiter and each event to the subscribers, in the order in which
//! QEMU sent them.
//!
//! The driver ends with the stream. It then waits for the process, so that everybody who waits gets
//! the same answer with the exit status in it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use qemu_launch::ProcessHandle;
use qmp_proto::commands::StatusInfo;
use qmp_proto::{DecodeError, DecodeErrorKind, Received};
use tokio::io::ReadBuf;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::debug;

use crate::client::transport::READ_CHUNK;
use crate::client::{Answer, Shared, State};
use crate::error::SessionEnd;

/// How many reads are made in one turn, however much there is: those who want the lock wait for a
/// millisecond at the most, and what a turn brings is a small part of what can wait for a
/// subscriber.
const MOST_READS: usize = 8;

/// How long QEMU may take to exit after it closed its monitor: a few milliseconds, and once more
/// than two seconds after a crash on a machine with a load of 40 on two cores.
const EXIT_AFTER_EOF: Duration = Duration::from_secs(15);

/// How long the socket of a QEMU that has exited is read for its end; it is there already, unless
/// QEMU left a child that holds it.
const DRAIN_AFTER_EXIT: Duration = Duration::from_millis(500);

/// What a turn at the stream has come to.
enum Turn {
    /// There may be more to read.
    More,
    /// The stream is over.
    Over(SessionEnd),
}

impl State {
    /// Writes from whichever task has the lock; what the socket does not take is left to the
    /// driver, whose waker the socket gets.
    pub(crate) fn write_from_submit(&mut self) {
        let driver = self.driver.clone();
        self.write(&mut Context::from_waker(&driver));
    }

    /// Writes what is waiting. That QEMU has hung up (EPIPE, ECONNRESET) is not the end yet: unread
    /// input may still hold its last messages. Any other failure is on our side and ends the
    /// session, since a QEMU that is well would not close the stream.
    fn write(&mut self, cx: &mut Context<'_>) {
        let Some(transport) = &mut self.transport else {
            return;
        };
        while !self.write_failed && !self.connection.output().is_empty() {
            match transport.as_mut().poll_write(cx, self.connection.output()) {
                Poll::Ready(Ok(written @ 1..)) => self.connection.advance_output(written),
                Poll::Ready(Err(error)) if !has_hung_up(&error) => {
                    self.write_failed = true;
                    self.pending_end = Some(SessionEnd::Io(Arc::new(error)));
                    self.driver.wake_by_ref();
                }
                Poll::Ready(_) => self.write_failed = true,
                Poll::Pending => return,
            }
        }
    }

    /// Reads and routes until the socket is empty, which leaves `cx` with it, or for one turn.
    fn poll_read(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Turn> {
        let mut chunk = [MaybeUninit::uninit(); READ_CHUNK];
        for _ in 0..MOST_READS {
            let mut chunk = ReadBuf::uninit(&mut chunk);
            let Some(transport) = &mut self.transport else {
                return Poll::Ready(Turn::Over(SessionEnd::Closed));
            };
            let end = match ready!(transport.as_mut().poll_read(cx, &mut chunk)) {
                Ok(()) if chunk.filled().is_empty() => Some(SessionEnd::Closed),
                Ok(()) => None,
                // After `quit` the stream often ends so; whatever came before has been read.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    Some(SessionEnd::Closed)
                }
                Err(error) => Some(SessionEnd::Io(Arc::new(error))),
            };
            match end {
                None => {
                    if let Some(transcript) = &mut self.transcript {
                        transcript.received(chunk.filled());
                    }
                    self.connection.handle_input(chunk.filled());
                }
                Some(_) => {
                    shared.set_closed();
                    self.connection.handle_eof();
                }
            }
            let routed = self.route();
            shared.free_slots(self);
            if let Err(error) = routed {
                return Poll::Ready(Turn::Over(SessionEnd::Protocol(error)));
            }
            if let Some(ended) = end {
                return Poll::Ready(Turn::Over(ended));
            }
        }
        Poll::Ready(Turn::More)
    }

    /// Routes what the connection has decoded so far.
    fn route(&mut self) -> Result<(), DecodeError> {
        let routed = self.route_each();
        self.flush_events();
        routed
    }

    /// Events are queued: to deliver them one by one would cost more than to read them.
    fn route_each(&mut self) -> Result<(), DecodeError> {
        while let Some(received) = self.connection.poll()? {
            match received {
                Received::Reply { id, result } => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        if waiter.is_status {
                            self.note_status(&result);
                        }
                        self.flush_events();
                        waiter.answer(result);
                    }
                }
                Received::Event(event) => {
                    debug!(event = %event.name, "event");
                    if let Ok(typed) = event.typed() {
                        self.history.note(&typed);
                        self.latest.observe(typed);
                    }
                    if let Some(subscribers) = &mut self.subscribers {
                        subscribers.queue(event);
                    }
                }
                Received::Greeting(greeting) => {
                    if let Some(waiter) = self.greeting.take() {
                        let _ = waiter.send(greeting);
                    }
                }
                Received::Negotiated(result) => {
                    if let Some(waiter) = self.negotiated.take() {
                        let _ = waiter.send(result);
                    }
                }
                other => debug!(?other, "dropped by the QMP connection"),
            }
        }
        Ok(())
    }

    /// Delivers the events that have come so far, and the run state that they led to: before any
    /// answer that came after them.
    fn flush_events(&mut self) {
        if let Some(run_state) = &self.run_state {
            // Wakes those who watch only when it is another state.
            run_state.send_if_modified(|watched| {
                let is_new = *watched != self.latest.now;
                watched.clone_from(&self.latest.now);
                is_new
            });
        }
        if let Some(subscribers) = &mut self.subscribers {
            subscribers.flush();
        }
    }

    /// Notes the run state in an answer to `query-status`. The same text as that of the last answer
    /// is not parsed again: whoever asks often mostly gets the same one.
    fn note_status(&mut self, answer: &Answer) {
        let Ok(value) = answer else { return };
        if let Some((text, status)) = &self.last_status
            && text == value
        {
            self.latest.now = status.clone();
        } else if let Ok(StatusInfo { status, .. }) = value.parse() {
            self.last_status = Some((value.clone(), status.clone()));
            self.latest.now = status;
        }
    }
}

fn has_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Runs a session until its stream ends, then publishes how. `process` is QEMU's, where it is
/// ours.
pub(crate) async fn drive(shared: Arc<Shared>, process: Option<ProcessHandle>) {
    let guard = EndOnDrop(shared);
    let shared = &*guard.0;
    let mut stream = pin!(shared.stream());
    let Some(process) = process else {
        let ended = stream.await;
        return shared.finish(ended);
    };
    let ended = tokio::select! {
        biased;
        ended = &mut stream => ended,
        exit = process.wait() => {
            // What QEMU wrote before it ended is still in the socket.
            if timeout(DRAIN_AFTER_EXIT, stream).await.is_err() {
                // What exited was a wrapper, and QEMU a child of it.
                shared.send_quit();
            }
            return shared.finish(SessionEnd::Exited(exit));
        }
    };
    let may_have_exited = match &ended {
        SessionEnd::Closed => true,
        // In the middle of a message: it ended while it wrote.
        SessionEnd::Protocol(error) => *error.kind() == DecodeErrorKind::Truncated,
        // QEMU is well, or was when it said what it should not.
        _ => false,
    };
    let exit = async {
        if may_have_exited {
            timeout(EXIT_AFTER_EOF, process.wait()).await.ok()
        } else {
            None
        }
    };
    shared.finish(exit.await.map_or(ended, SessionEnd::Exited));
}

impl Shared {
    /// Serves the stream until it is over.
    async fn stream(&self) -> SessionEnd {
        loop {
            match poll_fn(|cx| self.poll_io(cx)).await {
                Turn::Over(ended) => return ended,
                // The subscribers and all other tasks come first, `block_on`'s own among them: a
                // flood would else run past those who do keep up.
                Turn::More => yield_now().await,
            }
        }
    }

    fn poll_io(&self, cx: &mut Context<'_>) -> Poll<Turn> {
        let mut state = self.state();
        if !state.driver.will_wake(cx.waker()) {
            state.driver = cx.waker().clone();
        }
        if let Some(ended) = state.pending_end.take() {
            return Poll::Ready(Turn::Over(ended));
        }
        state.write(cx);
        state.poll_read(cx, self)
    }

    /// Reads what is there already, from the task of a caller whose time is up: an answer that has
    /// come counts, even if this program was held up and not QEMU. So does the end, which it tells.
    pub(crate) fn poll_once(&self) -> bool {
        let mut state = self.state();
        let driver = state.driver.clone();
        if let Poll::Ready(turn) = state.poll_read(&mut Context::from_waker(&driver), self) {
            if let Turn::Over(ended) = turn {
                state.pending_end = Some(ended);
            }
            driver.wake();
        }
        state.pending_end.is_some() || state.transport.is_none()
    }
}

/// Says so when the driver's task is dropped before its end: the runtime was shut down.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.finish(SessionEnd::RuntimeGone);
    }
}

#[cfg(test)]
mod tests {
    use qemu_launch::{MachineSpec, Process};
    use qmp_proto::{Connection, Limits};
    use tempfile::TempDir;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tracing::Span;

    use super::*;
    use crate::client::SessionGuard;

    /// A session that nobody has begun, with a program in QEMU's place.
    async fn driven(folder: &TempDir, script: &str) -> (SessionGuard, Process, DuplexStream) {
        let path = folder.path().join("qemu-system-arm");
        test_support::write_program(&path, format!("#!/bin/sh\n{script}\n"), 0o755);
        let process = qemu_launch::spawn_async(MachineSpec::default().qemu(path))
            .await
            .unwrap();
        let (ours, theirs) = duplex(1024);
        let connection = Connection::new(Limits::default());
        (
            SessionGuard::new(Box::pin(ours), connection, None, Span::none()),
            process,
            theirs,
        )
    }

    #[tokio::test]
    async fn an_exit_in_the_middle_of_a_message_is_an_exit() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, process, mut stream) =
            driven(&folder, "echo 'gone wrong' >&2; sleep 0.1; exit 3").await;
        tokio::spawn(drive(shared.share(), Some(process.handle())));
        stream.write_all(br#"{"QMP": {"version": "#).await.unwrap();
        drop(stream);
        let ended = shared.end().await;
        let SessionEnd::Exited(exit) = &ended else {
            panic!("{ended:?}")
        };
        assert_eq!(exit.code(), Some(3));
        assert_eq!(exit.stderr().to_string_lossy().trim(), "gone wrong");
    }

    #[tokio::test]
    async fn a_failure_of_our_own_waits_for_no_exit() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, process, _stream) = driven(&folder, "exec sleep 1000").await;
        tokio::time::pause();
        shared.state().pending_end =
            Some(SessionEnd::Io(Arc::new(io::ErrorKind::OutOfMemory.into())));
        let began = tokio::time::Instant::now();
        drive(shared.share(), Some(process.handle())).await;
        assert!(matches!(shared.end().await, SessionEnd::Io(_)));
        assert!(began.elapsed().is_zero());
    }
}
