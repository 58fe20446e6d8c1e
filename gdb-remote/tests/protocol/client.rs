//! The client: against a stub that is a model, against one that lies, and against recorded ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gdb_remote::client::{
    Client, Closed, Event, MAX_MEMORY, Phase, PointKind, Reply, RequestError, SendError,
};
use gdb_remote::handshake::Handshake;
use gdb_remote::packet::{Decoder, Item, encode};
use gdb_remote::reply::{Access, StopReply};
use gdb_remote::testing::Recording;
use proptest::prelude::*;

/// A stub of a few lines: memory of 8 KiB from 0x1000 on, 17 registers of 4 bytes, points.
struct Stub {
    decoder: Decoder,
    memory: Vec<u8>,
    registers: Vec<u8>,
    points: BTreeSet<String>,
    packet_size: usize,
    longest: usize,
}

const BASE: u64 = 0x1000;
const SIZE: usize = 8192;

impl Stub {
    fn new(packet_size: usize) -> Self {
        Self {
            decoder: Decoder::default(),
            memory: (0..SIZE).map(|at| at as u8).collect(),
            registers: vec![0; 17 * 4],
            points: BTreeSet::new(),
            packet_size,
            longest: 0,
        }
    }

    /// All that it sends to these bytes.
    fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for &byte in bytes {
            match self.decoder.push(byte) {
                Some(Item::Packet(payload)) => {
                    self.longest = self.longest.max(payload.len());
                    out.push(b'+');
                    for reply in self.answer(std::str::from_utf8(&payload).unwrap()) {
                        encode(reply.as_bytes(), &mut out);
                    }
                }
                Some(Item::Interrupt) => encode(b"T02thread:01;", &mut out),
                _ => {}
            }
        }
        out
    }

    fn answer(&mut self, packet: &str) -> Vec<String> {
        let (letter, rest) = packet.split_at(1);
        vec![match letter {
            "q" if packet.starts_with("qSupported") => {
                format!("PacketSize={:x};qXfer:features:read-", self.packet_size)
            }
            "q" if packet == "qfThreadInfo" => "m01,02".to_owned(),
            "q" if packet == "qsThreadInfo" => "l".to_owned(),
            "q" if packet.starts_with("qRcmd,") => {
                return vec![
                    format!("O{}", &packet[6..]),
                    "O0a".to_owned(),
                    "OK".to_owned(),
                ];
            }
            "?" => "T05thread:01;".to_owned(),
            "g" => digits(&self.registers),
            "G" => {
                self.registers = bytes(rest);
                "OK".to_owned()
            }
            "p" => {
                let number = usize::from_str_radix(rest, 16).unwrap();
                let at = self.registers.get(number * 4..number * 4 + 4);
                at.map_or(String::new(), digits)
            }
            "P" => {
                let (number, value) = rest.split_once('=').unwrap();
                let number = usize::from_str_radix(number, 16).unwrap();
                self.registers[number * 4..number * 4 + 4].copy_from_slice(&bytes(value));
                "OK".to_owned()
            }
            "m" => match self.place(rest) {
                // The most that fits: a client asks for the rest.
                Some((at, length)) => digits(&self.memory[at..at + length.min(100)]),
                None => "E14".to_owned(),
            },
            "M" => {
                let (place, value) = rest.split_once(':').unwrap();
                match self.place(place) {
                    Some((at, length)) => {
                        self.memory[at..at + length].copy_from_slice(&bytes(value));
                        "OK".to_owned()
                    }
                    None => "E14".to_owned(),
                }
            }
            "Z" => {
                self.points.insert(rest.to_owned());
                "OK".to_owned()
            }
            "z" => match self.points.remove(rest) {
                true => "OK".to_owned(),
                false => "E22".to_owned(),
            },
            "s" => "T05thread:01;".to_owned(),
            "c" => return vec![],
            "D" => "OK".to_owned(),
            _ => String::new(),
        }]
    }

    fn place(&self, text: &str) -> Option<(usize, usize)> {
        let (address, length) = text.split_once(',').unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let at = usize::try_from(address.checked_sub(BASE)?).ok()?;
        (at <= SIZE && (length == 0 || at < SIZE)).then_some((at, length.min(SIZE - at)))
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// A client and the stub, with a wire that hands over `piece` bytes at a time.
struct Pair {
    client: Client,
    stub: Stub,
    piece: usize,
}

impl Pair {
    fn new(packet_size: usize, piece: usize) -> Self {
        let client = Client::new(Handshake::new());
        let stub = Stub::new(packet_size);
        let mut pair = Self {
            client,
            stub,
            piece,
        };
        assert_eq!(pair.events(), [Event::Connected]);
        pair
    }

    /// All that happens until nothing more does.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let said = self.client.output().to_vec();
            self.client.advance_output(said.len());
            let replies = self.stub.hear(&said);
            for piece in replies.chunks(self.piece) {
                self.client.handle_input(piece);
            }
            events.extend(std::iter::from_fn(|| self.client.poll_event()));
            if self.client.output().is_empty() {
                return events;
            }
        }
    }

    fn reply(&mut self) -> Result<Reply, RequestError> {
        match <[Event; 1]>::try_from(self.events()) {
            Ok([Event::Reply(reply)]) => reply,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Do {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Register(u32, [u8; 4]),
    Insert(u64),
    Remove(u64),
    Step,
    RunAndInterrupt,
}

fn deeds() -> impl Strategy<Value = Vec<Do>> {
    let address = BASE..BASE + SIZE as u64;
    prop::collection::vec(
        prop_oneof![
            (address.clone(), 0_usize..3000).prop_map(|(at, length)| Do::Read(at, length)),
            (address.clone(), prop::collection::vec(any::<u8>(), 0..3000))
                .prop_map(|(at, bytes)| Do::Write(at, bytes)),
            (0_u32..20, any::<[u8; 4]>()).prop_map(|(number, value)| Do::Register(number, value)),
            (0_u64..4).prop_map(Do::Insert),
            (0_u64..4).prop_map(Do::Remove),
            Just(Do::Step),
            Just(Do::RunAndInterrupt),
        ],
        0..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What the client reads back is what a model says, whatever the packet size and the cuts.
    #[test]
    fn a_client_and_a_stub_agree_with_the_model(
        deeds in deeds(), packet_size in 64_usize..2000, piece in 1_usize..300,
    ) {
        let mut pair = Pair::new(packet_size, piece);
        let mut memory: Vec<u8> = (0..SIZE).map(|at| at as u8).collect();
        let mut registers = BTreeMap::new();
        let mut points = BTreeSet::new();
        for deed in deeds {
            match deed {
                Do::Read(at, length) => {
                    pair.client.read_memory(at, length).unwrap();
                    let from = (at - BASE) as usize;
                    let expected = match memory.get(from..from + length) {
                        Some(bytes) => Ok(Reply::Bytes(bytes.to_vec())),
                        None => Err(RequestError::Refused { code: "E14".to_owned(), done: SIZE - from }),
                    };
                    prop_assert_eq!(pair.reply(), expected);
                }
                Do::Write(at, bytes) => {
                    let from = (at - BASE) as usize;
                    let bytes = &bytes[..bytes.len().min(SIZE - from)];
                    pair.client.write_memory(at, bytes).unwrap();
                    prop_assert_eq!(pair.reply(), Ok(Reply::Done));
                    memory[from..from + bytes.len()].copy_from_slice(bytes);
                }
                Do::Register(number, value) if number < 17 => {
                    pair.client.write_register(number, &value).unwrap();
                    prop_assert_eq!(pair.reply(), Ok(Reply::Done));
                    registers.insert(number, value);
                }
                Do::Register(number, _) => {
                    pair.client.read_register(number).unwrap();
                    prop_assert_eq!(pair.reply(), Err(RequestError::Unsupported));
                }
                Do::Insert(at) => {
                    pair.client.insert(PointKind::Software, at, 2).unwrap();
                    prop_assert_eq!(pair.reply(), Ok(Reply::Done));
                    points.insert(at);
                }
                Do::Remove(at) => {
                    pair.client.remove(PointKind::Software, at, 2).unwrap();
                    prop_assert_eq!(pair.reply().is_ok(), points.remove(&at));
                }
                Do::Step => {
                    pair.client.step(None).unwrap();
                    prop_assert!(matches!(pair.events()[..], [Event::Stopped(_)]));
                }
                Do::RunAndInterrupt => {
                    pair.client.resume().unwrap();
                    prop_assert!(pair.events().is_empty());
                    prop_assert_eq!(pair.client.read_registers(), Err(SendError::WrongPhase(Phase::Running)));
                    pair.client.interrupt().unwrap();
                    prop_assert!(matches!(pair.events()[..], [Event::Stopped(_)]));
                }
            }
        }
        for (number, value) in registers {
            pair.client.read_register(number).unwrap();
            prop_assert_eq!(pair.reply(), Ok(Reply::Bytes(value.to_vec())));
        }
        prop_assert!(pair.stub.longest <= packet_size, "a packet of {}", pair.stub.longest);
    }
}

#[test]
fn threads_monitor_and_detach() {
    let mut pair = Pair::new(4096, 7);
    pair.client.threads().unwrap();
    let Ok(Reply::Threads(threads)) = pair.reply() else {
        panic!()
    };
    let names: Vec<String> = threads.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["1", "2"]);
    pair.client.monitor("info status").unwrap();
    assert_eq!(pair.reply(), Ok(Reply::Text(b"info status\n".to_vec())));
    pair.client.detach(None).unwrap();
    assert_eq!(pair.events(), [Event::Closed(Closed::Detached)]);
    let refused = Err(SendError::WrongPhase(Phase::Closed));
    assert_eq!(pair.client.read_registers(), refused);
    assert_eq!(pair.client.interrupt(), refused);
}

#[test]
fn a_request_whose_caller_has_gone_is_not_asked_further_and_its_reply_is_dropped() {
    let mut pair = Pair::new(4096, 4096);
    pair.client.read_memory(BASE, SIZE).unwrap();
    pair.client.abandon();
    assert_eq!(pair.events(), []);
    assert_eq!(pair.client.phase(), Phase::Ready);
    pair.client.read_memory(BASE, 2).unwrap();
    assert_eq!(pair.reply(), Ok(Reply::Bytes(vec![0, 1])));

    // One of two replies was polled, and they had come together.
    pair.client.stop_acknowledging();
    pair.client.read_memory(BASE + 1, 1).unwrap();
    pair.client.read_memory(BASE + 2, 1).unwrap();
    let replies = pair.stub.hear(pair.client.output());
    pair.client.advance_output(usize::MAX);
    pair.client.handle_input(&replies);
    assert_eq!(
        pair.client.poll_event(),
        Some(Event::Reply(Ok(Reply::Bytes(vec![1]))))
    );
    pair.client.abandon();
    pair.client.read_memory(BASE + 3, 1).unwrap();
    assert_eq!(pair.reply(), Ok(Reply::Bytes(vec![3])));
}

#[test]
fn requests_that_are_sent_together_are_answered_in_order() {
    let mut pair = Pair::new(4096, 3);
    pair.client.read_register(1).unwrap();
    let busy = Err(SendError::WrongPhase(Phase::Busy));
    assert_eq!(pair.client.read_register(2), busy);
    assert_eq!(pair.reply(), Ok(Reply::Bytes(vec![0; 4])));

    pair.client.stop_acknowledging();
    pair.client.read_memory(BASE, 2).unwrap();
    pair.client.insert(PointKind::Software, 4, 2).unwrap();
    pair.client.read_memory(BASE + 4, 1).unwrap();
    pair.client.remove(PointKind::Software, 6, 2).unwrap();
    assert_eq!(pair.client.resume(), busy, "before all is answered");
    // Of more packets than one: the next is sent when the first is answered.
    pair.client.read_memory(BASE, 150).unwrap();
    let refused = RequestError::Refused {
        code: "E22".to_owned(),
        done: 0,
    };
    let bytes: Vec<u8> = (0..150).collect();
    let replies = [
        Ok(Reply::Bytes(vec![0, 1])),
        Ok(Reply::Done),
        Ok(Reply::Bytes(vec![4])),
        Err(refused),
        Ok(Reply::Bytes(bytes)),
    ];
    assert_eq!(pair.events(), replies.map(Event::Reply));
    assert_eq!(pair.client.phase(), Phase::Ready);
    assert_eq!(pair.stub.points.len(), 1);

    // Nothing may come between the packets of one request, and there is an end to it.
    pair.client.write_memory(BASE, &[1; 3000]).unwrap();
    assert_eq!(pair.client.read_register(1), busy);
    assert_eq!(pair.reply(), Ok(Reply::Done));
    let sent = std::iter::from_fn(|| pair.client.read_register(1).ok());
    let sent = sent.count();
    pair.client.abandon();
    assert_eq!((sent, pair.events()), (64, vec![]));
    assert_eq!(pair.client.phase(), Phase::Ready);

    // What is cut short cannot be asked for after what was sent since.
    pair.client.read_memory(BASE, 101).unwrap();
    pair.client.read_register(1).unwrap();
    let events = pair.events();
    let malformed = matches!(events[0], Event::Reply(Err(RequestError::Malformed(_))));
    assert!(malformed && events.len() == 2, "{events:?}");
}

#[test]
fn too_much_is_refused_before_it_is_sent() {
    let mut pair = Pair::new(64, 4096);
    for sent in [
        pair.client.read_memory(0, MAX_MEMORY + 1),
        pair.client.write_registers(&[0; 68]),
        pair.client.send_packet(&[b'x'; 65]),
    ] {
        assert!(matches!(sent, Err(SendError::TooLong { .. })), "{sent:?}");
    }
    assert_eq!(pair.client.phase(), Phase::Ready);
}

/// What a client makes of a stub that sends this to its request for four bytes of memory.
fn hear(sent: &[&str]) -> (Vec<Event>, Phase) {
    let mut pair = Pair::new(4096, 4096);
    pair.client.read_memory(BASE, 4).unwrap();
    let mut bytes = b"+".to_vec();
    for payload in sent {
        encode(payload.as_bytes(), &mut bytes);
    }
    pair.client.handle_input(&bytes);
    let events = std::iter::from_fn(|| pair.client.poll_event()).collect();
    (events, pair.client.phase())
}

#[test]
fn stubs_that_lie_or_speak_unasked() {
    let read = |bytes: &[u8]| Event::Reply(Ok(Reply::Bytes(bytes.to_vec())));
    let malformed = |text: &str| {
        let error = RequestError::Malformed(text.as_bytes().to_vec());
        (vec![Event::Reply(Err(error))], Phase::Ready)
    };
    assert_eq!(
        hear(&["00112233"]),
        (vec![read(&[0, 0x11, 0x22, 0x33])], Phase::Ready)
    );
    // More than was asked for, half a byte, no digits, another request's answer.
    for lie in ["0011223344", "001", "zz", "OK", "l"] {
        assert_eq!(hear(&[lie]), malformed(lie), "{lie}");
    }
    let (events, phase) = hear(&["T02thread:p01.02;watch:20000000;", "O41", "00112233"]);
    let Event::Stopped(stop) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(stop.watchpoint(), Some((Access::Write, 0x2000_0000)));
    assert_eq!(stop.thread().unwrap().to_string(), "p1.2");
    assert_eq!((events.len(), phase), (2, Phase::Ready));
    // The console's text is none to a request for memory.
    assert_eq!(hear(&["O41"]), malformed("O41"));
    // Nobody asked for what comes after the answer.
    let (events, phase) = hear(&["00112233", "OK", "55", "E01", ""]);
    assert_eq!((events.len(), phase), (1, Phase::Ready));
    let flood = vec![""; 5000];
    assert_eq!(hear(&flood).1, Phase::Closed);
    let echo = {
        let mut client = Client::new(Handshake::new());
        let said = client.output().to_vec();
        client.handle_input(&said);
        client.poll_event()
    };
    assert_eq!(echo, Some(Event::Closed(Closed::Echo)));
}

#[test]
fn stop_replies_name_the_access() {
    let watch = |text: &str| StopReply::parse(text.as_bytes()).unwrap().watchpoint();
    assert_eq!(watch("T05thread:01;rwatch:10;"), Some((Access::Read, 16)));
    assert_eq!(
        watch("T05awatch:ffffffffffffffff;"),
        Some((Access::Either, u64::MAX))
    );
    for none in ["T05thread:01;", "T05watch:;", "S05", "W00"] {
        assert_eq!(watch(none), None, "{none}");
    }
}

/// The packets, and how many acknowledgments: answers that come together are acknowledged together.
fn divide(said: &[u8]) -> (Vec<Item>, usize) {
    let mut decoder = Decoder::default();
    let items = said.iter().filter_map(|byte| decoder.push(*byte));
    let (acks, packets): (Vec<Item>, Vec<Item>) = items.partition(|item| *item == Item::Ack);
    (packets, acks.len())
}

/// The example `tour` as it was recorded, for a client that is fed in these pieces.
fn replay(recording: &Recording, piece: usize) {
    let mut client = Client::new(Handshake::new());
    let mut said = Vec::new();
    // A reply does not come before its request: the pieces end with the packets.
    let packets = recording.stub.split_inclusive(|byte| *byte == b'#');
    let mut heard = packets.flat_map(|packet| packet.chunks(piece));
    let mut requests = 0;
    let events = std::iter::from_fn(|| {
        loop {
            if let Some(event) = client.poll_event() {
                let next = match requests {
                    0 => client.insert(PointKind::Software, 0x122, 2),
                    1 => client.resume(),
                    2 => client.read_registers(),
                    3 => client.step(None),
                    4 => client.read_memory(0x122, 16),
                    5 => client.monitor("info status"),
                    6 => client.remove(PointKind::Software, 0x122, 2),
                    7 => client.detach(None),
                    _ => Ok(()),
                };
                next.unwrap();
                requests += 1;
                return Some(event);
            }
            said.extend_from_slice(client.output());
            client.advance_output(usize::MAX);
            client.handle_input(heard.next()?);
        }
    });
    let events: Vec<Event> = events.collect();
    said.extend_from_slice(client.output());
    assert_eq!(divide(&said), divide(&recording.debugger));
    let is_trap =
        |event: &Event| matches!(event, Event::Stopped(StopReply::Signal { signal: 5, .. }));
    let stops: Vec<usize> = (0..events.len())
        .filter(|at| is_trap(&events[*at]))
        .collect();
    assert_eq!(stops, [2, 4], "{events:?}");
    let Event::Reply(Ok(Reply::Bytes(registers))) = &events[3] else {
        panic!("{events:?}")
    };
    let target = client.identity().target.as_ref().unwrap();
    let registers = target.split(registers);
    let pc = registers.iter().find(|(register, _)| register.name == "pc");
    assert_eq!(pc.unwrap().1, [0x22, 1, 0, 0]);
    assert_eq!(registers.last().unwrap().0.name, "xpsr");
    assert!(
        matches!(&events[6], Event::Reply(Ok(Reply::Text(text))) if text.starts_with(b"VM status: paused"))
    );
    assert_eq!(events.last(), Some(&Event::Closed(Closed::Detached)));
}

#[test]
fn recorded_tours_are_repeated_however_they_are_cut() {
    for name in ["tour-7.2", "tour-10.0"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
        let text = std::fs::read_to_string(folder.join(format!("{name}.gdb-session")));
        let recording = Recording::parse(&text.unwrap()).unwrap();
        for piece in (1..64).chain([1000, usize::MAX]) {
            replay(&recording, piece);
        }
    }
}
