//! Recorded sessions of real gdb and of the probe with real QEMU, replayed whole, cut everywhere,
//! and byte by byte.

use std::path::Path;

use gdb_port::link::{Event, Link};
use gdb_port::packet::{Decoder, Item, encode};
use gdb_port::{GuestEffect, Leave, Outcome, Probe, ProbeOptions, Reachability};

/// One side's bytes in a row, and the other's.
struct Session {
    name: String,
    debugger: Vec<u8>,
    stub: Vec<u8>,
}

fn sessions() -> Vec<Session> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut sessions = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "gdb-session")
        {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            sessions.push(parse(name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
    assert_eq!(
        sessions.len(),
        7,
        "a recording is missing or was not counted here"
    );
    sessions
}

fn session(name: &str) -> Session {
    sessions()
        .into_iter()
        .find(|session| session.name == name)
        .unwrap()
}

fn parse(name: String, text: &str) -> Session {
    let mut session = Session {
        name,
        debugger: Vec::new(),
        stub: Vec::new(),
    };
    for line in text.lines() {
        let (side, bytes) = line.split_once(' ').unwrap();
        match side {
            ">" => unescape(bytes, &mut session.debugger),
            "<" => unescape(bytes, &mut session.stub),
            other => panic!("neither '>' nor '<': {other}"),
        }
    }
    session
}

/// Undoes `escape_ascii`.
fn unescape(text: &str, out: &mut Vec<u8>) {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next().unwrap() {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            itself => itself,
        });
    }
}

fn items(bytes: &[u8]) -> Vec<Item> {
    let mut decoder = Decoder::default();
    let items = bytes
        .iter()
        .filter_map(|byte| decoder.push(*byte))
        .collect();
    assert_eq!(decoder.noise(), 0);
    assert!(!decoder.is_inside_packet());
    items
}

#[test]
fn every_packet_of_every_session_is_understood() {
    for session in sessions() {
        for (side, bytes) in [("debugger", &session.debugger), ("stub", &session.stub)] {
            let items = items(bytes);
            assert!(items.len() >= 10, "{} {side}", session.name);
            for item in &items {
                assert!(
                    matches!(item, Item::Ack | Item::Packet(_)),
                    "{} {side}: {item:?}",
                    session.name
                );
            }
        }
    }
}

#[test]
fn what_gdb_sent_is_encoded_as_gdb_does() {
    for session in sessions() {
        let mut again = Vec::new();
        for item in items(&session.debugger) {
            match item {
                Item::Packet(payload) => encode(&payload, &mut again),
                _ => again.push(b'+'),
            }
        }
        assert_eq!(
            again.escape_ascii().to_string(),
            session.debugger.escape_ascii().to_string(),
            "{}",
            session.name
        );
    }
}

#[test]
fn gdbs_writes_arrive_whole() {
    let blob: Vec<u8> = (0..=255).chain(b"$#}*".repeat(16)).chain([0; 64]).collect();
    // gdb asks whether the stub takes binary writes (`X`); this QEMU does not, so they are `M`, in
    // hexadecimal.
    let written: Vec<u8> = items(&session("gdb-memory").debugger)
        .into_iter()
        .filter_map(|item| match item {
            Item::Packet(payload) if payload.starts_with(b"M") => String::from_utf8(payload).ok(),
            _ => None,
        })
        .flat_map(|packet| {
            let digits = packet.split_once(':').unwrap().1.as_bytes().to_vec();
            digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(written, blob);
}

/// What a link tells and says when one side's bytes come in these pieces.
fn through_a_link<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Vec<u8>) {
    let mut link = Link::new(4096);
    link.send(b"?");
    let mut events = Vec::new();
    for piece in pieces {
        link.handle_input(piece);
        events.extend(std::iter::from_fn(|| link.poll_event()));
    }
    (events, link.output().to_vec())
}

#[test]
fn either_side_cut_at_any_offset_or_delivered_byte_by_byte_is_the_same() {
    for session in sessions() {
        // A link is the client's end, but what it hears of a client it takes apart in the same way.
        for (side, bytes) in [("debugger", &session.debugger), ("stub", &session.stub)] {
            let name = format!("{} {side}", session.name);
            let whole = through_a_link(std::iter::once(bytes.as_slice()));
            let packets = whole
                .0
                .iter()
                .filter(|event| matches!(event, Event::Packet(_)))
                .count();
            let sent = items(bytes);
            let sent = sent.iter().filter(|item| matches!(item, Item::Packet(_)));
            assert_eq!(packets, sent.count(), "{name}");
            assert_eq!(
                through_a_link(bytes.chunks(1)),
                whole,
                "{name} byte by byte"
            );
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let pieces = [first, second].into_iter();
                assert_eq!(through_a_link(pieces), whole, "{name} cut at {cut}");
            }
        }
    }
}

/// A probe that hears a recorded stub in these pieces: what it asks, how often it acknowledges, and
/// what it finds.
fn through_a_probe<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Item>, usize, Outcome) {
    let mut probe = Probe::new(&ProbeOptions::default().leave(Leave::RunOn));
    let mut said = Vec::new();
    for piece in pieces {
        probe.handle_input(piece);
        said.extend_from_slice(probe.output());
        probe.advance_output(usize::MAX);
    }
    assert!(probe.is_done());
    let (packets, acks) = divide(&said);
    (packets, acks, probe.outcome())
}

/// The packets, and how many acknowledgments. Answers that come together are acknowledged together,
/// so only the number counts.
fn divide(said: &[u8]) -> (Vec<Item>, usize) {
    let (acks, packets): (Vec<Item>, Vec<Item>) =
        items(said).into_iter().partition(|item| *item == Item::Ack);
    (packets, acks.len())
}

#[test]
fn the_probes_own_sessions_are_repeated_however_they_are_cut() {
    for (name, effect) in [
        ("probe-running", GuestEffect::PausedThenResumed),
        ("probe-after-gdb", GuestEffect::PausedThenResumed),
        ("probe-prelaunch", GuestEffect::LeftStopped),
    ] {
        let session = session(name);
        let whole = through_a_probe(std::iter::once(session.stub.as_slice()));
        assert_eq!(
            (whole.0.clone(), whole.1),
            divide(&session.debugger),
            "{name}"
        );
        assert_eq!(whole.2.effect, effect, "{name}");
        let Reachability::Answers(identity) = &whole.2.reachability else {
            panic!("{name}")
        };
        assert_eq!(
            identity.target.as_ref().unwrap().registers.len(),
            17,
            "{name}"
        );
        assert_eq!(
            through_a_probe(session.stub.chunks(1)),
            whole,
            "{name} byte by byte"
        );
        for cut in 0..=session.stub.len() {
            let (first, second) = session.stub.split_at(cut);
            assert_eq!(
                through_a_probe([first, second].into_iter()),
                whole,
                "{name} cut at {cut}"
            );
        }
    }
}

#[test]
fn a_session_that_breaks_off_anywhere_never_resumes_a_guest_twice_and_always_ends() {
    for name in ["probe-running", "probe-after-gdb"] {
        let session = session(name);
        for cut in 0..session.stub.len() {
            let mut probe = Probe::new(&ProbeOptions::default().leave(Leave::RunOn));
            let mut said = Vec::new();
            probe.handle_input(&session.stub[..cut]);
            probe.handle_deadline();
            said.extend_from_slice(probe.output());
            probe.advance_output(usize::MAX);
            probe.handle_deadline();
            said.extend_from_slice(probe.output());
            assert!(probe.is_done());
            let resumes = said.windows(2).filter(|pair| pair == b"$D").count();
            let shown_to_run = cut >= b"$T02thread:01;#04".len();
            assert!(
                resumes <= 1
                    && (resumes == 1 || !shown_to_run || name == "probe-after-gdb" && cut < 21),
                "{name} {cut}"
            );
        }
    }
}
