//! A connection as one would describe it in a few words, and the check that [`Connection`] does the
//! same.

use std::collections::BTreeMap;

use crate::{
    Capability, CommandId, Connection, Dropped, Limits, MessageId, Phase, Received, SendError,
    commands::Stop,
};

/// The id prefix of the connection under test, and another client's.
const PREFIX: u32 = 0x0000_00aa;
const FOREIGN: u32 = 0x0000_00bb;

/// Few, so that they run out.
const PLACES: usize = 3;

/// One thing that the caller or the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// The server greets, and offers `oob` or not.
    Greet(bool),
    /// The caller negotiates, with `oob` or not.
    Negotiate(bool),
    /// The caller executes a command, out of band or not.
    Execute(bool),
    /// The caller executes a command that cannot be sent.
    ExecuteUnsendable,
    /// The caller abandons the n-th command it ever sent.
    Abandon(u8),
    /// The socket takes up to so many bytes.
    Write(u8),
    /// The server answers the n-th command in flight, with success or not.
    Answer(u8, bool),
    /// The server answers the n-th command ever sent, wherever it is, to another client's id or
    /// not.
    Stale(u8, bool),
    /// The server sends a return without id.
    BareReturn,
    /// The server sends an error without id.
    BareError,
    /// The server sends an event.
    Event,
    /// The stream ends.
    Eof,
    /// The stream ends inside a message.
    CutOff,
}

impl Op {
    /// Reads one from two bytes.
    pub fn read(kind: u8, n: u8) -> Self {
        let flag = n & 1 == 1;
        match kind % 26 {
            0 => Self::Greet(flag),
            1 | 2 => Self::Negotiate(flag),
            3..=7 => Self::Execute(flag),
            8 => Self::ExecuteUnsendable,
            9..=11 => Self::Abandon(n),
            12..=14 => Self::Write(n),
            15..=18 => Self::Answer(n >> 1, flag),
            19 => Self::Stale(n >> 1, flag),
            20 if n < 32 => Self::BareReturn,
            21 | 22 => Self::BareError,
            24 if n < 64 => Self::Eof,
            25 if n < 64 => Self::CutOff,
            _ => Self::Event,
        }
    }

    /// Reads as many as there are bytes for.
    pub fn read_all(bytes: &[u8]) -> Vec<Self> {
        bytes
            .chunks_exact(2)
            .map(|pair| Self::read(pair[0], pair[1]))
            .collect()
    }
}

/// What became of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    Abandoned,
    Answered,
    Lost,
}

/// What an op must lead to.
#[derive(Debug, PartialEq)]
enum Expect {
    Nothing,
    Greeting,
    Negotiated(bool),
    Reply(u64, bool),
    Late(u64, bool),
    Unknown(CommandId),
    Early,
    StrayReturn,
    Unattributed,
    Event,
    Closed,
    Fatal,
}

struct Model {
    phase: Phase,
    offers_oob: bool,
    asked_oob: bool,
    oob: bool,
    sent: u64,
    /// In flight: number to (out of band, abandoned, end in the output).
    flights: BTreeMap<u64, (bool, bool, usize)>,
    fates: BTreeMap<u64, Fate>,
    written: usize,
    taken: usize,
}

/// Does each op with a [`Connection`] and with the model, and compares.
///
/// # Panics
/// Where they differ.
pub fn run_against_model(ops: &[Op]) {
    let limits = Limits {
        max_in_flight: PLACES,
        max_command_bytes: 100,
        ..Limits::default()
    };
    let mut qmp = Connection::with_id_prefix(limits, PREFIX);
    let mut model = Model {
        phase: Phase::AwaitingGreeting,
        offers_oob: false,
        asked_oob: false,
        oob: false,
        sent: 0,
        flights: BTreeMap::new(),
        fates: BTreeMap::new(),
        written: 0,
        taken: 0,
    };
    for &op in ops {
        model.call(op, &mut qmp);
        let (text, expect) = model.answer(op);
        if let Some(text) = text {
            qmp.handle_input(text.as_bytes());
        }
        if matches!(op, Op::Eof | Op::CutOff) {
            qmp.handle_eof();
        }
        model.check_events(op, expect, &mut qmp);
        model.check_state(&qmp);
    }
    model.finish(qmp);
}

impl Model {
    fn ended(&self) -> bool {
        matches!(self.phase, Phase::Closed | Phase::Failed)
    }

    fn count(&self, oob: bool) -> usize {
        self.flights
            .values()
            .filter(|flight| flight.0 == oob)
            .count()
    }

    /// The caller's side.
    fn call(&mut self, op: Op, qmp: &mut Connection) {
        let before = qmp.output().len();
        match op {
            Op::Negotiate(oob) => {
                let enable = if oob { &[Capability::Oob][..] } else { &[] };
                let result = qmp.negotiate(enable);
                if self.phase != Phase::Greeted {
                    assert!(
                        matches!(result, Err(SendError::WrongPhase { phase }) if phase == self.phase)
                    );
                } else if oob && !self.offers_oob {
                    assert!(matches!(result, Err(SendError::NotOffered(name)) if name == "oob"));
                } else {
                    result.expect("it is time to negotiate");
                    self.phase = Phase::Negotiating;
                    self.asked_oob = oob;
                    self.fly(false, qmp, before);
                }
            }
            Op::Execute(oob) => {
                let result = if oob {
                    qmp.command_oob(&Stop)
                } else {
                    qmp.command(&Stop)
                };
                if self.phase != Phase::Ready {
                    assert!(
                        matches!(result, Err(SendError::WrongPhase { phase }) if phase == self.phase)
                    );
                } else if oob && !self.oob {
                    assert!(matches!(result, Err(SendError::OobNotEnabled)));
                } else if self.count(oob) == PLACES {
                    assert!(matches!(result, Err(SendError::Full { limit: PLACES })));
                } else {
                    let number = self.fly(oob, qmp, before);
                    assert_eq!(
                        result.expect("there is a place"),
                        CommandId::new(PREFIX, number)
                    );
                    self.fates.insert(number, Fate::InFlight);
                }
            }
            Op::ExecuteUnsendable => {
                qmp.execute("x", &[1, 2])
                    .expect_err("arguments are objects");
                qmp.execute(&"x".repeat(100), &()).expect_err("too large");
                assert_eq!(qmp.output().len(), before);
            }
            Op::Abandon(n) => {
                let number = 1 + u64::from(n) % (self.sent + 1);
                let waited_for = self.fates.get(&number) == Some(&Fate::InFlight);
                assert_eq!(qmp.abandon(CommandId::new(PREFIX, number)), waited_for);
                assert!(!qmp.abandon(CommandId::new(FOREIGN, number)));
                if waited_for {
                    self.fates.insert(number, Fate::Abandoned);
                    self.flights.get_mut(&number).expect("it is in flight").1 = true;
                }
            }
            Op::Write(n) => {
                let count = before.min(n.into());
                qmp.advance_output(count);
                self.taken += count;
            }
            _ => {}
        }
    }

    fn fly(&mut self, oob: bool, qmp: &Connection, before: usize) -> u64 {
        self.sent += 1;
        self.written += qmp.output().len() - before;
        self.flights.insert(self.sent, (oob, false, self.written));
        self.sent
    }

    /// The server's side: what it says, and what must come of it.
    fn answer(&mut self, op: Op) -> (Option<String>, Expect) {
        let (text, expect): (String, fn(&mut Self) -> Expect) = match op {
            Op::Greet(oob) => {
                let offered = if oob { "\"oob\", \"flux\"" } else { "" };
                if self.phase == Phase::AwaitingGreeting {
                    self.offers_oob = oob;
                }
                let version =
                    "{\"qemu\": {\"major\": 1, \"minor\": 2, \"micro\": 3}, \"package\": \"\"}";
                (
                    format!(
                        "{{\"QMP\": {{\"version\": {version}, \"capabilities\": [{offered}]}}}}\r\n"
                    ),
                    Self::greet,
                )
            }
            Op::Answer(n, ok) => {
                let Some(&number) = self
                    .flights
                    .keys()
                    .nth(usize::from(n) % self.flights.len().max(1))
                else {
                    return (None, Expect::Nothing);
                };
                return self.answer_to(CommandId::new(PREFIX, number), ok);
            }
            Op::Stale(n, foreign) => {
                let number = u64::from(n) % (self.sent + 2);
                return self.answer_to(
                    CommandId::new(if foreign { FOREIGN } else { PREFIX }, number),
                    true,
                );
            }
            Op::BareReturn => ("{\"return\": {}}".into(), Self::bare_return),
            Op::BareError => (
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}\n".into(),
                Self::bare_error,
            ),
            Op::Event => ("{\"event\": \"STOP\"}\r\n".into(), |_| Expect::Event),
            Op::Eof => (" ".into(), |model| model.end(Phase::Closed, Expect::Closed)),
            Op::CutOff => ("{\"event\": \"ST".into(), |model| {
                model.end(Phase::Failed, Expect::Fatal)
            }),
            _ => return (None, Expect::Nothing),
        };
        let expect = if self.ended() {
            if self.phase == Phase::Failed {
                Expect::Fatal
            } else {
                Expect::Nothing
            }
        } else if self.phase == Phase::AwaitingGreeting
            && !matches!(op, Op::Greet(_) | Op::Eof | Op::CutOff)
        {
            Expect::Early
        } else {
            expect(self)
        };
        (Some(text), expect)
    }

    fn greet(&mut self) -> Expect {
        if self.phase == Phase::AwaitingGreeting {
            self.phase = Phase::Greeted;
            Expect::Greeting
        } else {
            self.end(Phase::Failed, Expect::Fatal)
        }
    }

    fn bare_return(&mut self) -> Expect {
        if self.phase != Phase::Ready {
            Expect::StrayReturn
        } else {
            self.end(Phase::Failed, Expect::Fatal)
        }
    }

    fn bare_error(&mut self) -> Expect {
        match self.flights.first_key_value() {
            Some((&number, &(_, _, end)))
                if self.phase == Phase::Ready && self.count(true) == 0 && end <= self.taken =>
            {
                self.land(number, false)
            }
            _ => Expect::Unattributed,
        }
    }

    fn answer_to(&mut self, id: CommandId, ok: bool) -> (Option<String>, Expect) {
        let text = if ok {
            format!("{{\"return\": {{}}, \"id\": \"{id}\"}}\r\n")
        } else {
            format!(
                "{{\"id\": \"{id}\", \"error\": {{\"class\": \"GenericError\", \"desc\": \"no\"}}}}\r\n"
            )
        };
        let expect = match self.phase {
            Phase::AwaitingGreeting => Expect::Early,
            Phase::Closed => Expect::Nothing,
            Phase::Failed => Expect::Fatal,
            _ if id.prefix() != PREFIX || !self.flights.contains_key(&id.number()) => {
                Expect::Unknown(id)
            }
            _ => self.land(id.number(), ok),
        };
        (Some(text), expect)
    }

    fn land(&mut self, number: u64, ok: bool) -> Expect {
        let (_, abandoned, _) = self.flights.remove(&number).expect("it is in flight");
        if self.phase == Phase::Negotiating {
            self.phase = if ok { Phase::Ready } else { Phase::Greeted };
            self.oob = ok && self.asked_oob;
            Expect::Negotiated(ok)
        } else if abandoned {
            Expect::Late(number, ok)
        } else {
            self.settle(number, Fate::Answered);
            Expect::Reply(number, ok)
        }
    }

    fn end(&mut self, phase: Phase, expect: Expect) -> Expect {
        self.phase = phase;
        self.flights.clear();
        expect
    }

    /// An id meets its fate once.
    fn settle(&mut self, number: u64, fate: Fate) {
        assert_eq!(
            self.fates.insert(number, fate),
            Some(Fate::InFlight),
            "{number} {fate:?}"
        );
    }

    fn check_events(&mut self, op: Op, expect: Expect, qmp: &mut Connection) {
        let dropped = qmp.dropped();
        let seen = match qmp.poll() {
            Ok(None) => Expect::Nothing,
            Ok(Some(event)) => summary(event),
            Err(_) => Expect::Fatal,
        };
        // A failed connection says so at every poll.
        let expect = if self.phase == Phase::Failed {
            Expect::Fatal
        } else {
            expect
        };
        let drops = matches!(
            expect,
            Expect::Late(..) | Expect::Unknown(_) | Expect::Early | Expect::StrayReturn
        );
        assert_eq!(seen, expect, "after {op:?}");
        assert_eq!(qmp.dropped() - dropped, u64::from(drops));
        match qmp.poll() {
            Ok(None) => {}
            Ok(Some(event)) => panic!("one too many after {op:?}: {event:?}"),
            Err(_) => assert_eq!(self.phase, Phase::Failed),
        }
        for id in qmp.take_lost() {
            assert!(self.ended(), "lost before the end");
            self.settle(id.number(), Fate::Lost);
        }
    }

    fn check_state(&self, qmp: &Connection) {
        assert_eq!(qmp.phase(), self.phase);
        assert_eq!(qmp.in_flight(), self.flights.len());
        assert_eq!(qmp.in_flight_in_band(), self.count(false));
        assert_eq!(qmp.output().len(), self.written - self.taken);
        assert_eq!(qmp.oob_enabled(), self.oob);
        assert_eq!(
            qmp.can_execute(),
            self.phase == Phase::Ready && self.count(false) < PLACES
        );
    }

    /// Ends the stream and sees that nobody was forgotten.
    fn finish(mut self, mut qmp: Connection) {
        qmp.handle_eof();
        while let Ok(Some(_)) = qmp.poll() {}
        for id in qmp.take_lost() {
            self.settle(id.number(), Fate::Lost);
        }
        assert!(
            self.fates.values().all(|&fate| fate != Fate::InFlight),
            "forgotten: {:?}",
            self.fates
        );
    }
}

fn summary(event: Received) -> Expect {
    match event {
        Received::Greeting(_) => Expect::Greeting,
        Received::Negotiated(result) => Expect::Negotiated(result.is_ok()),
        Received::Reply { id, result } => Expect::Reply(id.number(), result.is_ok()),
        Received::Event(_) => Expect::Event,
        Received::UnattributedError(_) => Expect::Unattributed,
        Received::Dropped(Dropped::Abandoned { id, result }) => {
            Expect::Late(id.number(), result.is_ok())
        }
        Received::Dropped(Dropped::UnknownId(MessageId::Command(id))) => Expect::Unknown(id),
        Received::Dropped(Dropped::BeforeGreeting(_)) => Expect::Early,
        Received::Dropped(Dropped::ReturnWithoutId) => Expect::StrayReturn,
        Received::Dropped(Dropped::UnknownId(MessageId::Foreign(id))) => {
            panic!("not ours to send: {id}")
        }
        Received::Closed => Expect::Closed,
    }
}
