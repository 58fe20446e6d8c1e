//! The ways of reading QMP that are compared. Each decodes all of a stream, handed over in pieces,
//! and counts messages.

use std::{borrow::Cow, hint::black_box};

use bytes::BytesMut;
use memchr::memchr;
use qmp_proto::{Codec, Limits};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

pub struct Contender {
    pub name: &'static str,
    pub decode: fn(&[u8], usize) -> usize,
}

pub const QMP_PROTO: &str = "qmp-proto";
pub const QAPI: &str = "qapi 0.15, its codec";
pub const QMP: &str = "qmp 0.1.1, its reader's path";
pub const BORROWED: &str = "borrowed struct with RawValue a line";

pub const CONTENDERS: [Contender; 5] = [
    Contender {
        name: QMP_PROTO,
        decode: qmp_proto,
    },
    Contender {
        name: QAPI,
        decode: qapi,
    },
    Contender {
        name: QMP,
        decode: qmp,
    },
    Contender {
        name: "serde_json::Value a line",
        decode: value,
    },
    Contender {
        name: BORROWED,
        decode: borrowed,
    },
];

fn pieces(bytes: &[u8], piece: usize) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(piece.min(bytes.len().max(1)))
}

/// All limits and checks on, as by default.
pub fn qmp_proto(bytes: &[u8], piece: usize) -> usize {
    let mut codec = Codec::new(Limits::default());
    let mut count = 0;
    for piece in pieces(bytes, piece) {
        codec.feed(piece);
        while let Some(message) = codec.next_message().expect("a good stream") {
            black_box(message);
            count += 1;
        }
    }
    count
}

/// A copy of `decode` of `qapi::futures::codec::JsonLinesCodec`, which is private.
fn qapi(bytes: &[u8], piece: usize) -> usize {
    let mut buffer = BytesMut::new();
    let mut next_index = 0;
    let mut count = 0;
    for piece in pieces(bytes, piece) {
        buffer.extend_from_slice(piece);
        loop {
            match memchr(b'\n', &buffer[next_index..]) {
                Some(offset) => {
                    let line = buffer.split_to(next_index + offset + 1);
                    next_index = 0;
                    black_box(
                        serde_json::from_slice::<qapi::qmp::QmpMessageAny>(&line)
                            .expect("a good line"),
                    );
                    count += 1;
                }
                None => {
                    next_index = buffer.len();
                    break;
                }
            }
        }
    }
    count
}

/// What `qmp::Client`'s reader task does with a line, without its tokio part: text, a `Value`, then
/// one of the crate's types from that.
fn qmp(bytes: &[u8], piece: usize) -> usize {
    by_line(bytes, piece, |line| {
        let line = std::str::from_utf8(line).expect("UTF-8").to_owned();
        let message: Value =
            serde_json::from_str(line.trim_end_matches(['\r', '\n'])).expect("a good line");
        if message.get("event").is_some() {
            let event: qmp::types::EventMessage =
                serde_json::from_value(message).expect("an event");
            black_box(qmp::types::Event::from(event));
        } else if message.get("id").is_some() {
            black_box(
                serde_json::from_value::<qmp::types::QmpResponse>(message).expect("a response"),
            );
        }
    })
}

fn value(bytes: &[u8], piece: usize) -> usize {
    by_line(bytes, piece, |line| {
        black_box(serde_json::from_slice::<Value>(line).expect("a good line"));
    })
}

/// The fastest that a careful user of `serde_json` gets: nothing is copied, values stay raw. It
/// keeps nothing either: what it reads is gone with the line.
#[derive(Deserialize)]
#[expect(dead_code, reason = "to be decoded is their purpose")]
struct Borrowed<'a> {
    #[serde(rename = "return", borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<BorrowedError<'a>>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    timestamp: Option<Timestamp>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "to be decoded is their purpose")]
struct BorrowedError<'a> {
    #[serde(borrow)]
    class: Cow<'a, str>,
    #[serde(borrow)]
    desc: Cow<'a, str>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "to be decoded is their purpose")]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

fn borrowed(bytes: &[u8], piece: usize) -> usize {
    by_line(bytes, piece, |line| {
        black_box(serde_json::from_slice::<Borrowed<'_>>(line).expect("a good line"));
    })
}

/// Splits at newlines. What is whole in a piece is not copied; of a line over several pieces each
/// byte is looked at once.
fn by_line(bytes: &[u8], piece: usize, mut each: impl FnMut(&[u8])) -> usize {
    let mut pending = Vec::new();
    let mut count = 0;
    for mut piece in pieces(bytes, piece) {
        while let Some(at) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(at + 1);
            if pending.is_empty() {
                each(line);
            } else {
                pending.extend_from_slice(line);
                each(&pending);
                pending.clear();
            }
            piece = rest;
            count += 1;
        }
        pending.extend_from_slice(piece);
    }
    count
}
