//! The probe that speaks, sans-IO: handshake, identify, leave in order. **Connecting is what stops
//! the guest**; the probe says whether it did, and undoes it only for a guest that ran before.
//!
//! ```text
//!  Supported ─► NoAck ─► Halted ─► Annex… ─► (ran before, and is to run on?) ─yes► Detach ─► Done
//!   qSupported   only if    ?        qXfer     └─no──────────────────────────────────────────► Done
//!                offered
//! ```
//!
//! Besides the run state, `?` has one effect: QEMU's stub removes the breakpoints that an earlier
//! client has left behind.
//!
//! How a running guest is told from a stopped one. QEMU's stub stops the guest when it accepts a
//! connection; up to 8.0 it then sends a stop reply that nobody asked for (`T02`), and only if the
//! guest ran. From 8.1 on it does not, so there the caller's word ([`ProbeOptions::guest`])
//! decides. Without either, the guest is left as it is: stopped.
//!
//! The letter that lets it run on is `D`. After `multiprocess+` was agreed it must be `D;1`, and
//! QEMU remembers that from any earlier client; the stop reply's thread id (`p01.01`) shows it. Any
//! byte after `D` but the one `+` that QEMU waits for would stop the guest again, so nothing else
//! is sent after it.

use crate::link::{Event, Link};
use crate::options::{GuestState, Leave, ProbeOptions};
use crate::packet::DEFAULT_MAX_PAYLOAD;
use crate::reachability::{GuestEffect, Identity, Reachability, Seen};
use crate::reply::{Feature, Features, Id, StopReply, is_error};
use crate::target::TargetReader;

/// `xmlRegisters` as gdb itself sends it: some stubs give no target description without it.
/// `multiprocess+` is left out on purpose: see the module's words on `D`.
const SUPPORTED: &[u8] = b"qSupported:xmlRegisters=i386,arm";
/// What makes a server of lines, HTTP for one, say something; a stub ignores it.
const NUDGE: &[u8] = b"\r\n\r\n";
/// As many bytes outside packets, before any packet, are no GDB stub's.
const MAX_NOISE: u64 = 256;
/// How much of what came first is kept.
const HEARD_KEPT: usize = 64;
/// How many packets that were not asked for are overlooked.
const MAX_UNASKED: u32 = 64;
/// How many bytes of an annex are asked for at once, if the stub names no packet size.
const PIECE: usize = 1024;

/// What a probe found, and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Who answered, if anybody.
    pub reachability: Reachability,
    /// What it did to the guest.
    pub effect: GuestEffect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Supported,
    NoAck,
    Halted,
    Annex,
    Detach { tried_other_form: bool },
    Done,
}

/// Asks a stub who it is, over bytes that the caller moves. Make one when the connection is there.
///
/// Feed [`handle_input`](Self::handle_input) and [`handle_eof`](Self::handle_eof), write
/// [`output`](Self::output) and report it with [`advance_output`](Self::advance_output), until
/// [`is_done`](Self::is_done) and the output is written. Then close, and take the
/// [`outcome`](Self::outcome). Time is the caller's: [`handle_silence`](Self::handle_silence) about
/// half-way to the deadline, [`handle_deadline`](Self::handle_deadline) at it; a little is still to
/// be written and read then.
#[derive(Debug)]
pub struct Probe {
    link: Link,
    phase: Phase,
    leave: Leave,
    wants_target: bool,
    told: Option<GuestState>,
    /// A stop reply came unasked: the guest ran until we connected.
    stopped_by_us: bool,
    /// The process to name in `D`, where thread ids show that one must be named.
    process: Option<u64>,
    identity: Identity,
    reader: TargetReader,
    piece: usize,
    annex: Vec<u8>,
    answered: bool,
    unasked: u32,
    nudged: bool,
    resumed: bool,
    asked_to_resume: bool,
    /// The deadline came while the peer talked: perhaps a stub in the middle of its answer.
    cut_off: bool,
    deadline_passed: bool,
    verdict: Option<Reachability>,
    /// What came first, for the report on a stranger.
    first_heard: Vec<u8>,
}

impl Probe {
    /// Begins: the first question is in [`output`](Self::output).
    #[must_use]
    pub fn new(options: &ProbeOptions) -> Self {
        let mut link = Link::new(DEFAULT_MAX_PAYLOAD);
        link.greet();
        link.send(SUPPORTED);
        Self {
            link,
            phase: Phase::Supported,
            leave: options.leave,
            wants_target: options.target,
            told: options.guest,
            stopped_by_us: false,
            process: None,
            identity: Identity::default(),
            reader: TargetReader::new(),
            piece: PIECE,
            annex: Vec::new(),
            answered: false,
            unasked: 0,
            nudged: false,
            resumed: false,
            asked_to_resume: false,
            cut_off: false,
            deadline_passed: false,
            verdict: None,
            first_heard: Vec::new(),
        }
    }

    /// Takes what the stub sent.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(HEARD_KEPT - self.first_heard.len());
        self.first_heard.extend_from_slice(&bytes[..kept]);
        self.link.handle_input(bytes);
        while let Some(event) = self.link.poll_event() {
            if self.phase == Phase::Done {
                return;
            }
            match event {
                Event::Packet(payload) => self.handle_packet(&payload),
                Event::Broken(_) => self.conclude(Reachability::NotAGdbStub(self.no_answer())),
                Event::Notification(_) if !self.answered => self.overlook(),
                Event::Acknowledged | Event::Notification(_) => {}
            }
        }
        if !self.answered && self.phase != Phase::Done && self.link.decoder().noise() >= MAX_NOISE {
            self.conclude(Reachability::NotAGdbStub(self.no_answer()));
        }
    }

    /// The stub closed the connection, or it broke.
    pub fn handle_eof(&mut self) {
        if self.phase != Phase::Done {
            let closed = match self.link.decoder().noise() {
                0 => Seen::Closed,
                _ => self.no_answer(),
            };
            self.verdict
                .get_or_insert(Reachability::NotAGdbStub(closed));
            self.phase = Phase::Done;
        }
    }

    /// Nothing was heard for a while: asks in a way that a server of lines answers. Once at most,
    /// and only before any answer.
    pub fn handle_silence(&mut self) {
        if !self.heard_anything() && !self.nudged && self.phase == Phase::Supported {
            self.nudged = true;
            self.link.send_raw(NUDGE);
        }
    }

    /// The time for questions is over: concludes with what is there, and turns to leaving. A
    /// leaving that has begun goes on; the second call ends that too.
    pub fn handle_deadline(&mut self) {
        let is_first = !std::mem::replace(&mut self.deadline_passed, true);
        match self.phase {
            Phase::Done => {}
            Phase::Detach { .. } if is_first => {}
            Phase::Detach { .. } => self.phase = Phase::Done,
            _ if self.link.decoder().noise() > 0 => {
                self.conclude(Reachability::NotAGdbStub(self.no_answer()));
            }
            _ if self.talks_without_an_answer() => {
                self.cut_off = true;
                self.conclude(Reachability::NotAGdbStub(Seen::BrokenPackets));
            }
            _ => self.conclude(Reachability::Silent { accepted: None }),
        }
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

    /// Whether nothing more is to be read; what is in [`output`](Self::output) is still to be
    /// written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether any byte came: the connection was accepted.
    #[must_use]
    pub fn heard_anything(&self) -> bool {
        !self.first_heard.is_empty()
    }

    /// The bytes that let a guest run on which ran before, for a caller that must leave without
    /// another answer; empty when it is not known to have run or is to stay paused. Nothing may be
    /// sent after them.
    #[must_use]
    pub fn parting(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        if !self.asked_to_resume && self.ran_before() == Some(true) && self.leave == Leave::RunOn {
            // QEMU takes this form whatever was agreed; the reply that would tell cannot be waited
            // for.
            crate::packet::encode(b"D;1", &mut frame);
        }
        frame
    }

    /// What was found and done, once it [`is_done`](Self::is_done); before that, what is known so
    /// far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let reachability = match &self.verdict {
            // A stub that answered the first question is one, whatever became of the later ones.
            _ if self.answered => Reachability::Answers(Box::new(self.identity.clone())),
            Some(verdict) => verdict.clone(),
            None => Reachability::Silent { accepted: None },
        };
        Outcome {
            reachability,
            effect: self.effect(),
        }
    }

    fn effect(&self) -> GuestEffect {
        let is_stub = self.answered || self.stopped_by_us;
        match self.ran_before() {
            _ if !is_stub => match self.verdict {
                Some(Reachability::NotAGdbStub(_)) if !self.cut_off => GuestEffect::Untouched,
                _ => GuestEffect::Unknown,
            },
            Some(true) if self.resumed => GuestEffect::PausedThenResumed,
            Some(true) if self.asked_to_resume => GuestEffect::ResumeUnconfirmed,
            Some(true) => GuestEffect::LeftPaused,
            Some(false) => GuestEffect::StillStopped,
            None => GuestEffect::LeftStopped,
        }
    }

    /// What the stub itself showed goes before what the caller knew a moment earlier.
    fn ran_before(&self) -> Option<bool> {
        if self.stopped_by_us {
            return Some(true);
        }
        self.told.map(|state| state == GuestState::Running)
    }

    /// What came instead of an answer. Bytes outside packets go first: how much of them was read
    /// when the packets' limits were met depends on how the bytes were cut, whether there were any
    /// does not.
    fn no_answer(&self) -> Seen {
        match self.link.decoder().noise() {
            0 => Seen::BrokenPackets,
            _ => Seen::OtherProtocol(self.first_heard.clone()),
        }
    }

    /// Whether a packet has begun, or some came that were no answer. A stop reply is a stub's,
    /// though: that one fell silent.
    fn talks_without_an_answer(&self) -> bool {
        !self.stopped_by_us && (self.link.decoder().is_inside_packet() || self.unasked > 0)
    }

    fn handle_packet(&mut self, payload: &[u8]) {
        let asked_for_it = match self.phase {
            Phase::Supported => self.handle_supported(payload),
            Phase::NoAck => self.handle_no_ack(payload),
            Phase::Halted => self.handle_halted(payload),
            Phase::Annex => self.handle_annex(payload),
            Phase::Detach { tried_other_form } => self.handle_detach(payload, tried_other_form),
            Phase::Done => true,
        };
        if !asked_for_it {
            self.handle_unasked(payload);
        }
    }

    /// A stop reply before the first answer says that the guest ran until now. Later ones could be
    /// late answers to `?`, and console output says nothing here.
    fn handle_unasked(&mut self, payload: &[u8]) {
        match StopReply::parse(payload) {
            Some(stop @ StopReply::Signal { .. }) if self.phase == Phase::Supported => {
                self.stopped_by_us = true;
                self.note_stop(stop);
            }
            _ => self.overlook(),
        }
    }

    fn overlook(&mut self) {
        self.unasked += 1;
        if self.unasked > MAX_UNASKED {
            self.conclude(Reachability::NotAGdbStub(self.no_answer()));
        }
    }

    fn note_stop(&mut self, stop: StopReply) {
        if let Some(Id::One(process)) = stop.thread().and_then(|thread| thread.process) {
            self.process = Some(process);
        }
        self.identity.stop = Some(stop);
    }

    fn handle_supported(&mut self, payload: &[u8]) -> bool {
        if StopReply::parse(payload).is_some() {
            return false;
        }
        // An error is an answer too: a stub that knows the packet and not its arguments.
        let Some(features) =
            Features::parse(payload).or_else(|| is_error(payload).then(Features::default))
        else {
            return false;
        };
        self.answered = true;
        if let Some(size) = features.packet_size() {
            // A reply is `m`, the piece (each byte perhaps escaped), and a frame of four.
            self.piece = (size.saturating_sub(8) / 2).clamp(16, DEFAULT_MAX_PAYLOAD / 2);
        }
        let no_ack = features.supports("QStartNoAckMode");
        self.identity.features = features;
        if no_ack {
            self.ask(Phase::NoAck, b"QStartNoAckMode");
        } else {
            self.ask(Phase::Halted, b"?");
        }
        true
    }

    fn handle_no_ack(&mut self, payload: &[u8]) -> bool {
        match payload {
            b"OK" => self.link.stop_acknowledging(),
            b"" => {}
            refused if is_error(refused) => {}
            _ => return false,
        }
        self.ask(Phase::Halted, b"?");
        true
    }

    fn handle_halted(&mut self, payload: &[u8]) -> bool {
        if let Some(stop) = StopReply::parse(payload) {
            self.note_stop(stop);
        } else if !payload.is_empty() && !is_error(payload) {
            return false;
        }
        let offered = matches!(
            self.identity.features.find("qXfer:features:read"),
            Some(Feature::Supported | Feature::Maybe)
        );
        if self.wants_target && offered {
            self.ask_piece()
        } else {
            self.depart()
        }
        true
    }

    fn handle_annex(&mut self, payload: &[u8]) -> bool {
        let (last, piece) = match payload {
            [b'm', piece @ ..] => (false, piece),
            [b'l', piece @ ..] => (true, piece),
            refused if refused.is_empty() || is_error(refused) => {
                self.depart();
                return true;
            }
            _ => return false,
        };
        // An empty piece that is not the last would go on for ever.
        if (piece.is_empty() && !last)
            || self
                .reader
                .check_size(self.annex.len() + piece.len())
                .is_err()
        {
            self.depart();
            return true;
        }
        self.annex.extend_from_slice(piece);
        if last {
            self.finish_annex();
        } else {
            self.ask_piece();
        }
        true
    }

    fn finish_annex(&mut self) {
        let content = std::mem::take(&mut self.annex);
        let name = self.reader.next_annex().unwrap_or_default().to_owned();
        if self.reader.add(&name, &content).is_err() {
            return self.depart();
        }
        if self.reader.next_annex().is_some() {
            self.ask_piece();
        } else {
            self.identity.target = self.reader.finish().ok();
            self.depart();
        }
    }

    fn ask_piece(&mut self) {
        let Some(annex) = self.reader.next_annex() else {
            return self.depart();
        };
        let question = format!(
            "qXfer:features:read:{annex}:{:x},{:x}",
            self.annex.len(),
            self.piece
        );
        self.ask(Phase::Annex, question.as_bytes());
    }

    fn ask(&mut self, phase: Phase, question: &[u8]) {
        self.phase = phase;
        self.link.send(question);
    }

    fn conclude(&mut self, verdict: Reachability) {
        self.verdict.get_or_insert(verdict);
        self.depart();
    }

    /// Leaves in order: lets a guest run on that ran before, if it is to.
    fn depart(&mut self) {
        let resume = self.leave == Leave::RunOn && self.ran_before() == Some(true);
        let may_be_stub =
            self.answered || self.stopped_by_us || self.cut_off || self.verdict_is_silence();
        if !resume || self.asked_to_resume || !may_be_stub {
            self.phase = Phase::Done;
            return;
        }
        self.asked_to_resume = true;
        self.phase = Phase::Detach {
            tried_other_form: false,
        };
        self.send_detach(self.process.is_some() || !self.answered);
    }

    fn verdict_is_silence(&self) -> bool {
        matches!(self.verdict, Some(Reachability::Silent { .. }))
    }

    fn send_detach(&mut self, with_process: bool) {
        self.link.limit_acknowledgments(1);
        if with_process {
            self.link
                .send(format!("D;{:x}", self.process.unwrap_or(1)).as_bytes());
        } else {
            self.link.send(b"D");
        }
    }

    fn handle_detach(&mut self, payload: &[u8], tried_other_form: bool) -> bool {
        match payload {
            b"OK" => {
                self.resumed = true;
                self.phase = Phase::Done;
            }
            refused if is_error(refused) && !tried_other_form => {
                self.phase = Phase::Detach {
                    tried_other_form: true,
                };
                self.send_detach(self.process.is_none() && self.answered);
            }
            refused if refused.is_empty() || is_error(refused) => self.phase = Phase::Done,
            _ => return false,
        }
        true
    }
}
