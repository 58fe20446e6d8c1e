//! The driver of the probe: looks first, connects only to a listener that nobody else holds, moves
//! bytes, leaves in order.
//!
//! Between the last look and the connection another client may win the race. Our connection then
//! waits in the listener's queue, and QEMU stops the guest when it accepts it, however long we are
//! gone: neither closing nor resetting the connection takes it out of the queue (measured, Linux
//! 6.18). So the queue is watched until the first answer, and a connection found waiting there is
//! handed back as [`Unaccepted`], to be held and settled.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::channel::{Channel, Queue};
use crate::error::ConnectError;
use crate::listen::{Listener, Look, look};
use crate::options::ProbeOptions;
use crate::probe::{Outcome, Probe};
use crate::reachability::{Blind, GuestEffect, Reachability, Seen};
use crate::stub_address::StubAddress;
use crate::wait::Pauses;

/// Pauses between looks, while a client is leaving or an answer is awaited, grow to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What a probe found, what it did, and what it had to leave behind.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "an unaccepted connection, once dropped, stops the guest when it is accepted"]
pub struct Report {
    /// Who answered, if anybody.
    pub reachability: Reachability,
    /// What it did to the guest.
    pub effect: GuestEffect,
    /// The connection, if the listener had not accepted it: another client was faster, or the
    /// listener hangs.
    pub unaccepted: Option<Unaccepted>,
}

impl Report {
    fn untouched(reachability: Reachability) -> Self {
        Self {
            reachability,
            effect: GuestEffect::Untouched,
            unaccepted: None,
        }
    }
}

impl From<Outcome> for Report {
    fn from(outcome: Outcome) -> Self {
        Self {
            reachability: outcome.reachability,
            effect: outcome.effect,
            unaccepted: None,
        }
    }
}

/// A connection that waits in the listener's queue. QEMU stops the guest when it accepts it.
///
/// [`settle`](Self::settle) it, in a task of its own if nobody waits for it: that waits until it is accepted, and leaves in
/// order then. Dropped before, it is closed, which does not take it out of the queue; if the guest
/// was known to run and [`Leave::RunOn`](crate::Leave::RunOn) was asked for, a last packet is left
/// in it that lets the guest run on as soon as it was stopped (also a guest that the client in
/// front left stopped, which cannot be foreseen).
pub struct Unaccepted {
    channel: Channel,
    options: ProbeOptions,
}

impl fmt::Debug for Unaccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unaccepted").finish_non_exhaustive()
    }
}

impl Unaccepted {
    /// Waits up to `deadline` until the connection is accepted, then probes and leaves as the
    /// options of the probe said.
    ///
    /// Still unaccepted after that, the report has it again.
    pub async fn settle(self, deadline: Duration) -> Report {
        let Self {
            channel,
            mut options,
        } = self;
        options.deadline = deadline;
        converse_watched(channel, &options, false).await
    }
}

/// Probes the stub on `endpoint`: **this stops a running guest**, and the report says so. One that
/// is let run on stood still for about 1 ms (QEMU 7.2 on an idle machine).
///
/// Looks first. Only if somebody listens (the process `options.owner`, if named) and no client is
/// attached or waiting does it connect. Where looks see nothing (another platform than Linux, an
/// address of another host) it connects only if the caller vouches with
/// [`ProbeOptions::nobody_attached`]; otherwise the answer is [`Reachability::Unknown`].
///
/// Ends within `options.deadline` plus twice `options.leave_within`. Cancelling it by dropping the
/// future closes the connection; a guest that is known to have run, and is to run on, is let go by
/// a last packet.
///
/// # Errors
/// Only what says nothing about the stub: the system has no sockets left, or forbids the
/// connection. Nobody listening, silence, strange answers are results.
pub async fn probe(endpoint: &StubAddress, options: &ProbeOptions) -> Result<Report, ConnectError> {
    let deadline = Instant::now() + options.bounded_deadline();
    if let Some(reachability) = refuse_by_look(endpoint, options, deadline).await {
        return Ok(Report::untouched(reachability));
    }
    connect_and_converse(endpoint, options, deadline).await
}

/// The probe as it is when another client has won the race since the look.
///
/// # Errors
/// As [`probe`].
#[cfg(any(test, feature = "testing"))]
pub async fn probe_unlooked(
    endpoint: &StubAddress,
    options: &ProbeOptions,
) -> Result<Report, ConnectError> {
    connect_and_converse(
        endpoint,
        options,
        Instant::now() + options.bounded_deadline(),
    )
    .await
}

async fn connect_and_converse(
    endpoint: &StubAddress,
    options: &ProbeOptions,
    deadline: Instant,
) -> Result<Report, ConnectError> {
    let channel = match timeout_at(deadline, Channel::connect(endpoint, options)).await {
        // A full queue: the listener's kernel does not even answer.
        Err(_) => {
            return Ok(Report::untouched(Reachability::Silent {
                accepted: Some(false),
            }));
        }
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return refused(endpoint, options, error).map(Report::untouched),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let options = ProbeOptions {
        deadline: left,
        ..options.clone()
    };
    Ok(converse_watched(channel, &options, true).await)
}

/// Probes over a stream that is open already, for example one end of a relay. The stream is shut
/// down at the end.
///
/// Where it came from cannot be looked up: that no other client holds the stub is for the caller to
/// know. An unaccepted connection shows as [`Reachability::Silent`] here.
pub async fn probe_stream<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    options: &ProbeOptions,
) -> Outcome {
    let mut probe = Probe::new(options);
    let clock = Clock::new(options);
    converse(&mut stream, &mut probe, &clock, None).await;
    part(&mut stream, options.bounded_leave()).await;
    probe.outcome()
}

/// Looks until the port is free; the answer, if it is not to be connected to.
async fn refuse_by_look(
    endpoint: &StubAddress,
    options: &ProbeOptions,
    deadline: Instant,
) -> Option<Reachability> {
    let mut pauses = Pauses::new(LONGEST_PAUSE);
    loop {
        let seen = look(endpoint, options.owner);
        match seen {
            Look::Present(Listener {
                attached: 0,
                leaving: 0,
                queued: 0,
            }) => return None,
            // A client that has just gone, or was just accepted: a moment later the answer is
            // another.
            Look::Present(Listener { attached: 0, .. }) if Instant::now() < deadline => {}
            // That nobody is attached is the caller's word; that it is the right process is not.
            Look::Unknown(Blind::OwnerHidden) => return Some(seen.reachability()),
            Look::Unknown(_) if options.nobody_attached => return None,
            _ => return Some(seen.reachability()),
        }
        sleep(pauses.next_pause()).await;
    }
}

/// What a refused connection says of the stub.
fn refused(
    endpoint: &StubAddress,
    options: &ProbeOptions,
    error: ConnectError,
) -> Result<Reachability, ConnectError> {
    let ConnectError::Connect { source, .. } = &error else {
        return Err(error);
    };
    match source.kind() {
        // Of a unix socket, NotFound: the file has gone since the look.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            Ok(Reachability::NobodyListens)
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            Ok(Reachability::NotAGdbStub(Seen::Closed))
        }
        io::ErrorKind::TimedOut => Ok(Reachability::Silent {
            accepted: Some(false),
        }),
        // A unix socket with a full queue.
        io::ErrorKind::WouldBlock => Ok(match look(endpoint, options.owner) {
            Look::Present(Listener { attached: 0, .. }) => Reachability::Silent {
                accepted: Some(false),
            },
            _ => Reachability::HeldByAnotherClient,
        }),
        _ => Err(error),
    }
}

async fn converse_watched(mut channel: Channel, options: &ProbeOptions, give_way: bool) -> Report {
    let clock = Clock::new(options);
    let ending = channel.converse(&clock, give_way).await;
    let queue = match ending {
        Ending::Finished => None,
        Ending::StillQueued(queue) => Some(queue),
    };
    if let Some(queue) = queue {
        let reachability = match queue {
            Queue::WaitsBehindClient | Queue::Unsure => Reachability::HeldByAnotherClient,
            _ => Reachability::Silent {
                accepted: Some(false),
            },
        };
        let unaccepted = Some(Unaccepted {
            channel,
            options: options.clone(),
        });
        return Report {
            reachability,
            effect: GuestEffect::Pending,
            unaccepted,
        };
    }
    let accepted = channel.queue().is_accepted();
    let mut outcome = channel.leave(options.bounded_leave()).await;
    if let Reachability::Silent { accepted: known } = &mut outcome.reachability {
        *known = accepted;
    }
    outcome.into()
}

/// How a conversation ended.
pub(crate) enum Ending {
    Finished,
    /// The connection was never accepted.
    StillQueued(Queue),
}

/// When what is due.
pub(crate) struct Clock {
    silence: Instant,
    deadline: Instant,
    leave_by: Instant,
}

impl Clock {
    fn new(options: &ProbeOptions) -> Self {
        let now = Instant::now();
        let deadline = now + options.bounded_deadline();
        Self {
            silence: now + options.bounded_deadline() / 2,
            deadline,
            leave_by: deadline + options.bounded_leave(),
        }
    }
}

/// Tells where our connection is, and whether to return at once when another client is in front of
/// it.
pub(crate) struct Watch<'a> {
    pub(crate) queue: &'a (dyn Fn() -> Queue + Sync),
    pub(crate) give_way: bool,
}

/// Moves bytes between the stream and the probe until the probe is done or its time is over.
pub(crate) async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    probe: &mut Probe,
    clock: &Clock,
    watch: Option<Watch<'_>>,
) -> Ending {
    let mut buffer = vec![0; 8 * 1024];
    let mut pauses = Pauses::new(LONGEST_PAUSE);
    let mut nudged = false;
    let mut over = false;
    loop {
        let now = Instant::now();
        if !over && now >= clock.deadline {
            if let Some(ending) = watch
                .as_ref()
                .and_then(|watch| still_queued(probe, watch, true))
            {
                return ending;
            }
            over = true;
            probe.handle_deadline();
        } else if !nudged && now >= clock.silence {
            nudged = true;
            probe.handle_silence();
        } else if now >= clock.leave_by {
            return Ending::Finished;
        }
        let due = if over {
            clock.leave_by
        } else if nudged {
            clock.deadline
        } else {
            clock.silence
        };
        if !probe.output().is_empty() {
            match timeout_at(due, stream.write(probe.output())).await {
                Err(_) => {}
                Ok(Ok(written)) if written > 0 => probe.advance_output(written),
                // Nobody reads any more; what the stub said before may still be there.
                Ok(_) => probe.advance_output(usize::MAX),
            }
            continue;
        }
        if probe.is_done() {
            return Ending::Finished;
        }
        // Only who gives way needs to know before the deadline; who settles may wait for hours.
        let watched = watch
            .as_ref()
            .filter(|watch| watch.give_way && !probe.heard_anything());
        let until = watched.map_or(due, |_| due.min(now + pauses.next_pause()));
        match timeout_at(until, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => probe.handle_eof(),
            Ok(Ok(count)) => probe.handle_input(&buffer[..count]),
            Err(_) => {
                if let Some(ending) = watched.and_then(|watch| still_queued(probe, watch, false)) {
                    return ending;
                }
            }
        }
    }
}

/// Whether to stop since the connection waits in the queue: at the deadline, or at once behind
/// another client.
fn still_queued(probe: &Probe, watch: &Watch<'_>, at_deadline: bool) -> Option<Ending> {
    if probe.heard_anything() {
        return None;
    }
    match (watch.queue)() {
        Queue::Accepted | Queue::NotShown => None,
        queue @ Queue::WaitsBehindClient if watch.give_way || at_deadline => {
            Some(Ending::StillQueued(queue))
        }
        queue if at_deadline => Some(Ending::StillQueued(queue)),
        _ => None,
    }
}

/// Says that nothing more comes, and waits a little until the other side has closed too: the port
/// is free then.
pub(crate) async fn part<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, within: Duration) {
    let closing = async {
        if stream.shutdown().await.is_ok() {
            let mut rest = [0; 1024];
            while matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {}
        }
    };
    // Whoever does not close within that time is left to itself.
    let _ = timeout(within, closing).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How often the queue is looked at in an hour of silence, and how it ended.
    async fn looks_in_an_hour(give_way: bool) -> (usize, Ending) {
        let (mut near, _far) = tokio::io::duplex(4096);
        let options = ProbeOptions::default().deadline(Duration::from_secs(3600));
        let looks = AtomicUsize::new(0);
        let queue = || {
            looks.fetch_add(1, Ordering::Relaxed);
            Queue::Waits
        };
        let watch = Some(Watch {
            queue: &queue,
            give_way,
        });
        let mut probe = Probe::new(&options);
        let ending = converse(&mut near, &mut probe, &Clock::new(&options), watch).await;
        (looks.into_inner(), ending)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_settles_is_looked_after_at_the_deadline_alone() {
        let (looks, ending) = looks_in_an_hour(false).await;
        assert_eq!(looks, 1);
        assert!(matches!(ending, Ending::StillQueued(Queue::Waits)));
        // Who gives way looks again and again.
        assert!(looks_in_an_hour(true).await.0 > 1000);
    }
}
