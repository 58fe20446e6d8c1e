//! Recorded sessions of real gdb with real QEMU, replayed whole, cut everywhere, and byte by byte.

use std::path::Path;

use gdb_remote::link::{Event, Link};
use gdb_remote::packet::{Decoder, Item, encode};
use gdb_remote::testing::Recording;

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
            let recording = Recording::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            sessions.push(Session {
                name,
                debugger: recording.debugger,
                stub: recording.stub,
            });
        }
    }
    assert_eq!(
        sessions.len(),
        6,
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
        // A link is the client's end, but it reads what a client sends in the same way.
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
