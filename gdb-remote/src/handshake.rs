//! The first questions of every client: what the stub offers, why the guest is stopped, which
//! registers there are.
//!
//! ```text
//!  qSupported ─► QStartNoAckMode ─► ? ─► qXfer:features:read… ─► done
//!                if it is offered        if it is offered and wanted
//! ```
//!
//! `?` has an effect besides its answer: QEMU's stub removes every breakpoint that is set. So it is
//! asked here, once, and never again.

use std::fmt;

use crate::link::Link;
use crate::reply::{Feature, Features, StopReply, is_error};
use crate::target::{Target, TargetReader};

/// What a stub said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StubIdentity {
    /// What `qSupported` offered; empty for a stub that does not know the question.
    pub features: Features,
    /// The answer to `?`: why the guest is stopped now.
    pub stop: Option<StopReply>,
    /// The target description, where the stub has one and it was asked for.
    pub target: Option<Target>,
}

impl fmt::Display for StubIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => {
                let architecture = target.architecture.as_deref().unwrap_or("unnamed");
                let registers = target.registers.len();
                write!(f, "architecture {architecture}, {registers} registers")?;
            }
            None => f.write_str("no target description")?,
        }
        match self.features.packet_size() {
            Some(size) => write!(f, ", packets of {size} bytes"),
            None => Ok(()),
        }
    }
}

/// What a packet was to the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is no answer to the question that was asked.
    Unrelated,
    /// It repeats the question: whoever sent it quotes or echoes, and is no stub.
    Echo,
    /// It answered; the next question is in the link's output.
    Answered,
    /// It answered the last question.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Supported,
    NoAck,
    Halted,
    Target,
    Done,
}

/// Asks a stub who it is, over a [`Link`] of the caller's.
///
/// [`begin`](Self::begin), then pass each packet to [`handle_packet`](Self::handle_packet) until it
/// says [`Progress::Done`].
#[derive(Debug)]
pub struct Handshake {
    step: Step,
    /// The payload that was sent last.
    question: Vec<u8>,
    multiprocess: bool,
    wants_target: bool,
    identity: StubIdentity,
    reader: TargetReader,
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

impl Handshake {
    /// A handshake that reads the target description and does not agree to `multiprocess+`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            step: Step::Supported,
            question: Vec::new(),
            multiprocess: false,
            wants_target: true,
            identity: StubIdentity::default(),
            reader: TargetReader::new(),
        }
    }

    /// Agrees to `multiprocess+`: thread ids name a process, which in QEMU is a cluster of cores.
    /// QEMU remembers it for every later client.
    #[must_use]
    pub fn multiprocess(mut self) -> Self {
        self.multiprocess = true;
        self
    }

    /// Leaves the target description unread.
    #[must_use]
    pub fn without_target(mut self) -> Self {
        self.wants_target = false;
        self
    }

    /// Sends the first question, after a lone `+` as gdb sends it.
    pub fn begin(&mut self, link: &mut Link) {
        link.greet();
        // `xmlRegisters` as gdb itself sends it: some stubs give no target description without it.
        let agreed = if self.multiprocess {
            "multiprocess+;"
        } else {
            ""
        };
        let question = format!("qSupported:{agreed}xmlRegisters=i386,arm");
        self.ask(link, Step::Supported, question.into_bytes());
    }

    /// Takes a packet; sends the next question if it answered the last one.
    pub fn handle_packet(&mut self, link: &mut Link, payload: &[u8]) -> Progress {
        if self.is_echo(payload) {
            return Progress::Echo;
        }
        let answered = match self.step {
            Step::Supported => self.handle_supported(link, payload),
            Step::NoAck => self.handle_no_ack(link, payload),
            Step::Halted => self.handle_halted(link, payload),
            Step::Target => self.handle_target(link, payload),
            Step::Done => false,
        };
        match answered {
            false => Progress::Unrelated,
            true if self.step == Step::Done => Progress::Done,
            true => Progress::Answered,
        }
    }

    /// Whether the first question was answered, which makes the peer a stub.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.step != Step::Supported
    }

    /// What is known so far.
    #[must_use]
    pub fn identity(&self) -> &StubIdentity {
        &self.identity
    }

    /// What was learnt.
    #[must_use]
    pub fn into_identity(self) -> StubIdentity {
        self.identity
    }

    /// The first question is long enough that a packet which holds it anywhere is a quote.
    fn is_echo(&self, payload: &[u8]) -> bool {
        let question = &self.question;
        match self.step {
            Step::Supported => payload
                .windows(question.len().max(1))
                .any(|part| part.eq_ignore_ascii_case(question)),
            Step::Done => false,
            _ => payload == question,
        }
    }

    fn handle_supported(&mut self, link: &mut Link, payload: &[u8]) -> bool {
        if StopReply::parse(payload).is_some() {
            return false;
        }
        // An error is an answer too: a stub that knows the packet and not its arguments.
        let refused = || is_error(payload).then(Features::default);
        let Some(features) = Features::parse(payload).or_else(refused) else {
            return false;
        };
        // Noise before the answer is a line that was not quiet; with an answer that says nothing it
        // is a banner that happens to hold a packet.
        if link.decoder().noise() > 0 && features.iter().next().is_none() {
            return false;
        }
        let no_ack = features.supports("QStartNoAckMode");
        self.identity.features = features;
        if no_ack {
            self.ask(link, Step::NoAck, b"QStartNoAckMode".to_vec());
        } else {
            self.ask(link, Step::Halted, b"?".to_vec());
        }
        true
    }

    fn handle_no_ack(&mut self, link: &mut Link, payload: &[u8]) -> bool {
        match payload {
            b"OK" => link.stop_acknowledging(),
            b"" => {}
            refused if is_error(refused) => {}
            _ => return false,
        }
        self.ask(link, Step::Halted, b"?".to_vec());
        true
    }

    fn handle_halted(&mut self, link: &mut Link, payload: &[u8]) -> bool {
        if let Some(stop) = StopReply::parse(payload) {
            self.identity.stop = Some(stop);
        } else if !payload.is_empty() && !is_error(payload) {
            return false;
        }
        let offered = matches!(
            self.identity.features.find("qXfer:features:read"),
            Some(Feature::Supported | Feature::Maybe)
        );
        if self.wants_target && offered {
            self.ask_for_target(link);
        } else {
            self.step = Step::Done;
        }
        true
    }

    fn handle_target(&mut self, link: &mut Link, payload: &[u8]) -> bool {
        match self.reader.handle_reply(payload) {
            Ok(true) => self.ask_for_target(link),
            Ok(false) => return false,
            // A description that cannot be read takes nothing from the answer.
            Err(_) => self.step = Step::Done,
        }
        true
    }

    fn ask_for_target(&mut self, link: &mut Link) {
        match self
            .reader
            .question(self.identity.features.description_piece())
        {
            Some(question) => self.ask(link, Step::Target, question),
            None => {
                self.identity.target = self.reader.finish().ok();
                self.step = Step::Done;
            }
        }
    }

    fn ask(&mut self, link: &mut Link, step: Step, question: Vec<u8>) {
        self.step = step;
        link.send(&question);
        self.question = question;
    }
}
