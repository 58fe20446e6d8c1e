//! A debugger's connection to a stub, sans-IO: requests, and stops.
//!
//! ```text
//!  Handshake ─► Ready ──request──► Busy ─last reply─► Ready       anything ──EOF, broken──► Closed
//!                 │ └─resume, step──► Running ──stop reply──► Ready
//!                 └─note_running────►    └─note_stopped─────►
//! ```
//!
//! While the guest runs nothing may be sent but an interrupt: QEMU's stub stops a running guest at
//! any other byte. [`Phase`] says so, and every request is refused then.

use std::collections::VecDeque;

use crate::handshake::{Handshake, Progress, StubIdentity};
use crate::link::{Broken, Event as LinkEvent, Link};
use crate::packet::{DEFAULT_MAX_PAYLOAD, HEX_VALUES};
use crate::reply::{StopReply, ThreadId, is_error};

/// The largest piece of memory that one request reads or writes: 16 MiB.
pub const MAX_MEMORY: usize = 16 * 1024 * 1024;
/// The longest text that a monitor command may print: 1 MiB. What comes after it is dropped.
pub const MAX_TEXT: usize = 1024 * 1024;
/// How many threads are listed at most.
pub const MAX_THREADS: usize = 4096;
/// How many requests await their replies at most.
const MAX_IN_FLIGHT: usize = 64;
/// What a stub that names no packet size is taken to accept, in bytes.
const DEFAULT_PACKET: usize = 400;

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The first questions are being answered: nothing.
    Handshake,
    /// The guest is stopped: any request.
    Ready,
    /// A reply is awaited: nothing, but to a stub that needs no acknowledgment further requests.
    Busy,
    /// The guest runs: [`interrupt`](Client::interrupt) alone.
    Running,
    /// The connection is over.
    Closed,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is done; [`Client::identity`] has what it found.
    Connected,
    /// The answer to the oldest request that had none.
    Reply(Result<Reply, RequestError>),
    /// The guest stopped, or its process ended; also what a stub says unasked, when a monitor
    /// stopped the guest.
    Stopped(StopReply),
    /// The guest wrote this to the debugger's console.
    Console(Vec<u8>),
    /// The connection is over; no event follows.
    Closed(Closed),
}

/// What a request comes back with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Done; there is no result.
    Done,
    /// Registers or memory, in the target's byte order.
    Bytes(Vec<u8>),
    /// What a monitor command printed.
    Text(Vec<u8>),
    /// The threads.
    Threads(Vec<ThreadId>),
    /// The payload of the reply to [`Client::send_packet`].
    Packet(Vec<u8>),
}

/// Why a request failed. The connection goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The stub refused.
    #[error("the stub refused it with {code} after {done} bytes")]
    Refused {
        /// Its error, for example `E14`.
        code: String,
        /// Of memory: how many bytes had been read or written before.
        done: usize,
    },
    /// The stub does not know the request.
    #[error("the stub does not know the request")]
    Unsupported,
    /// The reply is none to this request.
    #[error("the stub's reply is none to this request: '{}'", .0.escape_ascii())]
    Malformed(Vec<u8>),
}

/// Why a request was not sent. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It may not be sent now.
    #[error("nothing of the kind may be sent in phase {0:?}")]
    WrongPhase(Phase),
    /// More than the stub takes at once, or than one request may have.
    #[error("{size} bytes are more than the {limit} that are allowed")]
    TooLong {
        /// The size of what was to be sent or read.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// Why the connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The stub closed it.
    #[error("the stub closed the connection")]
    Eof,
    /// What came cannot be read.
    #[error("what the stub sent cannot be read ({0:?})")]
    Broken(Broken),
    /// It echoes what it is sent.
    #[error("what listens is no stub: it echoes what it is sent")]
    Echo,
    /// We detached.
    #[error("it was detached")]
    Detached,
}

/// A kind of breakpoint or watchpoint: the number in the packets `Z` and `z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PointKind {
    /// A software breakpoint. QEMU patches nothing for it, and has any number of them.
    Software = 0,
    /// A hardware breakpoint; with QEMU the same as a software one.
    Hardware = 1,
    /// A watchpoint for writes.
    Write = 2,
    /// A watchpoint for reads.
    Read = 3,
    /// A watchpoint for both.
    Access = 4,
}

/// What an outstanding request wants.
#[derive(Debug)]
enum Pending {
    Done,
    Bytes,
    Read {
        address: u64,
        length: usize,
        /// How much of it, with the packet that is on its way.
        asked: usize,
        read: Vec<u8>,
    },
    Write {
        address: u64,
        bytes: Vec<u8>,
        done: usize,
        piece: usize,
    },
    Threads(Vec<ThreadId>),
    Text(Vec<u8>),
    Detach,
    Packet,
}

impl Pending {
    /// Its next packet is sent once this one is answered: no other request may come in between.
    fn takes_more_packets(&self) -> bool {
        match self {
            Self::Done | Self::Bytes | Self::Detach | Self::Packet => false,
            Self::Read { length, asked, .. } => asked < length,
            Self::Write { .. } | Self::Threads(_) | Self::Text(_) => true,
        }
    }
}

/// A connection to a stub. The bytes are the caller's to move, and so are deadlines.
///
/// Feed [`handle_input`](Self::handle_input) and [`handle_eof`](Self::handle_eof), poll
/// [`poll_event`](Self::poll_event) until `None`, write [`output`](Self::output) and report it with
/// [`advance_output`](Self::advance_output). Requests are the other methods: each puts a packet
/// into the output and is answered by one [`Event::Reply`], in order; there is one at a time, unless
/// the stub [needs no acknowledgment](Self::stop_acknowledging).
#[derive(Debug)]
pub struct Client {
    link: Link,
    phase: Phase,
    handshake: Option<Handshake>,
    identity: StubIdentity,
    /// The requests that await their replies, oldest first.
    pending: VecDeque<Pending>,
    /// Of so many of them whoever asked has gone: the replies are dropped.
    abandoned: usize,
    /// Whether there may be several.
    several: bool,
    events: VecDeque<Event>,
}

impl Client {
    /// Begins: the first question of the handshake is in the output.
    #[must_use]
    pub fn new(handshake: Handshake) -> Self {
        let mut client = Self {
            link: Link::default(),
            phase: Phase::Handshake,
            handshake: None,
            identity: StubIdentity::default(),
            pending: VecDeque::new(),
            abandoned: 0,
            several: false,
            events: VecDeque::new(),
        };
        client.handshake.insert(handshake).begin(&mut client.link);
        client
    }

    /// From here on acknowledges no packet, and sends further requests before earlier ones are
    /// answered. For QEMU's stub, which takes the next request for an acknowledgment, and an
    /// acknowledgment that it did not wait for as a wish to stop the guest.
    pub fn stop_acknowledging(&mut self) {
        self.link.limit_acknowledgments(0);
        self.several = true;
    }

    /// What may be sent now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the handshake found; complete after [`Event::Connected`].
    #[must_use]
    pub fn identity(&self) -> &StubIdentity {
        &self.identity
    }

    /// Whether all that was to be sent was written, and acknowledged by the stub.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.link.output().is_empty() && !self.link.is_outstanding()
    }

    /// Takes what the stub sent, cut anywhere.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.link.handle_input(bytes);
        while let Some(event) = self.link.poll_event() {
            if self.phase == Phase::Closed {
                return;
            }
            match event {
                LinkEvent::Packet(payload) => self.handle_packet(&payload),
                LinkEvent::Broken(why) => self.close(Closed::Broken(why)),
                _ => {}
            }
        }
    }

    /// The stream is over.
    pub fn handle_eof(&mut self) {
        self.close(Closed::Eof);
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes to write. Partial writes are normal.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.link.output()
    }

    /// `written` bytes of the output are on their way.
    pub fn advance_output(&mut self, written: usize) {
        self.link.advance_output(written);
    }

    /// The caller has gone: the replies to come are read and dropped, and so are those that were not
    /// polled. The next request may be made when the phase is [`Phase::Ready`] again.
    pub fn abandon(&mut self) {
        self.events
            .retain(|event| !matches!(event, Event::Reply(_)));
        self.abandoned = self.pending.len();
    }

    /// A monitor let the guest run: nothing may be sent now.
    pub fn note_running(&mut self) {
        if self.phase == Phase::Ready {
            self.phase = Phase::Running;
        }
    }

    /// A monitor says that the guest is stopped, whatever the stub says or does not say.
    pub fn note_stopped(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Ready;
        }
    }

    /// Reads all general registers, in the order of their numbers (`g`).
    ///
    /// # Errors
    /// [`SendError::WrongPhase`], as for every request.
    pub fn read_registers(&mut self) -> Result<(), SendError> {
        self.request(Pending::Bytes, b"g")
    }

    /// Writes all general registers (`G`).
    ///
    /// # Errors
    /// [`SendError`].
    pub fn write_registers(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let packet = format!("G{}", hex(bytes));
        self.request(Pending::Done, packet.as_bytes())
    }

    /// Reads one register (`p`). With no bytes in the reply the stub does not know the number.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn read_register(&mut self, number: u32) -> Result<(), SendError> {
        self.request(Pending::Bytes, format!("p{number:x}").as_bytes())
    }

    /// Writes one register (`P`), in the target's byte order.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn write_register(&mut self, number: u32, bytes: &[u8]) -> Result<(), SendError> {
        let packet = format!("P{number:x}={}", hex(bytes));
        self.request(Pending::Done, packet.as_bytes())
    }

    /// Reads memory (`m`), in as many packets as it takes.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::TooLong`] for more than [`MAX_MEMORY`].
    pub fn read_memory(&mut self, address: u64, length: usize) -> Result<(), SendError> {
        check_length(length, MAX_MEMORY)?;
        let (packet, asked) = self.memory_question(address, length);
        let pending = Pending::Read {
            address,
            length,
            asked,
            read: Vec::with_capacity(length),
        };
        self.request(pending, packet.as_bytes())
    }

    /// Writes memory (`M`), flash too, in as many packets as it takes.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::TooLong`] for more than [`MAX_MEMORY`].
    pub fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), SendError> {
        check_length(bytes.len(), MAX_MEMORY)?;
        let piece = bytes.len().min(self.packet_size().saturating_sub(40) / 2);
        let packet = write_packet(address, &bytes[..piece]);
        let pending = Pending::Write {
            address,
            bytes: bytes.to_vec(),
            done: 0,
            piece,
        };
        self.request(pending, packet.as_bytes())
    }

    /// Sets a breakpoint or watchpoint (`Z`). `size` is in bytes; of a breakpoint, the size of the
    /// instruction (2 for Thumb).
    ///
    /// # Errors
    /// [`SendError`].
    pub fn insert(&mut self, kind: PointKind, address: u64, size: u32) -> Result<(), SendError> {
        let packet = format!("Z{},{address:x},{size:x}", kind as u8);
        self.request(Pending::Done, packet.as_bytes())
    }

    /// Removes a breakpoint or watchpoint (`z`), by the same words that set it.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn remove(&mut self, kind: PointKind, address: u64, size: u32) -> Result<(), SendError> {
        let packet = format!("z{},{address:x},{size:x}", kind as u8);
        self.request(Pending::Done, packet.as_bytes())
    }

    /// The threads (`qfThreadInfo`): with QEMU, the cores of all clusters that are attached.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn threads(&mut self) -> Result<(), SendError> {
        self.request(Pending::Threads(Vec::new()), b"qfThreadInfo")
    }

    /// Selects the thread whose registers are read and written (`Hg`).
    ///
    /// # Errors
    /// [`SendError`].
    pub fn select_thread(&mut self, thread: ThreadId) -> Result<(), SendError> {
        self.request(Pending::Done, format!("Hg{thread}").as_bytes())
    }

    /// Runs a command of the stub's monitor (`qRcmd`); with QEMU, of its human monitor.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn monitor(&mut self, command: &str) -> Result<(), SendError> {
        let packet = format!("qRcmd,{}", hex(command.as_bytes()));
        self.request(Pending::Text(Vec::new()), packet.as_bytes())
    }

    /// Sends any packet; the next packet is its reply, whatever it is.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_packet(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.request(Pending::Packet, payload)
    }

    /// Detaches (`D`), which lets the guest run; `process` where `multiprocess+` was agreed.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn detach(&mut self, process: Option<u64>) -> Result<(), SendError> {
        let packet = process.map_or("D".to_owned(), |process| format!("D;{process:x}"));
        self.request(Pending::Detach, packet.as_bytes())
    }

    /// Lets the guest run (`c`). [`Event::Stopped`] comes when it stops.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn resume(&mut self) -> Result<(), SendError> {
        self.run(b"c")
    }

    /// Lets one thread execute one instruction: this one (`vCont;s:…`), or that which stopped
    /// (`s`). [`Event::Stopped`] comes when it has.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn step(&mut self, thread: Option<ThreadId>) -> Result<(), SendError> {
        match thread {
            Some(thread) => self.run(format!("vCont;s:{thread}").as_bytes()),
            None => self.run(b"s"),
        }
    }

    /// Lets one thread run while the others stay stopped: this one (`vCont;c:…`), or all where none is
    /// named (`c`). [`Event::Stopped`] comes when it stops.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn resume_thread(&mut self, thread: Option<ThreadId>) -> Result<(), SendError> {
        match thread {
            Some(thread) => self.run(format!("vCont;c:{thread}").as_bytes()),
            None => self.resume(),
        }
    }

    /// Stops a guest that runs (0x03). [`Event::Stopped`] comes, unless a monitor let it run.
    ///
    /// # Errors
    /// [`SendError::WrongPhase`] unless it runs.
    pub fn interrupt(&mut self) -> Result<(), SendError> {
        if self.phase != Phase::Running {
            return Err(SendError::WrongPhase(self.phase));
        }
        self.link.send_raw(&[3]);
        Ok(())
    }

    fn run(&mut self, packet: &[u8]) -> Result<(), SendError> {
        self.send(packet, self.phase == Phase::Ready)?;
        self.phase = Phase::Running;
        Ok(())
    }

    fn request(&mut self, pending: Pending, packet: &[u8]) -> Result<(), SendError> {
        self.send(packet, self.takes_requests())?;
        self.pending.push_back(pending);
        self.phase = Phase::Busy;
        Ok(())
    }

    /// Whether a request may be sent now.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        let is_last_packet = |last: &Pending| !last.takes_more_packets();
        match self.phase {
            Phase::Ready => true,
            Phase::Busy if self.several => {
                self.pending.len() < MAX_IN_FLIGHT
                    && self.pending.back().is_some_and(is_last_packet)
            }
            _ => false,
        }
    }

    fn send(&mut self, packet: &[u8], is_allowed: bool) -> Result<(), SendError> {
        if !is_allowed {
            return Err(SendError::WrongPhase(self.phase));
        }
        check_length(packet.len(), self.packet_size())?;
        self.link.send(packet);
        Ok(())
    }

    fn packet_size(&self) -> usize {
        let size = self.identity.features.packet_size();
        let size = size.unwrap_or(DEFAULT_PACKET);
        size.clamp(64, DEFAULT_MAX_PAYLOAD)
    }

    /// How many bytes of memory one packet brings at most: two digits for each.
    #[must_use]
    pub fn memory_piece(&self) -> usize {
        self.packet_size() / 2
    }

    /// The packet, and how much it asks for.
    fn memory_question(&self, address: u64, length: usize) -> (String, usize) {
        let piece = length.min(self.memory_piece());
        (format!("m{address:x},{piece:x}"), piece)
    }

    fn close(&mut self, why: Closed) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.pending.clear();
            self.events.push_back(Event::Closed(why));
        }
    }

    fn handle_packet(&mut self, payload: &[u8]) {
        if let Some(mut handshake) = self.handshake.take() {
            match handshake.handle_packet(&mut self.link, payload) {
                Progress::Done => {
                    self.identity = handshake.into_identity();
                    self.phase = Phase::Ready;
                    return self.events.push_back(Event::Connected);
                }
                Progress::Echo => return self.close(Closed::Echo),
                // A stub that stopped the guest says so before it answers.
                Progress::Answered | Progress::Unrelated => {}
            }
            self.handshake = Some(handshake);
            return;
        }
        if !matches!(self.pending.front(), Some(Pending::Packet)) {
            if let Some(stop) = StopReply::parse(payload) {
                return self.handle_stop(stop);
            }
        }
        match (self.pending.pop_front(), payload) {
            (Some(pending), _) => self.handle_reply(pending, payload),
            (None, [b'O', digits @ ..]) => {
                if let Some(text) = unhex(digits) {
                    self.events.push_back(Event::Console(text));
                }
            }
            (None, _) if self.phase == Phase::Running => {
                // The stub refuses to run the guest.
                self.phase = Phase::Ready;
                let error = RequestError::of(payload, 0);
                self.events.push_back(Event::Reply(Err(error)));
            }
            // Nobody asked.
            (None, _) => {}
        }
    }

    fn handle_stop(&mut self, stop: StopReply) {
        if self.phase == Phase::Running {
            self.phase = Phase::Ready;
        }
        self.events.push_back(Event::Stopped(stop));
    }

    fn handle_reply(&mut self, pending: Pending, payload: &[u8]) {
        match pending {
            // What would take more packets is not asked further for nobody.
            Pending::Read { .. } | Pending::Write { .. } | Pending::Threads(_)
                if self.abandoned > 0 =>
            {
                self.finish(Ok(Reply::Done));
            }
            Pending::Done if payload == b"OK" => self.finish(Ok(Reply::Done)),
            Pending::Detach if payload == b"OK" => self.close(Closed::Detached),
            Pending::Packet => self.finish(Ok(Reply::Packet(payload.to_vec()))),
            Pending::Bytes => match unhex(payload).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => self.finish(Ok(Reply::Bytes(bytes))),
                None => self.refuse(payload, 0),
            },
            Pending::Read {
                address,
                length,
                asked: _,
                read,
            } => self.handle_memory(address, length, read, payload),
            Pending::Write {
                address,
                bytes,
                done,
                piece,
            } => self.handle_written(address, bytes, done, piece, payload),
            Pending::Threads(threads) => self.handle_threads(threads, payload),
            Pending::Text(text) => self.handle_text(text, payload),
            Pending::Done | Pending::Detach => self.refuse(payload, 0),
        }
    }

    fn handle_memory(&mut self, address: u64, length: usize, mut read: Vec<u8>, payload: &[u8]) {
        let piece = unhex(payload).filter(|piece| read.len() + piece.len() <= length);
        let Some(piece) = piece.filter(|piece| length == 0 || !piece.is_empty()) else {
            return self.refuse(payload, read.len());
        };
        read.extend(piece);
        if read.len() == length {
            return self.finish(Ok(Reply::Bytes(read)));
        }
        // Less than was asked for, and the rest cannot be asked for before what was sent since.
        if !self.pending.is_empty() {
            return self.refuse(payload, read.len());
        }
        let next = address.wrapping_add(read.len() as u64);
        let (question, piece) = self.memory_question(next, length - read.len());
        self.link.send(question.as_bytes());
        self.pending.push_front(Pending::Read {
            address,
            length,
            asked: read.len() + piece,
            read,
        });
    }

    fn handle_written(
        &mut self,
        address: u64,
        bytes: Vec<u8>,
        done: usize,
        piece: usize,
        payload: &[u8],
    ) {
        if payload != b"OK" {
            return self.refuse(payload, done);
        }
        let done = done + piece;
        if done == bytes.len() {
            return self.finish(Ok(Reply::Done));
        }
        let piece = piece.min(bytes.len() - done);
        let next = address.wrapping_add(done as u64);
        let packet = write_packet(next, &bytes[done..done + piece]);
        self.link.send(packet.as_bytes());
        self.pending.push_front(Pending::Write {
            address,
            bytes,
            done,
            piece,
        });
    }

    fn handle_threads(&mut self, mut threads: Vec<ThreadId>, payload: &[u8]) {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        if text == "l" {
            return self.finish(Ok(Reply::Threads(threads)));
        }
        let listed = text.strip_prefix('m').unwrap_or_default();
        let read: Option<Vec<ThreadId>> = listed.split(',').map(ThreadId::parse).collect();
        let Some(read) = read.filter(|read| threads.len() + read.len() <= MAX_THREADS) else {
            return self.refuse(payload, 0);
        };
        threads.extend(read);
        self.link.send(b"qsThreadInfo");
        self.pending.push_front(Pending::Threads(threads));
    }

    fn handle_text(&mut self, mut text: Vec<u8>, payload: &[u8]) {
        match payload {
            b"OK" => self.finish(Ok(Reply::Text(text))),
            [b'O', digits @ ..] if unhex(digits).is_some() => {
                let more = unhex(digits).unwrap_or_default();
                let room = MAX_TEXT.saturating_sub(text.len());
                text.extend_from_slice(&more[..more.len().min(room)]);
                self.pending.push_front(Pending::Text(text));
            }
            other => self.refuse(other, 0),
        }
    }

    fn refuse(&mut self, payload: &[u8], done: usize) {
        self.finish(Err(RequestError::of(payload, done)));
    }

    fn finish(&mut self, result: Result<Reply, RequestError>) {
        if self.pending.is_empty() {
            self.phase = Phase::Ready;
        }
        match self.abandoned.checked_sub(1) {
            Some(left) => self.abandoned = left,
            None => self.events.push_back(Event::Reply(result)),
        }
    }
}

impl RequestError {
    /// As much of a reply as an error shows.
    const SHOWN: usize = 64;

    fn of(payload: &[u8], done: usize) -> Self {
        if payload.is_empty() {
            Self::Unsupported
        } else if is_error(payload) {
            let code = payload[..payload.len().min(Self::SHOWN)].escape_ascii();
            Self::Refused {
                code: code.to_string(),
                done,
            }
        } else {
            Self::Malformed(payload[..payload.len().min(Self::SHOWN)].to_vec())
        }
    }
}

fn check_length(size: usize, limit: usize) -> Result<(), SendError> {
    if size > limit {
        return Err(SendError::TooLong { size, limit });
    }
    Ok(())
}

fn write_packet(address: u64, bytes: &[u8]) -> String {
    format!("M{address:x},{:x}:{}", bytes.len(), hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Pairs of digits; `x` is a digit of a register that cannot be read, and counts as 0.
fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.len() % 2 != 0 {
        return None;
    }
    let mut bytes = vec![0; digits.len() / 2];
    // Looked at once at the end: memory comes as thousands of digits, and all of them are good.
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| HEX_VALUES[usize::from(digit)]);
        if pair != b"xx" {
            seen |= high | low;
            *byte = high << 4 | low;
        }
    }
    (seen < 16).then_some(bytes)
}
