//! One connection to a monitor: its phases, what is in flight, and its end.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, mem};
#[cfg(feature = "std")]
use std::io::{self, Read, Write};

use serde::Serialize;

#[cfg(feature = "std")]
use crate::output;
use crate::{
    codec::Codec,
    command::{self, Command, CommandId},
    commands::QmpCapabilities,
    error::{DecodeError, DecodeErrorKind, SendError},
    event::QmpEvent,
    greeting::{Capability, Greeting},
    limits::Limits,
    message::{MessageId, ServerMessage},
    output::Output,
    raw::RawReturn,
    server_error::ServerError,
};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// No greeting has come yet. Nothing may be sent: QEMU could still run it as an earlier
    /// client's.
    AwaitingGreeting,
    /// The greeting came: [`Connection::negotiate`] is next.
    Greeted,
    /// `qmp_capabilities` is sent and not yet answered.
    Negotiating,
    /// Commands may be sent.
    Ready,
    /// The stream ended between messages.
    Closed,
    /// The peer broke the protocol, or the stream ended inside a message.
    Failed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwaitingGreeting => "waiting for the server's greeting",
            Self::Greeted => "capabilities are not negotiated",
            Self::Negotiating => "capabilities are being negotiated",
            Self::Ready => "ready for commands",
            Self::Closed => "the connection is closed",
            Self::Failed => "the connection has failed",
        })
    }
}

/// What [`Connection::poll`] hands out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Received {
    /// The server's greeting: call [`Connection::negotiate`].
    Greeting(Greeting),
    /// The server's answer to [`Connection::negotiate`]. After an error the phase is
    /// [`Phase::Greeted`] again, and other capabilities may be tried.
    Negotiated(Result<(), ServerError>),
    /// The answer to a command.
    Reply {
        /// As `command` or `execute` returned it.
        id: CommandId,
        /// The raw return, or the server's error.
        result: Result<RawReturn, ServerError>,
    },
    /// Something happened.
    Event(QmpEvent),
    /// An error without an id: QEMU could not read some input, and whose it was is not certain.
    UnattributedError(ServerError),
    /// A message that is not for this connection's callers. The connection goes on.
    Dropped(Dropped),
    /// The stream ended between messages. Comes once, last. [`Connection::take_lost`] has the
    /// commands that were in flight.
    Closed,
}

/// Why a message was dropped.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Dropped {
    /// It came before the greeting: meant for an earlier client of the same socket.
    BeforeGreeting(ServerMessage),
    /// The late answer to an abandoned command. Its place in flight is free again.
    Abandoned {
        /// The command.
        id: CommandId,
        /// What the answer was.
        result: Result<RawReturn, ServerError>,
    },
    /// An answer whose id no command in flight has: an earlier client's, or a second answer to the
    /// same command.
    UnknownId(MessageId),
    /// A return without id before negotiation was answered: an earlier client of the same socket
    /// sent a command without an id and left, and QEMU has run it only now. Once the connection is
    /// [`Phase::Ready`] such a return is fatal, as every command answered from then on had an id.
    ReturnWithoutId,
}

/// A command in flight.
#[derive(Debug)]
struct InFlight {
    number: u64,
    oob: bool,
    abandoned: bool,
    /// The output's end after this command, in bytes of all that was ever added.
    output_end: u64,
}

/// A QMP connection without its socket: bytes in, messages out; commands in, bytes out.
///
/// In a loop, whether blocking or async:
///
/// 1. write [`output`](Self::output), and report how much of it went out to
///    [`advance_output`](Self::advance_output);
/// 2. read, and hand it to [`handle_input`](Self::handle_input), or call
///    [`handle_eof`](Self::handle_eof);
/// 3. call [`poll`](Self::poll) until it returns `None`;
/// 4. call [`negotiate`](Self::negotiate) after the greeting, and [`command`](Self::command) or
///    [`execute`](Self::execute) when [`phase`](Self::phase) is [`Phase::Ready`].
///
/// With `std`, [`write_to`](Self::write_to) and [`read_from`](Self::read_from) are steps 1 and 2
/// for anything that is `Write` and `Read`.
///
/// QMP has no timers, and neither has this. A caller that has waited long enough for a reply calls
/// [`abandon`](Self::abandon). Every id comes back just once: in a [`Received::Reply`], by the
/// caller's own `abandon`, or from [`take_lost`](Self::take_lost).
///
/// # How a connection ends
/// QEMU sends `SHUTDOWN` and the reply to `quit`, then closes the stream. What the client's socket
/// says depends on what was under way: an end of file as a rule; `ECONNRESET` from a read where
/// QEMU left input unread, a newline after `quit` for example; `EPIPE` from a write. All of them
/// mean that the server is gone. Only a read tells the end: after `EPIPE` read on, as the last
/// messages may still be there.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    codec: Codec,
    phase: Phase,
    prefix: u32,
    last_number: u64,
    /// What the greeting offered.
    offered: Vec<Capability>,
    /// What `negotiate` asked for.
    oob_asked: bool,
    oob_enabled: bool,
    /// In the order in which they were sent, so sorted by number.
    in_flight: VecDeque<InFlight>,
    lost: Vec<CommandId>,
    dropped: u64,
    output: Output,
}

impl Connection {
    /// A connection at the start of its stream. Its ids begin with a random prefix of 32 bits, from
    /// the seed of the standard library's hasher, so that an earlier client's late answer is not
    /// taken for one of ours.
    #[cfg(feature = "std")]
    pub fn new(limits: Limits) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self::with_id_prefix(limits, RandomState::new().hash_one(0_u8) as u32)
    }

    /// A connection whose ids begin with this prefix: for runs that must repeat byte by byte, and
    /// for `no_std`. No earlier client of the same socket should have had it.
    pub fn with_id_prefix(limits: Limits, prefix: u32) -> Self {
        Self {
            limits,
            codec: Codec::new(limits),
            phase: Phase::AwaitingGreeting,
            prefix,
            last_number: 0,
            offered: Vec::new(),
            oob_asked: false,
            oob_enabled: false,
            in_flight: VecDeque::new(),
            lost: Vec::new(),
            dropped: 0,
            output: Output::default(),
        }
    }

    /// Takes what was read from the server. Empty input does nothing, and neither does input after
    /// the connection's end. Call [`poll`](Self::poll) until it returns `None` afterwards: what is
    /// not polled stays in memory. In bytes that come one at a time a fault may be reported a
    /// little late, see [`Codec::feed`].
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.codec.feed(bytes);
    }

    /// The server closed the stream, or reset it. Messages that came before are still polled first.
    pub fn handle_eof(&mut self) {
        self.codec.feed_eof();
    }

    /// One read from `stream`, of 8 KiB at most, for [`handle_input`](Self::handle_input). 0 is the
    /// stream's end, which `ECONNRESET` counts as. Then call [`poll`](Self::poll).
    ///
    /// # Errors
    /// What the read says, but for `ECONNRESET`; the connection is then as before. `WouldBlock` and
    /// `TimedOut` are a socket's own time-out.
    #[cfg(feature = "std")]
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let count = output::read_from(stream, |bytes| self.handle_input(bytes))?;
        if count == 0 {
            self.handle_eof();
        }
        Ok(count)
    }

    /// One write of [`output`](Self::output) to `stream`; 0 where there is none. It may be a part:
    /// call it until [`output`](Self::output) is empty.
    ///
    /// # Errors
    /// What the write says; what was not written is still there. After `EPIPE` go on to read: the
    /// server's last messages may still be there.
    #[cfg(feature = "std")]
    pub fn write_to(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        self.output.write_to(stream)
    }

    /// Sends `qmp_capabilities`, enabling these; usually none. The answer is a
    /// [`Received::Negotiated`].
    ///
    /// # Errors
    /// [`SendError::WrongPhase`] unless the phase is [`Phase::Greeted`], [`SendError::NotOffered`]
    /// for a capability that the greeting did not have; [`SendError::Encode`] only under a tiny
    /// command limit. The state is then as before.
    pub fn negotiate(&mut self, enable: &[Capability]) -> Result<(), SendError> {
        self.require(Phase::Greeted)?;
        if let Some(missing) = enable.iter().find(|one| !self.offered.contains(one)) {
            return Err(SendError::NotOffered(missing.as_str().into()));
        }
        let enables = (!enable.is_empty()).then_some(QmpCapabilities::new(enable));
        self.send(QmpCapabilities::NAME, false, &enables)?;
        self.oob_asked = enable.contains(&Capability::Oob);
        self.phase = Phase::Negotiating;
        Ok(())
    }

    /// Puts a typed command into the output, to be run in its turn.
    ///
    /// # Errors
    /// [`SendError`]: the wrong phase, no place in flight, or a command that cannot be sent. The
    /// state is then as before.
    pub fn command<C: Command>(&mut self, command: &C) -> Result<CommandId, SendError> {
        self.execute(C::NAME, command)
    }

    /// [`command`](Self::command) by name, with arguments that serialise to an object, or to null
    /// (as `&()` does) for none.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn execute<A: Serialize + ?Sized>(
        &mut self,
        name: &str,
        arguments: &A,
    ) -> Result<CommandId, SendError> {
        self.require(Phase::Ready)?;
        self.send(name, false, arguments)
    }

    /// Puts a typed command into the output, to be run at once, out of band. QEMU takes few
    /// commands so and answers others with a `GenericError`.
    ///
    /// # Errors
    /// As [`command`](Self::command), and [`SendError::OobNotEnabled`].
    pub fn command_oob<C: Command>(&mut self, command: &C) -> Result<CommandId, SendError> {
        self.execute_oob(C::NAME, command)
    }

    /// [`command_oob`](Self::command_oob) by name.
    ///
    /// # Errors
    /// As [`command_oob`](Self::command_oob).
    pub fn execute_oob<A: Serialize + ?Sized>(
        &mut self,
        name: &str,
        arguments: &A,
    ) -> Result<CommandId, SendError> {
        self.require(Phase::Ready)?;
        if !self.oob_enabled {
            return Err(SendError::OobNotEnabled);
        }
        self.send(name, true, arguments)
    }

    /// Whether [`execute`](Self::execute) would find the right phase and a place in flight.
    pub fn can_execute(&self) -> bool {
        self.phase == Phase::Ready && self.in_flight_in_band() < self.limits.max_in_flight
    }

    /// Gives a command up: its reply, should it come, is a [`Received::Dropped`], and its place in
    /// flight stays taken until then, as the server still works on it. True if the command was in
    /// flight and not yet abandoned; otherwise nothing changes.
    pub fn abandon(&mut self, id: CommandId) -> bool {
        match self.index_of(id) {
            // The command in flight while negotiating is `qmp_capabilities`.
            Some(index) if self.phase != Phase::Negotiating => {
                !mem::replace(&mut self.in_flight[index].abandoned, true)
            }
            _ => false,
        }
    }

    /// What is to be written to the server. Writing a part is normal.
    pub fn output(&self) -> &[u8] {
        self.output.waiting()
    }

    /// Takes so many bytes of [`output`](Self::output) as written.
    ///
    /// # Panics
    /// If that is more than there are.
    pub fn advance_output(&mut self, written: usize) {
        self.output.advance(written);
    }

    /// Takes all of [`output`](Self::output), for a thread or task that does the writing. It counts
    /// as written.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.output.take()
    }

    /// The next thing that the server sent, or `None` if more input is needed or the end was
    /// reported.
    ///
    /// # Errors
    /// [`DecodeError`] where the peer broke the protocol: the same at every later call. The phase
    /// is then [`Phase::Failed`], and [`take_lost`](Self::take_lost) has the commands that were in
    /// flight.
    pub fn poll(&mut self) -> Result<Option<Received>, DecodeError> {
        if self.phase == Phase::Closed {
            return Ok(None);
        }
        let received = self.codec.next_message().and_then(|message| match message {
            Some(message) => self
                .handle_message(message)
                .map(Some)
                .map_err(|kind| self.codec.fail_last(kind)),
            None => Ok(None),
        });
        match &received {
            Err(_) => self.end(Phase::Failed),
            Ok(None) if self.codec.is_finished() => {
                self.end(Phase::Closed);
                return Ok(Some(Received::Closed));
            }
            Ok(Some(Received::Dropped(_))) => self.dropped += 1,
            Ok(_) => {}
        }
        received
    }

    /// After the connection's end: the commands that were in flight and not abandoned, oldest
    /// first. Each is handed out once. Before the end there are none.
    pub fn take_lost(&mut self) -> Vec<CommandId> {
        mem::take(&mut self.lost)
    }

    /// How far the connection has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Commands in flight, in-band and out-of-band; abandoned ones and `qmp_capabilities` count.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// In-band commands in flight; abandoned ones and `qmp_capabilities` count.
    pub fn in_flight_in_band(&self) -> usize {
        self.count_in_flight(false)
    }

    /// Messages dropped so far; each was also a [`Received::Dropped`].
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether out-of-band commands may be sent.
    pub fn oob_enabled(&self) -> bool {
        self.oob_enabled
    }

    fn count_in_flight(&self, oob: bool) -> usize {
        self.in_flight.iter().filter(|one| one.oob == oob).count()
    }

    fn require(&self, phase: Phase) -> Result<(), SendError> {
        if self.phase == phase {
            Ok(())
        } else {
            Err(SendError::WrongPhase { phase: self.phase })
        }
    }

    fn send<A: Serialize + ?Sized>(
        &mut self,
        name: &str,
        oob: bool,
        arguments: &A,
    ) -> Result<CommandId, SendError> {
        let limit = self.limits.max_in_flight;
        if self.count_in_flight(oob) >= limit {
            return Err(SendError::Full { limit });
        }
        let number = self.last_number + 1;
        let id = CommandId::new(self.prefix, number);
        let most = self.limits.max_command_bytes;
        self.output
            .add(|out| command::write(name, oob, arguments, id, most, out))?;
        self.last_number = number;
        self.in_flight.push_back(InFlight {
            number,
            oob,
            abandoned: false,
            output_end: self.output.added(),
        });
        Ok(id)
    }

    fn index_of(&self, id: CommandId) -> Option<usize> {
        if id.prefix() != self.prefix {
            return None;
        }
        self.in_flight
            .binary_search_by_key(&id.number(), |one| one.number)
            .ok()
    }

    fn handle_message(&mut self, message: ServerMessage) -> Result<Received, DecodeErrorKind> {
        match (self.phase, message) {
            (Phase::AwaitingGreeting, ServerMessage::Greeting(greeting)) => {
                self.phase = Phase::Greeted;
                self.offered.clone_from(&greeting.capabilities);
                Ok(Received::Greeting(greeting))
            }
            (Phase::AwaitingGreeting, early) => {
                Ok(Received::Dropped(Dropped::BeforeGreeting(early)))
            }
            (_, ServerMessage::Greeting(_)) => Err(DecodeErrorKind::protocol(
                "second greeting in one connection",
            )),
            (_, ServerMessage::Event(event)) => Ok(Received::Event(event)),
            (
                _,
                ServerMessage::Return {
                    id: Some(id),
                    value,
                },
            ) => Ok(self.handle_answer(id, Ok(value))),
            (
                _,
                ServerMessage::Error {
                    id: Some(id),
                    error,
                },
            ) => Ok(self.handle_answer(id, Err(error))),
            // QEMU answers in turn: once negotiation is answered, so is all that an earlier client
            // sent.
            (Phase::Ready, ServerMessage::Return { id: None, .. }) => {
                Err(DecodeErrorKind::protocol(
                    "return without id, although every command was sent with one",
                ))
            }
            (_, ServerMessage::Return { id: None, .. }) => {
                Ok(Received::Dropped(Dropped::ReturnWithoutId))
            }
            (_, ServerMessage::Error { id: None, error }) => {
                Ok(self.handle_error_without_id(error))
            }
        }
    }

    fn handle_answer(&mut self, id: MessageId, result: Result<RawReturn, ServerError>) -> Received {
        let ours = match id {
            MessageId::Command(id) => self.index_of(id).map(|index| (index, id)),
            MessageId::Foreign(_) => None,
        };
        match ours {
            Some((index, id)) => self.complete(index, id, result),
            None => Received::Dropped(Dropped::UnknownId(id)),
        }
    }

    /// QEMU answers unreadable input in its turn among the in-band commands. Once negotiation is
    /// answered, so is all input of an earlier client; the error then belongs to the oldest command
    /// in flight, if that was written whole and none is out of band.
    fn handle_error_without_id(&mut self, error: ServerError) -> Received {
        match self.in_flight.front() {
            Some(first)
                if self.phase == Phase::Ready
                    && first.output_end <= self.output.sent()
                    && self.in_flight.iter().all(|one| !one.oob) =>
            {
                self.complete(0, CommandId::new(self.prefix, first.number), Err(error))
            }
            _ => Received::UnattributedError(error),
        }
    }

    /// Takes a command out of flight with its answer.
    fn complete(
        &mut self,
        index: usize,
        id: CommandId,
        result: Result<RawReturn, ServerError>,
    ) -> Received {
        let command = self.in_flight.remove(index);
        if self.phase == Phase::Negotiating {
            let accepted = result.is_ok();
            self.phase = if accepted {
                Phase::Ready
            } else {
                Phase::Greeted
            };
            self.oob_enabled = accepted && self.oob_asked;
            return Received::Negotiated(result.map(|_| ()));
        }
        if command.is_some_and(|command| command.abandoned) {
            Received::Dropped(Dropped::Abandoned { id, result })
        } else {
            Received::Reply { id, result }
        }
    }

    /// Ends the connection. The commands in flight are lost, but for abandoned ones.
    fn end(&mut self, phase: Phase) {
        let was_negotiating = self.phase == Phase::Negotiating;
        self.phase = phase;
        let prefix = self.prefix;
        let waited_for = self
            .in_flight
            .drain(..)
            .filter(|one| !one.abandoned && !was_negotiating);
        self.lost
            .extend(waited_for.map(|one| CommandId::new(prefix, one.number)));
    }
}
