//! What the fuzz targets do with their bytes.

use serde::de::IgnoredAny;
use serde_json::{Value, json, value::RawValue};

use super::{Op, cut, decode_pieces, run_against_model};
use crate::{
    Capability, Codec, CommandId, Connection, DecodeErrorKind, EncodeError, Greeting, Limits,
    MAX_COMMAND_DEPTH, QmpEvent, RawJson, ServerMessage, Version, server,
};

/// Limits small enough to be met by fuzzed input.
fn small_limits() -> Limits {
    Limits {
        max_message_bytes: 512,
        max_depth: 6,
        ..Limits::default()
    }
}

/// Any bytes, whole, byte by byte and in random pieces: the same messages and the same error, and
/// what is taken for JSON or not is what `serde_json` takes for it.
pub fn decode(bytes: &[u8]) {
    decode_raw(bytes);
    let seed = bytes.iter().fold(bytes.len() as u64, |seed, &byte| {
        seed.wrapping_mul(31).wrapping_add(byte.into())
    });
    for limits in [Limits::default(), small_limits()] {
        let whole = decode_pieces(limits, [bytes]);
        assert_eq!(
            whole,
            decode_pieces(limits, bytes.chunks(1)),
            "byte by byte"
        );
        assert_eq!(
            whole,
            decode_pieces(limits, cut(bytes, 9, seed)),
            "in short pieces"
        );
        assert_eq!(
            whole,
            decode_pieces(limits, cut(bytes, 80, seed)),
            "in longer pieces"
        );
        for message in &whole.0 {
            check_values(message);
        }
        let (messages, Some(failure)) = whole else {
            continue;
        };
        assert!(failure.offset() <= bytes.len() as u64);
        if matches!(failure.kind(), DecodeErrorKind::Syntax { .. }) {
            check_refusal(bytes, messages.len());
        }
    }
}

/// The same bytes as texts and as a client's commands: the texts are the stream's own, also byte by
/// byte, and a server that reads them does not panic.
fn decode_raw(bytes: &[u8]) {
    let mut texts = [Vec::new(), Vec::new()];
    for (texts, size) in texts.iter_mut().zip([bytes.len().max(1), 1]) {
        let mut codec = Codec::new(small_limits());
        for piece in bytes.chunks(size) {
            codec.feed(piece);
            while let Ok(Some(message)) = codec.next_raw() {
                let range = message.range();
                let (start, end) = (range.start as usize, range.end as usize);
                assert_eq!(message.as_bytes(), &bytes[start..end]);
                let _ = (message.to_request(), message.to_server_message());
                texts.push(message);
            }
        }
    }
    assert_eq!(texts[0], texts[1]);
    let greeting = Greeting::new(Version::new(1, 2, 3), [Capability::Oob]);
    let mut server = server::Connection::new(&greeting, small_limits());
    server.handle_input(b"{\"execute\": \"qmp_capabilities\"}");
    server.handle_input(bytes);
    server.handle_eof();
    while let Ok(Some(request)) = server.poll_command() {
        server
            .reply(&request, &request.arguments)
            .expect("JSON serialises");
    }
    // All that it says is a client's to read.
    let mut codec = Codec::new(Limits::default());
    codec.feed(server.output());
    while codec.next_message().expect("a server's messages").is_some() {}
}

/// What a message holds is JSON to `serde_json` too.
fn check_values(message: &ServerMessage) {
    let raw = match message {
        ServerMessage::Return { value, .. } => Some(value),
        ServerMessage::Event(QmpEvent { data, .. }) => data.as_ref(),
        _ => None,
    };
    if let Some(raw) = raw {
        raw.parse::<&RawValue>()
            .expect("what the scanner takes is JSON");
        assert_eq!(raw.as_str().trim(), raw.as_str());
    }
}

/// What follows the first `taken` messages is no JSON object to `serde_json` either.
fn check_refusal(bytes: &[u8], taken: usize) {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    for _ in 0..taken {
        values
            .next()
            .expect("as many values")
            .expect("that are JSON");
    }
    let start = values.byte_offset();
    let next = bytes[start..].trim_ascii_start();
    assert!(
        next.first() != Some(&b'{') || !matches!(values.next(), Some(Ok(_))),
        "refused, but JSON: {}",
        next.escape_ascii()
    );
}

/// Each byte or two are a call or an answer; see [`Op`].
pub fn connection(bytes: &[u8]) {
    run_against_model(&Op::read_all(bytes));
    // The same bytes as a stream, in a connection that has sent something: no panic, and nothing is
    // lost twice.
    let mut qmp = Connection::with_id_prefix(small_limits(), 0);
    qmp.handle_input(b"{\"QMP\":{\"version\":{\"qemu\":{\"major\":9,\"minor\":0,\"micro\":0}}}}");
    let _ = qmp.poll();
    let _ = qmp.negotiate(&[]);
    qmp.handle_input(b"{\"return\":{},\"id\":\"00000000-1\"}");
    let _ = qmp.poll();
    let id = qmp.execute("x", &()).expect("ready, with room");
    qmp.handle_input(bytes);
    qmp.handle_eof();
    let mut answers = 0;
    let mut failed = false;
    loop {
        match qmp.poll() {
            Ok(Some(crate::Received::Reply { id: answered, .. })) => {
                answers += usize::from(answered == id)
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) if failed => break,
            Err(_) => failed = true,
        }
    }
    let lost = qmp.take_lost();
    assert_eq!(answers + lost.len(), 1, "answered or lost, and once");
    assert!(qmp.take_lost().is_empty());
}

/// A command as a server reads it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent<'a> {
    execute: String,
    #[serde(borrow)]
    arguments: &'a RawValue,
    id: String,
}

/// The bytes, as text, are a command's name up to the first line's end and an argument's key and
/// value after it.
pub fn encode(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let (key, value) = rest.split_once('\n').unwrap_or((rest, ""));
    // Where the value is JSON it goes as that.
    let value: Value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    let arguments = json!({ key: value });
    let id = CommandId::new(bytes.len() as u32, name.len() as u64);
    let limits = Limits {
        max_command_bytes: 200,
        ..Limits::default()
    };
    let mut out = b"before".to_vec();
    match Codec::new(limits).encode_raw(name, &arguments, id, &mut out) {
        Ok(()) => {
            assert!(out.len() <= 206);
            let sent: Sent<'_> = serde_json::from_slice(&out[6..]).expect("JSON is written");
            assert_eq!(sent.execute, name);
            assert_eq!(sent.arguments.get(), arguments.to_string());
            assert_eq!(sent.id, id.to_string());
        }
        Err(error) => {
            assert_eq!(out, b"before");
            let nul = text.contains('\0') || arguments.to_string().contains("\\u0000");
            let EncodeError::Invalid { reason } = error else {
                let EncodeError::TooLarge { size, limit: 200 } = error else {
                    panic!("{error}")
                };
                assert!(size > 200);
                return;
            };
            let depth = 1 + arguments.to_string().matches(['{', '[']).count();
            assert!(
                match reason.as_str() {
                    "the command's name is empty" => name.is_empty(),
                    "NUL in the command's name" | "NUL in the command's arguments" => nul,
                    _ => reason.starts_with("command nested deeper") && depth > MAX_COMMAND_DEPTH,
                },
                "{reason}"
            );
        }
    }
}

/// The bytes, where they are JSON, as each of the crate's types.
pub fn typed(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<&RawValue>(bytes) else {
        return;
    };
    let raw = RawJson::from_value(value).expect("raw JSON serialises");
    assert_eq!(raw.as_str(), value.get());
    crate::commands::parse_as_everything(&raw);
}
