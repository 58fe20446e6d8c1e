//! What is text and what is not, inside strings: bytes, escapes, surrogates; in values and in keys
//! that nobody reads.

use qmp_proto::{Codec, DecodeErrorKind, Limits};

use super::cuttings;

/// What stands between two quotes, and at which of its bytes it is wrong, as encoding or as syntax.
enum Text {
    Good,
    Encoding(usize),
    Syntax(usize),
}

use Text::{Encoding, Good, Syntax};

#[rustfmt::skip]
const ROWS: &[(&str, &[u8], Text)] = &[
    ("ASCII", b"abc", Good),
    ("DEL", b"\x7f", Good),
    ("eight plain bytes", b"12345678", Good),
    ("two bytes", "é".as_bytes(), Good),
    ("the first and last of two bytes", "\u{80}\u{7ff}".as_bytes(), Good),
    ("the first and last of three bytes", "\u{800}\u{ffff}".as_bytes(), Good),
    ("around the surrogates", "\u{d7ff}\u{e000}".as_bytes(), Good),
    ("the first and last of four bytes", "\u{10000}\u{10ffff}".as_bytes(), Good),
    ("each lead byte of three", "\u{1000}\u{cfff}\u{eeee}".as_bytes(), Good),
    ("each lead byte of four", "\u{40000}\u{80000}\u{c0000}".as_bytes(), Good),
    ("text after text beyond ASCII", "aé€😀b".as_bytes(), Good),
    ("0xFF", b"a\xff", Encoding(1)),
    ("0xFE", b"\xfe", Encoding(0)),
    ("a continuation byte alone", b"\x80", Encoding(0)),
    ("the last continuation byte alone", b"\xbf", Encoding(0)),
    ("overlong NUL", b"\xc0\x80", Encoding(0)),
    ("overlong slash in two", b"\xc1\xaf", Encoding(0)),
    ("overlong in three", b"\xe0\x9f\xbf", Encoding(1)),
    ("overlong in four", b"\xf0\x8f\xbf\xbf", Encoding(1)),
    ("a surrogate's first", b"\xed\xa0\x80", Encoding(1)),
    ("a surrogate's last", b"\xed\xbf\xbf", Encoding(1)),
    ("beyond U+10FFFF", b"\xf4\x90\x80\x80", Encoding(1)),
    ("lead byte of five", b"\xf8\x88\x80\x80\x80", Encoding(0)),
    ("lead byte F5", b"\xf5\x80\x80\x80", Encoding(0)),
    ("broken off after one of two", b"\xc3x", Encoding(1)),
    ("broken off after two of three", b"\xe2\x82x", Encoding(2)),
    ("broken off after three of four", b"\xf0\x9f\x98x", Encoding(3)),
    ("broken off by the quote", b"\xe2\x82", Encoding(2)),
    ("third byte out of range", b"\xe2\x82\xc0", Encoding(2)),
    ("second of E1 below range", b"\xe1\x7f\x80", Encoding(1)),
    ("second of two above range", b"\xc3\xc0", Encoding(1)),
    ("Latin-1", b"caf\xe9 au lait", Encoding(4)),
    ("every short escape", br#"\"\\\/\b\f\n\r\t"#, Good),
    ("an escaped quote at the end", br#"x\""#, Good),
    ("escaped backslashes", br"\\\\", Good),
    ("an unknown escape", br"\x41", Syntax(1)),
    ("an escape in octal", br"\0", Syntax(1)),
    ("an escape in capitals", br"\N", Syntax(1)),
    ("an escaped apostrophe", br"\'", Syntax(1)),
    ("four digits", br"\u0041\u00e9\u20AC\uffff", Good),
    ("an escaped NUL", br"\u0000", Good),
    ("three digits", br"\u004x", Syntax(5)),
    ("no digits", br"\uzzzz", Syntax(2)),
    ("digits with a sign", br"\u+041", Syntax(2)),
    ("capital U", br"\U0041", Syntax(1)),
    ("a surrogate pair", br"\ud83d\ude00", Good),
    ("a surrogate pair in capitals", br"\uD83D\uDE00", Good),
    ("the first and last pairs", br"\ud800\udc00\udbff\udfff", Good),
    ("around the surrogates, escaped", br"\ud7ff\ue000", Good),
    ("two pairs", br"\ud83d\ude00\ud83d\ude01", Good),
    ("a high surrogate alone", br"\ud83d", Encoding(6)),
    ("a high surrogate before text", br"\ud83dx", Encoding(6)),
    ("a high surrogate before another escape", br"\ud83d\n", Encoding(7)),
    ("a high surrogate before no surrogate", br"\ud83d\u0041", Encoding(11)),
    ("two high surrogates", br"\ud83d\ud83d\ude00", Encoding(11)),
    ("just above the low surrogates", br"\ud83d\ue000", Encoding(11)),
    ("just below the low surrogates", br"\ud83d\udbff", Encoding(11)),
    ("a low surrogate alone", br"\ude00", Encoding(5)),
    ("the last low surrogate alone", br"\udfff", Encoding(5)),
    ("a reversed pair", br"\ude00\ud83d", Encoding(5)),
    ("a pair split by a letter", br"\ud83dx\ude00", Encoding(6)),
    ("a low half that is no hexadecimal", br"\ud83d\ude0x", Syntax(11)),
    ("NUL", b"a\x00b", Syntax(1)),
    ("0x01", b"\x01", Syntax(0)),
    ("0x1F", b"\x1f", Syntax(0)),
    ("a bare tab", b"\t", Syntax(0)),
    ("a bare newline", b"ab\ncd", Syntax(2)),
    ("a bare CR after eight", b"12345678\r", Syntax(8)),
];

/// Where the text is put: into a return, behind an ignored key, as an ignored key (at the top and
/// further in), as desc and as event name. Each with what comes before it and after it.
const PLACES: &[(&[u8], &[u8])] = &[
    (b"{\"return\": \"", b"\"}"),
    (b"{\"event\": \"E\", \"x\": {\"y\": [\"", b"\"]}}"),
    (b"{\"event\": \"E\", \"X", b"\": 1}"),
    (b"{\"return\": {\"", b"\": 1}}"),
    (b"{\"error\": {\"class\": \"C\", \"desc\": \"", b"\"}}"),
    (b"{\"event\": \"", b"\"}"),
    (b"{\"return\": {}, \"id\": \"", b"\"}"),
];

#[test]
fn every_text_in_every_place_in_every_cutting() {
    let mut runs = 0;
    for (name, text, verdict) in ROWS {
        for (before, after) in PLACES {
            let stream = [before, *text, *after].concat();
            for pieces in cuttings(&stream) {
                let mut codec = Codec::new(Limits::default());
                pieces.iter().for_each(|piece| codec.feed(piece));
                let result = codec.next_message();
                runs += 1;
                let (at, is_right_kind): (usize, fn(&DecodeErrorKind) -> bool) = match verdict {
                    Good => {
                        result
                            .unwrap_or_else(|error| panic!("{name}: {error}"))
                            .expect(name);
                        continue;
                    }
                    Encoding(at) => (*at, |kind| matches!(kind, DecodeErrorKind::Encoding { .. })),
                    Syntax(at) => (*at, |kind| matches!(kind, DecodeErrorKind::Syntax { .. })),
                };
                let error = result.expect_err(name);
                assert!(is_right_kind(error.kind()), "{name}: {error}");
                assert_eq!(error.offset(), (before.len() + at) as u64, "{name}");
            }
        }
    }
    println!("{} rows, {} places, {runs} runs", ROWS.len(), PLACES.len());
}

#[test]
fn all_control_characters_are_refused_and_all_others_taken_at_every_distance() {
    for distance in 0..20 {
        for byte in 0..0x80_u8 {
            let text = [
                &b"{\"return\": \""[..],
                &vec![b'x'; distance],
                &[byte],
                b"yyyyyyyyy\"}",
            ]
            .concat();
            let mut codec = Codec::new(Limits::default());
            codec.feed(&text);
            let result = codec.next_message();
            if byte < b' ' || byte == b'"' || byte == b'\\' {
                let offset = if byte < b' ' { 0 } else { 1 };
                assert_eq!(
                    result.unwrap_err().offset(),
                    (12 + distance + offset) as u64,
                    "{byte:#x} after {distance}"
                );
            } else {
                assert!(result.unwrap().is_some(), "{byte:#x} after {distance}");
            }
        }
    }
}
