//! Size, depth and number: what is over a limit ends the stream, what is within costs linear time
//! and bounded memory.

use qmp_proto::{Codec, DecodeErrorKind, Limits, MAX_MESSAGE_BYTES, RawJson, ServerMessage};

use super::cuttings;

fn with(max_message_bytes: usize, max_depth: u16) -> Limits {
    let mut limits = Limits::default();
    limits.max_message_bytes = max_message_bytes;
    limits.max_depth = max_depth;
    limits
}

/// The first message of these pieces, or its error's kind and place.
fn first(
    limits: Limits,
    pieces: &[&[u8]],
) -> Result<Option<ServerMessage>, (DecodeErrorKind, u64)> {
    let mut codec = Codec::new(limits);
    pieces.iter().for_each(|piece| codec.feed(piece));
    codec
        .next_message()
        .map_err(|error| (error.kind().clone(), error.offset()))
}

/// A return `levels` deep in all, the message itself counted: arrays, objects, or both in turn,
/// read or ignored.
fn nested(levels: usize, kind: usize, ignored: bool) -> Vec<u8> {
    let (open, close): (&str, &str) = [("[", "]"), ("{\"k\": ", "}"), ("[{\"\":", "}]")][kind];
    let pairs = (levels - 1) / if kind == 2 { 2 } else { 1 };
    let odd = levels - 1 - pairs * if kind == 2 { 2 } else { 1 };
    let (first, last) = if odd == 1 { ("[", "]") } else { ("", "") };
    let value = format!(
        "{first}{}0{}{last}",
        open.repeat(pairs),
        close.repeat(pairs)
    );
    if ignored {
        format!("{{\"return\": {{}}, \"x\": {value}}}")
    } else {
        format!("{{\"return\": {value}}}")
    }
    .into_bytes()
}

#[test]
fn depth_is_limited_at_the_very_level() {
    for limit in [1, 2, 64, 127, 128, 1024] {
        for kind in 0..3 {
            for ignored in [false, true] {
                let limits = with(MAX_MESSAGE_BYTES, limit);
                if limit > 2 || !ignored {
                    let within = nested(limit.into(), kind, ignored);
                    assert!(
                        matches!(first(limits, &[&within]), Ok(Some(_))),
                        "{limit} {kind}"
                    );
                }
                for levels in [usize::from(limit) + 1, 2048, 1_000_000] {
                    let stream = nested(levels, kind, ignored);
                    for pieces in [vec![&stream[..]], stream.chunks(4096).collect()] {
                        let (fault, _) = first(limits, &pieces).expect_err("too deep");
                        assert_eq!(fault, DecodeErrorKind::TooDeep { limit });
                    }
                }
            }
        }
    }
}

#[test]
fn a_timestamp_counts_as_a_level() {
    let stream = br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "E"}"#;
    let told = first(with(MAX_MESSAGE_BYTES, 1), &[stream]).expect_err("too deep");
    assert_eq!(told, (DecodeErrorKind::TooDeep { limit: 1 }, 14));
    assert!(matches!(
        first(with(MAX_MESSAGE_BYTES, 2), &[stream]),
        Ok(Some(_))
    ));
}

#[test]
fn depth_is_limited_in_every_cutting_and_among_neighbours() {
    let event = b"{\"event\": \"E\"}\r\n";
    for limit in [2, 6, 128] {
        for kind in 0..3 {
            let limits = with(MAX_MESSAGE_BYTES, limit);
            let within = nested(limit.into(), kind, false);
            let over = nested(usize::from(limit) + 1, kind, false);
            let stream = [event, &within[..], event, &over[..], event].concat();
            let fault_at = event.len() + within.len() + event.len() + bracket(&over, limit.into());
            for pieces in cuttings(&stream) {
                let mut codec = Codec::new(limits);
                let mut count = 0;
                let error = 'fault: {
                    for piece in &pieces {
                        codec.feed(piece);
                        loop {
                            match codec.next_message() {
                                Ok(Some(_)) => count += 1,
                                Ok(None) => break,
                                Err(error) => break 'fault error,
                            }
                        }
                    }
                    panic!("taken whole");
                };
                assert_eq!(error.kind(), &DecodeErrorKind::TooDeep { limit });
                assert_eq!(
                    (count, error.offset()),
                    (3, fault_at as u64),
                    "{limit} {kind}"
                );
            }
        }
    }
}

/// Where the bracket is that opens the level after this one.
fn bracket(message: &[u8], level: usize) -> usize {
    let mut opening = message
        .iter()
        .enumerate()
        .filter(|(_, byte)| b"[{".contains(byte));
    opening.nth(level).unwrap().0
}

#[test]
fn a_value_as_deep_as_the_default_limit_can_be_given_a_type() {
    let stream = nested(128, 0, false);
    let Ok(Some(ServerMessage::Return { value, .. })) = first(Limits::default(), &[&stream]) else {
        panic!()
    };
    value
        .parse::<serde_json::Value>()
        .expect("serde_json reads 127 levels");
}

#[test]
fn a_deeper_value_under_a_higher_limit_is_an_error_of_parse_alone() {
    let stream = nested(60_000, 0, false);
    let Ok(Some(ServerMessage::Return { value, .. })) =
        first(with(MAX_MESSAGE_BYTES, u16::MAX), &[&stream])
    else {
        panic!()
    };
    value
        .parse::<serde_json::Value>()
        .expect_err("serde_json has a limit of its own");
}

#[test]
fn the_depth_fault_is_at_the_bracket_that_is_too_deep() {
    let result = first(with(100, 3), &[b"{\"return\": [[[", b"]]]}"]);
    assert_eq!(result, Err((DecodeErrorKind::TooDeep { limit: 3 }, 13)));
}

#[test]
fn a_message_of_just_the_limit_passes_and_one_byte_more_does_not() {
    let message =
        |length: usize| format!("{{\"return\": \"{}\"}}", "x".repeat(length - 14)).into_bytes();
    let limits = with(100, 9);
    for pieces in cuttings(&message(100)) {
        assert!(matches!(first(limits, &pieces), Ok(Some(_))));
    }
    for length in [101, 102, 200, 5000] {
        for pieces in cuttings(&message(length)) {
            assert_eq!(
                first(limits, &pieces),
                Err((DecodeErrorKind::TooLarge { limit: 100 }, 100))
            );
        }
    }
}

#[test]
fn the_limit_is_a_message_s_own_and_not_the_stream_s() {
    let mut codec = Codec::new(with(30, 9));
    for _ in 0..1000 {
        codec.feed(b" \r\n {\"return\": [\"0123456789012\"]}");
        assert!(codec.next_message().unwrap().is_some());
    }
}

#[test]
fn what_has_no_end_is_fatal_at_the_limit() {
    for (start, more) in [
        ("{\"return\": \"", "xxxxxxxx"),
        ("{\"return\": [", "1, "),
        ("{", "          "),
        ("{\"return\": 1", "00000"),
    ] {
        let mut codec = Codec::new(with(10_000, 9));
        codec.feed(start.as_bytes());
        let fault = loop {
            codec.feed(more.as_bytes());
            match codec.next_message() {
                Ok(message) => assert_eq!(message, None),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (fault.kind(), fault.offset()),
            (&DecodeErrorKind::TooLarge { limit: 10_000 }, 10_000)
        );
    }
}

#[test]
fn a_fault_within_the_limit_comes_before_the_limit() {
    for pieces in cuttings(b"{\"return\": \x01                                     }") {
        let (kind, offset) = first(with(20, 9), &pieces).unwrap_err();
        assert!(matches!(kind, DecodeErrorKind::Syntax { .. }));
        assert_eq!(offset, 11);
    }
}

#[test]
fn a_million_tiny_messages_in_one_read() {
    let stream = b"{\"return\":{}}".repeat(1_000_000);
    let mut codec = Codec::new(Limits::default());
    codec.feed(&stream);
    let mut count = 0;
    while let Some(message) = codec.next_message().unwrap() {
        assert!(matches!(message, ServerMessage::Return { id: None, .. }));
        count += 1;
    }
    assert_eq!(count, 1_000_000);
    codec.feed_eof();
    assert!(codec.is_finished());
}

#[test]
fn a_million_keys() {
    let keys: String = (0..500_000).map(|n| format!(",\"{n}\":0")).collect();
    let stream = format!("{{\"event\":\"E\"{keys},\"return\":1}}");
    assert!(matches!(
        first(Limits::default(), &[stream.as_bytes()]),
        Err((DecodeErrorKind::Protocol { reason }, 0)) if reason.starts_with("message with more than one")
    ));
    let stream = format!("{{\"event\":\"E\"{keys}}}");
    assert!(matches!(
        first(Limits::default(), &[stream.as_bytes()]),
        Ok(Some(ServerMessage::Event(_)))
    ));
}

#[test]
fn offsets_count_from_the_stream_s_first_byte_whatever_was_dropped() {
    let mut codec = Codec::new(Limits::default());
    let mut fed = 0;
    for n in 0..500 {
        let message = format!("{{\"return\": \"{}\"}}\r\n", "x".repeat(n * 97 % 40_000));
        codec.feed(message.as_bytes());
        fed += message.len();
        assert!(codec.next_message().unwrap().is_some());
    }
    codec.feed(b"  {\"return\" !");
    assert_eq!(
        codec.next_message().unwrap_err().offset(),
        (fed + 12) as u64
    );
}

#[test]
fn a_value_is_the_same_whether_its_message_was_copied_or_shared() {
    for size in [10, 16_000, 16_383, 16_384, 17_000, 100_000] {
        let text = format!("\"{}\"", "v".repeat(size));
        let message = format!("{{\"return\": {text}, \"id\": 1}}");
        let expected =
            RawJson::from_value(&serde_json::from_str::<serde_json::Value>(&text).unwrap())
                .unwrap();
        for (before, after) in [
            ("", ""),
            ("{\"event\": \"E\"}", "{\"event\": \"E\"}"),
            (&*message, &*message.repeat(3)),
        ] {
            let stream = format!("{before}{message}{after}");
            let mut codec = Codec::new(Limits::default());
            codec.feed(stream.as_bytes());
            let mut values = Vec::new();
            while let Some(said) = codec.next_message().unwrap() {
                if let ServerMessage::Return { value, .. } = said {
                    values.push(value);
                }
            }
            assert_eq!(values.len(), stream.matches("return").count());
            assert!(values.iter().all(|value| *value == expected), "{size}");
            codec.feed_eof();
            assert!(codec.is_finished());
        }
    }
}
