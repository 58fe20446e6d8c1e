//! One connection to a monitor: its phases, what is in flight, and its end.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, mem};

use serde::Serialize;

use crate::{
    codec::Codec,
    command::{self, Band, Command, CommandId},
    commands::QmpCapabilities,
    error::{DecodeError, DecodeErrorKind, SendError},
    limits::Limits,
    message::{Capability, Greeting, MessageId, QmpEvent, ServerError, ServerMessage},
    raw::{RawJson, RawReturn},
};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing was heard yet, or nothing that counts. Nothing may be sent: QEMU would run it for an
    /// earlier client's sake once that has left.
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

/// What [`Connection::poll_event`] tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The server greets: call [`Connection::negotiate`].
    Greeting(Greeting),
    /// The server's answer to [`Connection::negotiate`]. After an error the phase is
    /// [`Phase::Greeted`] again, and other capabilities may be tried.
    Negotiated(Result<(), ServerError>),
    /// The answer to a command.
    Reply {
        /// As `execute` returned it.
        id: CommandId,
        /// The raw return, or the server's 'no'.
        result: Result<RawReturn, ServerError>,
    },
    /// Something happened.
    Event(QmpEvent),
    /// An error without an id, which answers input that QEMU could not read, and it is not certain
    /// whose that was.
    UnattributedError(ServerError),
    /// A message that is not for this connection's callers. The connection goes on.
    Dropped(Dropped),
    /// The stream ended between messages. Comes once, last. [`Connection::take_lost`] has what was
    /// in flight.
    Closed,
}

/// Why a message was dropped.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Dropped {
    /// It came before the greeting: meant for an earlier client of the same socket.
    BeforeGreeting(ServerMessage),
    /// The late answer to an abandoned command. Its place is free again.
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
    /// [`Phase::Ready`] such a return is fatal, as all that is then answered had an id.
    ReturnWithoutId,
}

/// A command in flight.
#[derive(Debug)]
struct Flight {
    number: u64,
    band: Band,
    abandoned: bool,
    /// The output's end after this command, in bytes of all that was ever written.
    written_to: u64,
}

/// A QMP connection without its socket: bytes in, events out; commands in, bytes out.
///
/// In a loop, whether blocking or async:
///
/// 1. write [`output`](Self::output), and tell [`advance_output`](Self::advance_output) how much of it went out;
/// 2. read, and hand it to [`handle_input`](Self::handle_input), or call [`handle_eof`](Self::handle_eof);
/// 3. call [`poll_event`](Self::poll_event) until it says `None`;
/// 4. call [`negotiate`](Self::negotiate) after the greeting and [`execute`](Self::execute) when
///    [`phase`](Self::phase) is [`Phase::Ready`].
///
/// There are no timers in QMP and none here. Whoever has waited long enough for a reply calls
/// [`abandon`](Self::abandon). Every id that `execute` gave comes back just once: in an [`Event::Reply`], by the
/// caller's own `abandon`, or from [`take_lost`](Self::take_lost).
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
    flights: VecDeque<Flight>,
    lost: Vec<CommandId>,
    dropped: u64,
    output: Vec<u8>,
    /// Bytes of `output` that went out already.
    output_start: usize,
    /// All bytes that went out or wait in `output`.
    written: u64,
}

impl Connection {
    /// A connection at the start of its stream. Its ids begin with a random prefix (the seed of the
    /// standard library's hasher), so that an earlier client's late answer is not taken for one of
    /// ours; the odds against it are one in four thousand million.
    #[cfg(feature = "std")]
    pub fn new(limits: Limits) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self::with_id_prefix(limits, RandomState::new().hash_one(0_u8) as u32)
    }

    /// A connection whose ids begin with this prefix: for runs that are to be repeated byte by
    /// byte, and where there is no `std`. It should be one that no earlier client of the same
    /// socket had.
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
            flights: VecDeque::new(),
            lost: Vec::new(),
            dropped: 0,
            output: Vec::new(),
            output_start: 0,
            written: 0,
        }
    }

    /// Takes what was read from the server. Empty input does nothing, and neither does input after
    /// the connection's end. Follow it with [`poll_event`](Self::poll_event) until that says
    /// `None`: what is not polled stays in memory. In bytes that come one at a time a fault may be
    /// told a little late, see [`Codec::feed`].
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.codec.feed(bytes);
    }

    /// Tells that the server closed the stream; a connection reset counts as this. Events that came
    /// before are still polled first.
    pub fn handle_eof(&mut self) {
        self.codec.feed_eof();
    }

    /// Sends `qmp_capabilities`, enabling these; usually none. The answer is an
    /// [`Event::Negotiated`].
    ///
    /// # Errors
    /// [`SendError::WrongPhase`] unless the phase is [`Phase::Greeted`], [`SendError::NotOffered`] for a capability that
    /// the greeting did not have; [`SendError::Encode`] only under a tiny command limit. The state
    /// is then as before.
    pub fn negotiate(&mut self, enable: &[Capability]) -> Result<(), SendError> {
        self.require(Phase::Greeted)?;
        if let Some(missing) = enable
            .iter()
            .find(|capability| !self.offered.contains(capability))
        {
            return Err(SendError::NotOffered(missing.as_str().into()));
        }
        let enables = (!enable.is_empty()).then_some(QmpCapabilities { enable });
        self.send(QmpCapabilities::NAME, Band::In, &enables)?;
        self.oob_asked = enable.contains(&Capability::Oob);
        self.phase = Phase::Negotiating;
        Ok(())
    }

    /// Puts a command into the output, to be run in its turn.
    ///
    /// # Errors
    /// [`SendError`]: the wrong phase, no place in flight, or a command that cannot be sent. The state is then as before.
    pub fn execute<C: Command>(&mut self, command: &C) -> Result<CommandId, SendError> {
        self.execute_raw(C::NAME, command)
    }

    /// [`execute`](Self::execute) for a command by name, with anything that serialises to an object, or to null (as
    /// `&()` does) for no arguments.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn execute_raw<A: Serialize + ?Sized>(
        &mut self,
        name: &str,
        arguments: &A,
    ) -> Result<CommandId, SendError> {
        self.require(Phase::Ready)?;
        self.send(name, Band::In, arguments)
    }

    /// Puts a command into the output, to be run at once, out of band. QEMU takes few commands so;
    /// others earn a `GenericError`.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), and [`SendError::OobNotEnabled`].
    pub fn execute_oob<C: Command>(&mut self, command: &C) -> Result<CommandId, SendError> {
        self.execute_raw_oob(C::NAME, command)
    }

    /// [`execute_oob`](Self::execute_oob) for a command by name.
    ///
    /// # Errors
    /// As [`execute_oob`](Self::execute_oob).
    pub fn execute_raw_oob<A: Serialize + ?Sized>(
        &mut self,
        name: &str,
        arguments: &A,
    ) -> Result<CommandId, SendError> {
        self.require(Phase::Ready)?;
        if !self.oob_enabled {
            return Err(SendError::OobNotEnabled);
        }
        self.send(name, Band::Out, arguments)
    }

    /// Whether [`execute`](Self::execute) would find the right phase and a place in flight.
    pub fn can_execute(&self) -> bool {
        self.phase == Phase::Ready && self.in_flight_in_band() < self.limits.max_in_flight
    }

    /// Gives a command up: its reply, should it come, is an [`Event::Dropped`], and its place stays
    /// taken until then, as the server is still at it. True if the command was in flight and not
    /// yet abandoned; otherwise nothing changes.
    pub fn abandon(&mut self, id: CommandId) -> bool {
        match self.flight_index(id) {
            Some(index) if !self.is_negotiation(id) => {
                !mem::replace(&mut self.flights[index].abandoned, true)
            }
            _ => false,
        }
    }

    /// What is to be written to the server. Writing a part is normal.
    pub fn output(&self) -> &[u8] {
        &self.output[self.output_start..]
    }

    /// Tells how many bytes of [`output`](Self::output) were written.
    ///
    /// # Panics
    /// If that is more than there are.
    pub fn advance_output(&mut self, written: usize) {
        let waiting = self.output().len();
        assert!(
            written <= waiting,
            "advance_output({written}), but only {waiting} bytes of output were waiting"
        );
        self.output_start += written;
        // Dropped where what is left is smaller: so the whole costs no more than one copy of each
        // byte, and what went out does not pile up while there is always something waiting.
        if self.output_start >= waiting - written {
            self.output.drain(..self.output_start);
            self.output_start = 0;
        }
    }

    /// What happened next, or `None` if more input is needed or the connection has ended and said
    /// so.
    ///
    /// # Errors
    /// [`DecodeError`] where the peer broke the protocol: the same at every later call. The phase is then
    /// [`Phase::Failed`], and [`take_lost`](Self::take_lost) has what was in flight.
    pub fn poll_event(&mut self) -> Result<Option<Event>, DecodeError> {
        if self.phase == Phase::Closed {
            return Ok(None);
        }
        let event = self.codec.next_message().and_then(|message| match message {
            Some(message) => self
                .handle_message(message)
                .map(Some)
                .map_err(|kind| self.codec.fail_last(kind)),
            None => Ok(None),
        });
        match &event {
            Err(_) => self.end(Phase::Failed),
            Ok(None) if self.codec.is_finished() => {
                self.end(Phase::Closed);
                return Ok(Some(Event::Closed));
            }
            Ok(Some(Event::Dropped(_))) => self.dropped += 1,
            Ok(_) => {}
        }
        event
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

    /// Commands in flight, in-band and out-of-band, abandoned ones and a running negotiation
    /// counted.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// In-band commands in flight, abandoned ones and a running negotiation counted.
    pub fn in_flight_in_band(&self) -> usize {
        self.in_flight_of(Band::In)
    }

    /// Messages dropped so far; each was also an [`Event::Dropped`].
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether out-of-band commands may be sent.
    pub fn oob_enabled(&self) -> bool {
        self.oob_enabled
    }

    fn in_flight_of(&self, band: Band) -> usize {
        self.flights
            .iter()
            .filter(|flight| flight.band == band)
            .count()
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
        band: Band,
        arguments: &A,
    ) -> Result<CommandId, SendError> {
        let limit = self.limits.max_in_flight;
        if self.in_flight_of(band) >= limit {
            return Err(SendError::Full { limit });
        }
        let number = self.last_number + 1;
        let id = CommandId::new(self.prefix, number);
        let before = self.output.len();
        command::write(
            name,
            band,
            arguments,
            id,
            self.limits.max_command_bytes,
            &mut self.output,
        )?;
        self.written += (self.output.len() - before) as u64;
        self.last_number = number;
        self.flights.push_back(Flight {
            number,
            band,
            abandoned: false,
            written_to: self.written,
        });
        Ok(id)
    }

    fn flight_index(&self, id: CommandId) -> Option<usize> {
        if id.prefix() != self.prefix {
            return None;
        }
        self.flights
            .binary_search_by_key(&id.number(), |flight| flight.number)
            .ok()
    }

    /// While negotiating, the only command in flight is `qmp_capabilities`.
    fn is_negotiation(&self, _id: CommandId) -> bool {
        self.phase == Phase::Negotiating
    }

    fn handle_message(&mut self, message: ServerMessage) -> Result<Event, DecodeErrorKind> {
        match (self.phase, message) {
            (Phase::AwaitingGreeting, ServerMessage::Greeting(greeting)) => {
                self.phase = Phase::Greeted;
                self.offered.clone_from(&greeting.capabilities);
                Ok(Event::Greeting(greeting))
            }
            (Phase::AwaitingGreeting, early) => Ok(Event::Dropped(Dropped::BeforeGreeting(early))),
            (_, ServerMessage::Greeting(_)) => Err(DecodeErrorKind::SecondGreeting),
            (_, ServerMessage::Event(event)) => Ok(Event::Event(event)),
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
            // QEMU answers in turn: once negotiation is answered, an earlier client's commands are
            // behind us.
            (Phase::Ready, ServerMessage::Return { id: None, .. }) => {
                Err(DecodeErrorKind::ReturnWithoutId)
            }
            (_, ServerMessage::Return { id: None, .. }) => {
                Ok(Event::Dropped(Dropped::ReturnWithoutId))
            }
            (_, ServerMessage::Error { id: None, error }) => {
                Ok(self.handle_error_without_id(error))
            }
        }
    }

    fn handle_answer(&mut self, id: MessageId, result: Result<RawReturn, ServerError>) -> Event {
        match id {
            MessageId::Command(id) if let Some(index) = self.flight_index(id) => {
                self.land(index, id, result)
            }
            id => Event::Dropped(Dropped::UnknownId(id)),
        }
    }

    /// QEMU answers unreadable input in its turn among the in-band commands. Once ours have been
    /// answered (negotiation has), an earlier client's input is behind us; so the error belongs to
    /// the oldest command in flight, if that went out whole and none is out of band.
    fn handle_error_without_id(&mut self, error: ServerError) -> Event {
        let sent = self.written - self.output().len() as u64;
        match self.flights.front() {
            Some(first)
                if self.phase == Phase::Ready
                    && first.written_to <= sent
                    && self.flights.iter().all(|flight| flight.band == Band::In) =>
            {
                self.land(0, CommandId::new(self.prefix, first.number), Err(error))
            }
            _ => Event::UnattributedError(error),
        }
    }

    /// Takes a command out of flight with its answer.
    fn land(&mut self, index: usize, id: CommandId, result: Result<RawJson, ServerError>) -> Event {
        let flight = self.flights.remove(index);
        if self.phase == Phase::Negotiating {
            let accepted = result.is_ok();
            self.phase = if accepted {
                Phase::Ready
            } else {
                Phase::Greeted
            };
            self.oob_enabled = accepted && self.oob_asked;
            return Event::Negotiated(result.map(|_| ()));
        }
        if flight.is_some_and(|flight| flight.abandoned) {
            Event::Dropped(Dropped::Abandoned { id, result })
        } else {
            Event::Reply { id, result }
        }
    }

    /// Ends the connection; what was in flight is lost, but for what nobody waits for.
    fn end(&mut self, phase: Phase) {
        let was_negotiating = self.phase == Phase::Negotiating;
        self.phase = phase;
        let prefix = self.prefix;
        let waited_for = self
            .flights
            .drain(..)
            .filter(|flight| !flight.abandoned && !was_negotiating);
        self.lost
            .extend(waited_for.map(|flight| CommandId::new(prefix, flight.number)));
    }
}
