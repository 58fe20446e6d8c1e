//! When a message or a fault is reported where bytes come one at a time, and are kept to be scanned
//! together.

use qmp_proto::{Codec, DecodeErrorKind, Limits, ServerMessage};

/// A fault's kind and place.
type Fault = (DecodeErrorKind, u64);

/// Feeds a new codec a byte at a time: at which byte the first message or fault is reported, and
/// what it is.
fn told_at(limits: Limits, stream: &[u8]) -> Option<(usize, Result<ServerMessage, Fault>)> {
    told_by(&mut Codec::new(limits), stream)
}

fn told_by(codec: &mut Codec, stream: &[u8]) -> Option<(usize, Result<ServerMessage, Fault>)> {
    for (at, &byte) in stream.iter().enumerate() {
        codec.feed(&[byte]);
        match codec.next_message() {
            Ok(None) => {}
            Ok(Some(message)) => return Some((at, Ok(message))),
            Err(error) => return Some((at, Err((error.kind().clone(), error.offset())))),
        }
    }
    None
}

#[test]
fn a_message_is_told_at_its_last_byte() {
    for between in ["", "\r\n", "   "] {
        for inside in [0, 1, 100, 127, 128, 129, 5000] {
            let message = format!(
                "{between}{{\"return\": {{\"a\": \"}}{}\"}}}}",
                "x".repeat(inside)
            );
            let stream = format!("{message}\r\n{{");
            let (at, told) = told_at(Limits::default(), stream.as_bytes()).unwrap();
            assert!(matches!(told, Ok(ServerMessage::Return { .. })));
            assert_eq!(at, message.len() - 1);
        }
    }
}

#[test]
fn a_fault_is_told_at_a_brace_or_128_bytes_on() {
    let limits = Limits::default();
    // What cannot begin a message is reported at once, also where the buffer has room.
    let long = format!("{{\"event\": \"{}\"}}", "x".repeat(200));
    for (before, stream) in [
        ("", "SSH-2.0"),
        ("", " \r\n+"),
        ("", "[1]"),
        (&long, "+"),
        (&long, "\r\nx"),
    ] {
        let mut codec = Codec::new(limits);
        codec.feed(before.as_bytes());
        assert_eq!(codec.next_message().unwrap().is_some(), !before.is_empty());
        let (at, told) = told_by(&mut codec, stream.as_bytes()).unwrap();
        assert_eq!(
            at,
            stream.find(|letter: char| !letter.is_whitespace()).unwrap()
        );
        assert_eq!(told.unwrap_err().1, (before.len() + at) as u64);
    }
    for before in [0, 1, 50, 126, 127, 128, 600, 1000] {
        let start = format!("{{\"return\": \"{}", "x".repeat(before));
        let fault = start.len();
        let (at, told) = told_at(limits, format!("{start}\x01xxx}}").as_bytes()).unwrap();
        assert_eq!(told.unwrap_err().1, fault as u64);
        assert!(at <= fault + 4, "a brace");
        let (at, told) =
            told_at(limits, format!("{start}\x01{}", "x".repeat(200)).as_bytes()).unwrap();
        assert_eq!(told.unwrap_err().1, fault as u64);
        assert!(at <= fault + 128, "told {} bytes on", at - fault);
    }
}

#[test]
fn a_fault_is_told_at_the_end_of_the_stream_or_when_more_is_read_at_once() {
    for ends in [false, true] {
        let mut codec = Codec::new(Limits::default());
        for byte in b"{]" {
            codec.feed(&[*byte]);
        }
        if ends {
            codec.feed_eof();
        } else {
            codec.feed(b"  ");
        }
        let error = codec.next_message().unwrap_err();
        assert!(matches!(error.kind(), DecodeErrorKind::Syntax { .. }));
        assert_eq!((error.offset(), error.seen()), (1, &b"{]"[..]));
    }
}

#[test]
fn the_limit_is_told_at_its_very_byte() {
    for limit in [1, 2, 100, 127, 128, 129, 1000] {
        let mut limits = Limits::default();
        limits.max_message_bytes = limit;
        let stream = format!("\r\n{{\"return\": \"{}", "x".repeat(limit));
        let (at, told) = told_at(limits, stream.as_bytes()).unwrap();
        assert_eq!(at, 2 + limit);
        assert_eq!(
            told.unwrap_err(),
            (DecodeErrorKind::TooLarge { limit }, 2 + limit as u64)
        );
    }
}

#[test]
fn a_byte_after_the_end_or_a_fault_is_nothing() {
    for stream in ["", "{\"event\": \"E\"}", "+", "{"] {
        let mut codec = Codec::new(Limits::default());
        codec.feed(stream.as_bytes());
        codec.feed_eof();
        while let Ok(Some(_)) = codec.next_message() {}
        let end = codec.next_message();
        for byte in b"{}" {
            codec.feed(&[*byte]);
            assert_eq!(codec.next_message(), end);
        }
        assert_eq!(codec.is_finished(), end.is_ok());
    }
}

#[test]
fn a_byte_after_the_end_is_nothing_also_before_the_last_message_is_taken() {
    let mut codec = Codec::new(Limits::default());
    codec.feed(b"{\"event\": \"E\"}");
    codec.feed_eof();
    codec.feed(b"{");
    assert!(matches!(
        codec.next_message(),
        Ok(Some(ServerMessage::Event(_)))
    ));
    assert_eq!(codec.next_message(), Ok(None));
    assert!(codec.is_finished());
}
