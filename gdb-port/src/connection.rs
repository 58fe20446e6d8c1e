//! Our connection to a stub: a socket, the probe that speaks over it, whether the listener has
//! accepted it, and a last packet if it is dropped in the middle.
//!
//! Between the last look and the connection another client may win the race. Our connection then
//! waits in the listener's queue, and QEMU stops the guest when it accepts it, however long we are
//! gone: neither closing nor resetting the connection takes it out of the queue (measured, Linux
//! 6.18). So the queue is looked at until the first answer, and a connection found waiting there is
//! handed back as [`QueuedConnection`].

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::StubAddress;
use crate::dialogue::{Outcome, Probe};
use crate::error::ConnectError;
use crate::listen::{ListenState, Listener, inspect, is_accepted};
use crate::options::ProbeOptions;
use crate::reachability::{GuestEffect, Reachability, UnknownReason, WrongAnswer};
use crate::wait::Pauses;

/// Pauses between looks, while a client is leaving or an answer is awaited, grow to this.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What a probe found, what it did, and what it had to leave behind.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "a queued connection stops the guest when it is accepted"]
pub struct Report {
    /// Who answered, if anybody.
    pub reachability: Reachability,
    /// What it did to the guest.
    pub effect: GuestEffect,
    /// The connection, if the listener had not accepted it: another client was faster, or the
    /// listener hangs.
    pub queued: Option<QueuedConnection>,
}

impl Report {
    pub(crate) fn untouched(reachability: Reachability) -> Self {
        Self {
            reachability,
            effect: GuestEffect::Untouched,
            queued: None,
        }
    }
}

/// A connection that waits in the listener's queue. QEMU stops the guest when it accepts it.
///
/// [`finish`](Self::finish) waits until that happens, and leaves in order then. Dropped, it is
/// closed, which does not take it out of the queue; if the guest was known to run and
/// [`Leave::RunOn`](crate::Leave::RunOn) was asked for, a last packet is left in it that lets the
/// guest run on as soon as it was stopped (also a guest that the client in front left stopped,
/// which cannot be foreseen).
pub struct QueuedConnection {
    pub(crate) connection: Connection,
    pub(crate) options: ProbeOptions,
}

impl fmt::Debug for QueuedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedConnection").finish_non_exhaustive()
    }
}

impl QueuedConnection {
    /// Gives the probe time until `deadline` from now, and no longer gives way to other clients.
    pub(crate) fn restart(self, deadline: Duration) -> (Connection, ProbeOptions) {
        let Self {
            mut connection,
            mut options,
        } = self;
        options.deadline = deadline;
        connection.probe.set_deadlines(&options, Instant::now());
        connection.queue.give_way = false;
        (connection, options)
    }
}

/// Where our connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptState {
    Accepted,
    /// Not accepted, and nobody is in front of it: the listener hangs, or is about to accept.
    Waits,
    /// Not accepted while another client is attached.
    WaitsBehindClient,
    /// Somebody is attached and somebody waits; which is ours is not shown (unix sockets).
    Unsure,
    /// The kernel's tables do not show it.
    NotShown,
}

/// A connection and the probe that speaks over it.
///
/// Dropped before it has left in order, also while it is still connecting, it sends the probe's
/// detach packet. So the socket is held here, and a runtime gets a copy of it: a connect future
/// that is dropped takes its socket with it.
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) probe: Probe,
    pub(crate) queue: Queue,
    left: bool,
}

impl Connection {
    /// A socket that is not connected yet, non-blocking, and where to connect it.
    pub(crate) fn new(
        endpoint: &StubAddress,
        options: &ProbeOptions,
    ) -> io::Result<(Self, SockAddr)> {
        let (domain, address) = match endpoint {
            StubAddress::Tcp(address) => (Domain::for_address(*address), (*address).into()),
            #[cfg(unix)]
            StubAddress::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
            #[cfg(not(unix))]
            StubAddress::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let StubAddress::Tcp(_) = endpoint {
            // Small packets both ways: Nagle's algorithm would hold each for a delayed
            // acknowledgment, 40 ms.
            socket.set_tcp_nodelay(true)?;
        }
        let connection = Self {
            socket,
            probe: Probe::new(options, Instant::now()),
            queue: Queue::new(endpoint.clone()),
            left: false,
        };
        Ok((connection, address))
    }

    /// Begins to connect, without waiting for it.
    #[cfg(feature = "tokio")]
    pub(crate) fn begin_to_connect(&mut self, address: &SockAddr) -> io::Result<()> {
        match self.socket.connect(address) {
            // Of a unix socket, WouldBlock: the listener's queue is full.
            Err(error) if address.is_unix() || !is_in_progress(&error) => {
                self.left = true;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Connects, and waits for it until `deadline`.
    pub(crate) fn connect_blocking(
        &mut self,
        address: &SockAddr,
        deadline: Instant,
    ) -> io::Result<()> {
        let connected = if address.is_unix() {
            self.socket.connect(address)
        } else {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket
                .connect_timeout(address, left.max(Duration::from_millis(1)))
        };
        self.left = connected.is_err();
        connected?;
        self.connected()
    }

    /// To be called when it is connected.
    pub(crate) fn connected(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            self.left = true;
            return Err(error);
        }
        self.queue.local = self.socket.local_addr()?.as_socket();
        Ok(())
    }

    /// The report on a probe that ended, or found itself still queued. `leave` closes, and waits
    /// until the other side has closed too.
    pub(crate) fn still_queued(self, state: AcceptState, options: ProbeOptions) -> Report {
        let reachability = match state {
            AcceptState::WaitsBehindClient | AcceptState::Unsure => {
                Reachability::HeldByAnotherClient
            }
            _ => Reachability::Silent {
                accepted: Some(false),
            },
        };
        Report {
            reachability,
            effect: GuestEffect::Pending,
            queued: Some(QueuedConnection {
                connection: self,
                options,
            }),
        }
    }

    /// The report on a probe that has ended and left.
    pub(crate) fn finished(mut self, accepted: Option<bool>) -> Report {
        self.left = true;
        let Outcome {
            mut reachability,
            effect,
        } = self.probe.outcome();
        if let Reachability::Silent { accepted: known } = &mut reachability {
            *known = accepted;
        }
        Report {
            reachability,
            effect,
            queued: None,
        }
    }

    /// Whether the listener has accepted it; `None` where that is not shown.
    pub(crate) fn is_accepted(&self) -> Option<bool> {
        if self.probe.has_input() {
            return Some(true);
        }
        match self.queue.accept_state() {
            AcceptState::Accepted => Some(true),
            AcceptState::Waits | AcceptState::WaitsBehindClient => Some(false),
            AcceptState::Unsure | AcceptState::NotShown => None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.left || self.socket.set_nonblocking(true).is_err() {
            return;
        }
        // What the stub sent meanwhile may show that the guest ran.
        let mut buffer = [0; 4096];
        if let Ok(count) = self.socket.read(&mut buffer) {
            self.probe.handle_input(&buffer[..count]);
        }
        // What is half written must be ended first: inside a packet, QEMU takes a `$` for an
        // ordinary byte.
        let mut bytes = self.probe.output().to_vec();
        bytes.extend(self.probe.detach_packet());
        // The socket's buffer has room for these few bytes unless the other side hangs, and then
        // nothing helps.
        let _ = self.socket.write(&bytes);
    }
}

#[cfg(feature = "tokio")]
fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::INPROGRESS) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}

/// The listener's queue, in which our connection may wait.
pub(crate) struct Queue {
    endpoint: StubAddress,
    local: Option<SocketAddr>,
    /// Whether to return at once when another client is in front.
    pub(crate) give_way: bool,
    pauses: Pauses,
    next_look: Instant,
}

impl Queue {
    fn new(endpoint: StubAddress) -> Self {
        let mut pauses = Pauses::new(LONGEST_PAUSE);
        let next_look = Instant::now() + pauses.next_pause();
        Self {
            endpoint,
            local: None,
            give_way: true,
            pauses,
            next_look,
        }
    }

    fn accept_state(&self) -> AcceptState {
        let ListenState::Present(Listener {
            attached, queued, ..
        }) = inspect(&self.endpoint, None)
        else {
            return AcceptState::NotShown;
        };
        if let (StubAddress::Tcp(remote), Some(local)) = (&self.endpoint, self.local) {
            return match is_accepted(local, *remote) {
                Some(true) => AcceptState::Accepted,
                Some(false) if attached > 0 => AcceptState::WaitsBehindClient,
                Some(false) => AcceptState::Waits,
                None => AcceptState::NotShown,
            };
        }
        match (attached, queued) {
            (_, 0) => AcceptState::Accepted,
            (0, _) => AcceptState::Waits,
            _ => AcceptState::Unsure,
        }
    }

    /// Whether to stop since the connection waits in the queue: at the deadline, or at once behind
    /// another client.
    fn reason_to_stop(&self, is_deadline: bool) -> Option<AcceptState> {
        match self.accept_state() {
            AcceptState::Accepted | AcceptState::NotShown => None,
            AcceptState::WaitsBehindClient if self.give_way => Some(AcceptState::WaitsBehindClient),
            state => is_deadline.then_some(state),
        }
    }
}

/// What a driver of the probe does next.
pub(crate) enum Step {
    /// Write the probe's output, until then.
    Write(Instant),
    /// Read, until then.
    Read(Instant),
    /// Close.
    Finished,
    /// Hand the connection back: it was not accepted.
    StillQueued(AcceptState),
}

/// What to do at `now`. `queue` is that of the connection, if it has one that can be looked at.
pub(crate) fn next_step(probe: &mut Probe, queue: Option<&mut Queue>, now: Instant) -> Step {
    let mut queue = queue.filter(|_| !probe.has_input());
    if probe.is_deadline_due(now) {
        if let Some(state) = queue.as_ref().and_then(|queue| queue.reason_to_stop(true)) {
            return Step::StillQueued(state);
        }
    }
    probe.handle_timeout(now);
    let Some(due) = probe.poll_timeout() else {
        return Step::Finished;
    };
    if !probe.output().is_empty() {
        return Step::Write(due);
    }
    // Only who gives way needs to know before the deadline; who finishes may wait for hours.
    let Some(queue) = queue.as_mut().filter(|queue| queue.give_way) else {
        return Step::Read(due);
    };
    if queue.next_look <= now {
        if let Some(state) = queue.reason_to_stop(false) {
            return Step::StillQueued(state);
        }
        queue.next_look = now + queue.pauses.next_pause();
    }
    Step::Read(due.min(queue.next_look))
}

/// What a look before connecting says.
pub(crate) enum BeforeConnecting {
    Connect,
    Answer(Reachability),
    /// Somebody is just leaving, or was just accepted: a moment later the answer is another.
    LookAgain,
}

pub(crate) fn look_before_connecting(
    endpoint: &StubAddress,
    options: &ProbeOptions,
    deadline: Instant,
) -> BeforeConnecting {
    let state = inspect(endpoint, options.owner);
    match state {
        ListenState::Present(Listener {
            attached: 0,
            leaving: 0,
            queued: 0,
        }) => BeforeConnecting::Connect,
        ListenState::Present(Listener { attached: 0, .. }) if Instant::now() < deadline => {
            BeforeConnecting::LookAgain
        }
        // That nobody is attached is the caller's word; that it is the right process is not.
        ListenState::Unknown(UnknownReason::OwnerHidden) => {
            BeforeConnecting::Answer(state.reachability())
        }
        ListenState::Unknown(_) if options.nobody_attached => BeforeConnecting::Connect,
        _ => BeforeConnecting::Answer(state.reachability()),
    }
}

/// What a refused connection says of the stub.
///
/// # Errors
/// The error, when it says nothing about the stub.
pub(crate) fn refused(
    endpoint: &StubAddress,
    options: &ProbeOptions,
    error: io::Error,
) -> Result<Report, ConnectError> {
    let never_accepted = Reachability::Silent {
        accepted: Some(false),
    };
    let reachability = match error.kind() {
        // Of a unix socket, NotFound: the file has gone since the look.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Reachability::NobodyListens,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            Reachability::NotAGdbStub(WrongAnswer::Closed)
        }
        io::ErrorKind::TimedOut => never_accepted,
        // A unix socket with a full queue.
        io::ErrorKind::WouldBlock => match inspect(endpoint, options.owner) {
            ListenState::Present(Listener { attached: 0, .. }) => never_accepted,
            _ => Reachability::HeldByAnotherClient,
        },
        _ => {
            return Err(ConnectError {
                endpoint: endpoint.to_string(),
                source: error,
            });
        }
    };
    Ok(Report::untouched(reachability))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_is_to_be_finished_is_looked_at_at_the_deadline_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        let options = ProbeOptions::default().deadline(Duration::from_secs(3600));
        let mut now = Instant::now();
        let mut probe = Probe::new(&options, now);
        let mut queue = Queue::new(StubAddress::Tcp(address));
        queue.give_way = false;
        let mut waits = 0;
        let state = loop {
            match next_step(&mut probe, Some(&mut queue), now) {
                Step::Write(_) => probe.advance_output(usize::MAX),
                Step::Read(until) => {
                    waits += 1;
                    now = until;
                }
                Step::Finished => panic!("it is still queued"),
                Step::StillQueued(state) => break state,
            }
        };
        // Until the nudge, and until the deadline.
        assert_eq!((waits, state), (2, AcceptState::Waits));
    }
}
