//! The probe that speaks, sans-IO: handshake, then leave in order. **Connecting is what stops the
//! guest**; the probe says whether it did, and undoes it only for a guest that ran before.
//!
//! ```text
//!  Asking (the handshake) ─► (ran before, and is to run on?) ─yes► Leaving (D) ─► Done
//!                              └─no──────────────────────────────────────────► Done
//! ```
//!
//! How a running guest is distinguished from a stopped one: QEMU's stub stops the guest when it
//! accepts a connection; up to 8.0 it then sends a stop reply that nobody asked for (`T02`), and
//! only if the guest ran. From 8.1 on it does not, so there the caller's word
//! ([`ProbeOptions::guest`]) decides. Without either, the guest is left as it is: stopped.
//!
//! The letter that lets it run on is `D`. After `multiprocess+` was agreed it must be `D;1`, and
//! QEMU remembers that from any earlier client; the stop reply's thread id (`p01.01`) shows it. Any
//! byte after `D` but the one `+` that QEMU waits for would stop the guest again, so nothing else
//! is sent after it.

use std::time::Instant;

use gdb_remote::handshake::{Handshake, Progress};
use gdb_remote::link::{Event, Link};
use gdb_remote::packet::encode;
use gdb_remote::reply::{Id, StopReply, is_error};

use crate::options::{GuestState, Leave, ProbeOptions};
use crate::reachability::{GuestEffect, Reachability, WrongAnswer};

/// What makes a server of lines, HTTP for one, say something; a stub ignores it.
const NUDGE: &[u8] = b"\r\n\r\n";
/// As many bytes outside packets, before any packet, are no GDB stub's.
const MAX_NOISE: u64 = 256;
/// How much of what came first is remembered, for the report on a stranger.
const MAX_FIRST_INPUT: usize = 64;
/// How many packets that were not asked for are overlooked.
const MAX_UNASKED: u32 = 64;

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
enum Stage {
    Asking,
    Leaving { tried_other_form: bool },
    Done,
}

/// Asks a stub who it is, over bytes that the caller moves. Make one when the connection is there.
///
/// Feed [`handle_input`](Self::handle_input) and [`handle_eof`](Self::handle_eof), write
/// [`output`](Self::output) and report it with [`advance_output`](Self::advance_output), and call
/// [`handle_timeout`](Self::handle_timeout) at the time that [`poll_timeout`](Self::poll_timeout)
/// names, until [`is_done`](Self::is_done) and the output is written. Then close, and take the
/// [`outcome`](Self::outcome).
///
/// Three things are due in the course of it: half-way to the deadline, in silence, what a server of
/// lines answers is sent; at the deadline the probe turns to leaving; `leave_within` after that it
/// is over.
#[derive(Debug)]
pub struct Probe {
    link: Link,
    handshake: Handshake,
    stage: Stage,
    leave: Leave,
    /// What the caller said of the guest.
    guest: Option<GuestState>,
    nudge_at: Option<Instant>,
    /// `None` when it has passed.
    deadline: Option<Instant>,
    leave_by: Instant,
    /// A stop reply came unasked: the guest ran until we connected.
    stopped_by_us: bool,
    /// The process to name in `D`, where thread ids show that one must be named.
    process: Option<u64>,
    unasked: u32,
    resumed: bool,
    asked_to_resume: bool,
    /// The deadline came while the peer talked: perhaps a stub in the middle of its answer.
    cut_off: bool,
    echoed: bool,
    verdict: Option<Reachability>,
    first_input: Vec<u8>,
}

impl Probe {
    /// Begins at `now`: the first question is in [`output`](Self::output).
    #[must_use]
    pub fn new(options: &ProbeOptions, now: Instant) -> Self {
        let mut link = Link::default();
        let mut handshake = Handshake::new();
        if !options.target {
            handshake = handshake.without_target();
        }
        handshake.begin(&mut link);
        let mut probe = Self {
            link,
            handshake,
            stage: Stage::Asking,
            leave: options.leave,
            guest: options.guest,
            nudge_at: None,
            deadline: None,
            leave_by: now,
            stopped_by_us: false,
            process: None,
            unasked: 0,
            resumed: false,
            asked_to_resume: false,
            cut_off: false,
            echoed: false,
            verdict: None,
            first_input: Vec::new(),
        };
        probe.set_deadlines(options, now);
        probe.nudge_at = Some(now + options.bounded_deadline() / 2);
        probe
    }

    /// Counts the time of `options` from `now`.
    pub(crate) fn set_deadlines(&mut self, options: &ProbeOptions, now: Instant) {
        let deadline = now + options.bounded_deadline();
        self.deadline = Some(deadline);
        self.leave_by = deadline + options.bounded_leave();
    }

    /// Takes what the stub sent.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        let room = MAX_FIRST_INPUT - self.first_input.len();
        self.first_input
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.link.handle_input(bytes);
        while let Some(event) = self.link.poll_event() {
            match (self.stage, event) {
                (Stage::Done, _) => return,
                (_, Event::Packet(payload)) => self.handle_packet(&payload),
                (_, Event::Broken(_)) => self.conclude_wrong_answer(),
                (_, Event::Notification(_)) if !self.handshake.is_answered() => self.overlook(),
                _ => {}
            }
        }
        if !self.handshake.is_answered()
            && self.stage != Stage::Done
            && self.link.decoder().noise() >= MAX_NOISE
        {
            self.conclude_wrong_answer();
        }
    }

    /// The stub closed the connection, or it broke.
    pub fn handle_eof(&mut self) {
        if self.stage == Stage::Done {
            return;
        }
        let seen = if self.link.decoder().noise() == 0 && !self.echoed {
            WrongAnswer::Closed
        } else {
            self.wrong_answer()
        };
        self.verdict.get_or_insert(Reachability::NotAGdbStub(seen));
        self.stage = Stage::Done;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next; `None` when nothing is
    /// left to be done or written.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Done if self.link.output().is_empty() => None,
            Stage::Done => Some(self.leave_by),
            _ => self.nudge_at.or(self.deadline).or(Some(self.leave_by)),
        }
    }

    /// Does what is due at `now`; nothing if it is not.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.nudge_at.is_some_and(|due| due <= now) {
            self.nudge_at = None;
            // Once, and only before anything came.
            if !self.has_input() && self.stage == Stage::Asking {
                self.link.send_raw(NUDGE);
            }
        }
        if self.is_deadline_due(now) {
            self.deadline = None;
            self.conclude_at_deadline();
        }
        if self.leave_by <= now {
            self.link.advance_output(usize::MAX);
            self.stage = Stage::Done;
        }
    }

    /// Whether the deadline is reached and was not handled.
    pub(crate) fn is_deadline_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|due| due <= now)
    }

    /// The time for questions is over: concludes with what is there, and turns to leaving. A
    /// leaving that has begun goes on.
    fn conclude_at_deadline(&mut self) {
        if self.stage != Stage::Asking {
            return;
        }
        if self.link.decoder().noise() > 0 || self.echoed {
            self.conclude_wrong_answer();
        } else if !self.stopped_by_us
            && (self.link.decoder().is_inside_packet() || self.unasked > 0)
        {
            // It talks without an answer. A stop reply is a stub's, though: that one fell silent.
            self.cut_off = true;
            self.conclude_wrong_answer();
        } else {
            self.conclude(Reachability::Silent { accepted: None });
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
        self.stage == Stage::Done
    }

    /// Whether any byte came: the connection was accepted.
    #[must_use]
    pub fn has_input(&self) -> bool {
        !self.first_input.is_empty()
    }

    /// The packet that lets a guest run on which ran before, for a caller that must leave without
    /// another answer; empty when it is not known to have run or is to stay paused. Nothing may be
    /// sent after it.
    #[must_use]
    pub fn detach_packet(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        if !self.asked_to_resume && self.ran_before() == Some(true) && self.leave == Leave::RunOn {
            // QEMU takes this form whatever was agreed; the reply that would say cannot be waited
            // for.
            encode(b"D;1", &mut frame);
        }
        frame
    }

    /// What was found and done, once it [`is_done`](Self::is_done); before that, what is known so
    /// far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let reachability = match &self.verdict {
            // A stub that answered the first question is one, whatever became of the later ones.
            _ if self.handshake.is_answered() => {
                Reachability::Answers(Box::new(self.handshake.identity().clone()))
            }
            Some(verdict) => verdict.clone(),
            None => Reachability::Silent { accepted: None },
        };
        Outcome {
            reachability,
            effect: self.effect(),
        }
    }

    fn effect(&self) -> GuestEffect {
        let is_stub = self.handshake.is_answered() || self.stopped_by_us;
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
        self.guest.map(|state| state == GuestState::Running)
    }

    /// What came instead of an answer. Bytes outside packets go first: how much of them was read
    /// when the packets' limits were met depends on how the bytes were cut, whether there were any
    /// does not.
    fn wrong_answer(&self) -> WrongAnswer {
        match self.link.decoder().noise() {
            0 if self.echoed => WrongAnswer::Echo,
            0 => WrongAnswer::BrokenPackets,
            _ => WrongAnswer::OtherProtocol(self.first_input.clone()),
        }
    }

    fn handle_packet(&mut self, payload: &[u8]) {
        if let Stage::Leaving { tried_other_form } = self.stage {
            self.handle_detach_reply(payload, tried_other_form);
            return;
        }
        match self.handshake.handle_packet(&mut self.link, payload) {
            progress @ (Progress::Answered | Progress::Done) => {
                let stop = self.handshake.identity().stop.clone();
                self.note_process(stop.as_ref());
                if progress == Progress::Done {
                    self.depart();
                }
            }
            Progress::Echo if !self.handshake.is_answered() => {
                self.echoed = true;
                self.conclude_wrong_answer();
            }
            Progress::Echo | Progress::Unrelated => self.handle_unasked(payload),
        }
    }

    /// A stop reply before the first answer says that the guest ran until now. Later ones could be
    /// late answers to `?`, and console output says nothing here.
    fn handle_unasked(&mut self, payload: &[u8]) {
        match StopReply::parse(payload) {
            Some(stop @ StopReply::Signal { .. }) if !self.handshake.is_answered() => {
                self.stopped_by_us = true;
                self.note_process(Some(&stop));
            }
            _ => self.overlook(),
        }
    }

    fn overlook(&mut self) {
        self.unasked += 1;
        if self.unasked > MAX_UNASKED {
            self.conclude_wrong_answer();
        }
    }

    fn note_process(&mut self, stop: Option<&StopReply>) {
        let thread = stop.and_then(StopReply::thread);
        if let Some(Id::One(process)) = thread.and_then(|thread| thread.process) {
            self.process = Some(process);
        }
    }

    fn conclude_wrong_answer(&mut self) {
        self.conclude(Reachability::NotAGdbStub(self.wrong_answer()));
    }

    fn conclude(&mut self, verdict: Reachability) {
        self.verdict.get_or_insert(verdict);
        self.depart();
    }

    /// Leaves in order: lets a guest run on that ran before, if it is to.
    fn depart(&mut self) {
        let answered = self.handshake.is_answered();
        let is_silent = matches!(self.verdict, Some(Reachability::Silent { .. }));
        let may_be_stub = answered || self.stopped_by_us || self.cut_off || is_silent;
        let resume = self.leave == Leave::RunOn && self.ran_before() == Some(true);
        if !resume || self.asked_to_resume || !may_be_stub {
            self.stage = Stage::Done;
            return;
        }
        self.asked_to_resume = true;
        self.send_detach(false, self.process.is_some() || !answered);
    }

    fn send_detach(&mut self, tried_other_form: bool, with_process: bool) {
        self.stage = Stage::Leaving { tried_other_form };
        self.link.limit_acknowledgments(1);
        if with_process {
            let process = self.process.unwrap_or(1);
            self.link.send(format!("D;{process:x}").as_bytes());
        } else {
            self.link.send(b"D");
        }
    }

    fn handle_detach_reply(&mut self, payload: &[u8], tried_other_form: bool) {
        match payload {
            b"OK" => {
                self.resumed = true;
                self.stage = Stage::Done;
            }
            refused if is_error(refused) && !tried_other_form => {
                self.send_detach(true, self.process.is_none() && self.handshake.is_answered());
            }
            refused if refused.is_empty() || is_error(refused) => self.stage = Stage::Done,
            other => self.handle_unasked(other),
        }
    }
}
