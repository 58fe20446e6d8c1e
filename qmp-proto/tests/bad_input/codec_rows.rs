//! What single messages decode to, or how they fail.

use qmp_proto::{Codec, DecodeErrorKind, Limits, MessageId, ServerMessage};

use super::cuttings;

/// What must come of a row.
enum Then {
    /// Fatal, with the kind's name, at this byte.
    Fatal(&'static str, usize),
    /// These messages, each in the words of [`describe`].
    Says(&'static [&'static str]),
}

use Then::{Fatal, Says};

const EVENT: &[&str] = &["event E"];
const RETURN: &[&str] = &["return {}"];

#[rustfmt::skip]
const ROWS: &[(&str, &[u8], Then)] = &[
    // Not JSON.
    ("not JSON", b"hello", Fatal("Syntax", 0)),
    ("an HTTP request", b"GET / HTTP/1.1\r\n", Fatal("Syntax", 0)),
    ("single quotes", b"{'return': {}}", Fatal("Syntax", 1)),
    ("trailing comma in an object", br#"{"return": {},}"#, Fatal("Syntax", 14)),
    ("trailing comma in an array", br#"{"return": [1,]}"#, Fatal("Syntax", 14)),
    ("trailing comma in an inner object", br#"{"return": {"a": 1,}}"#, Fatal("Syntax", 19)),
    ("leading comma", br#"{,"return": {}}"#, Fatal("Syntax", 1)),
    ("leading comma in an array", br#"{"return": [,1]}"#, Fatal("Syntax", 12)),
    ("two commas", br#"{"return": [1,,2]}"#, Fatal("Syntax", 14)),
    ("no comma in an object", br#"{"return": {} "id": 1}"#, Fatal("Syntax", 14)),
    ("no comma in an array", br#"{"return": [1 2]}"#, Fatal("Syntax", 14)),
    ("no colon", br#"{"return" {}}"#, Fatal("Syntax", 10)),
    ("two colons", br#"{"return":: {}}"#, Fatal("Syntax", 10)),
    ("no value", br#"{"return": }"#, Fatal("Syntax", 11)),
    ("a colon in an array", br#"{"return": ["a": 1]}"#, Fatal("Syntax", 15)),
    ("a key that is no string", br#"{1: 2}"#, Fatal("Syntax", 1)),
    ("an array closed as object", br#"{"return": [1}"#, Fatal("Syntax", 13)),
    ("an object closed as array", br#"{"return": {}]"#, Fatal("Syntax", 13)),
    ("an empty object closed as array", br#"{"return": {]}"#, Fatal("Syntax", 12)),
    ("an empty array closed as object", br#"{"return": [}}"#, Fatal("Syntax", 12)),
    ("closed too often", br#"{"event": "E"}}"#, Fatal("Syntax", 14)),
    ("a leading zero", br#"{"return": 01}"#, Fatal("Syntax", 12)),
    ("a negative leading zero", br#"{"return": -01}"#, Fatal("Syntax", 13)),
    ("no digit after the point", br#"{"return": 1.}"#, Fatal("Syntax", 13)),
    ("no digit before the point", br#"{"return": .5}"#, Fatal("Syntax", 11)),
    ("two points", br#"{"return": 1.2.3}"#, Fatal("Syntax", 14)),
    ("a bare minus", br#"{"return": -}"#, Fatal("Syntax", 12)),
    ("two minuses", br#"{"return": --1}"#, Fatal("Syntax", 12)),
    ("a plus", br#"{"return": +1}"#, Fatal("Syntax", 11)),
    ("an empty exponent", br#"{"return": 1e}"#, Fatal("Syntax", 13)),
    ("a signed empty exponent", br#"{"return": 1e+}"#, Fatal("Syntax", 14)),
    ("a fraction in the exponent", br#"{"return": 1e1.5}"#, Fatal("Syntax", 14)),
    ("two exponents", br#"{"return": 1e1e1}"#, Fatal("Syntax", 14)),
    ("hexadecimal", br#"{"return": 0x1}"#, Fatal("Syntax", 12)),
    ("inf", br#"{"return": inf}"#, Fatal("Syntax", 11)),
    ("inf as id, as QEMU can send it", br#"{"return": {}, "id": inf}"#, Fatal("Syntax", 21)),
    ("nan", br#"{"return": nan}"#, Fatal("Syntax", 12)),
    ("NaN", br#"{"return": NaN}"#, Fatal("Syntax", 11)),
    ("a literal too short", br#"{"return": tru}"#, Fatal("Syntax", 14)),
    ("a literal too long", br#"{"return": nulls}"#, Fatal("Syntax", 15)),
    ("a literal misspelled", br#"{"return": falze}"#, Fatal("Syntax", 14)),
    ("a literal in capitals", br#"{"return": True}"#, Fatal("Syntax", 11)),
    ("a byte order mark", b"\xef\xbb\xbf{\"return\": {}}", Fatal("Syntax", 0)),
    ("a vertical tab", b"\x0b{\"return\": {}}", Fatal("Syntax", 0)),
    ("a form feed inside", b"{\x0c\"return\": {}}", Fatal("Syntax", 1)),
    ("a no-break space", b"{\"return\":\xc2\xa0{}}", Fatal("Syntax", 10)),
    ("a comment", b"{\"return\": {}} // done\n", Fatal("Syntax", 15)),
    ("NUL outside strings", b"\x00", Fatal("Syntax", 0)),
    ("0x01 outside strings", b"{\x01}", Fatal("Syntax", 1)),
    ("0xFF outside strings", b"\xff{}", Fatal("Syntax", 0)),
    ("0xFF between tokens", b"{\"return\": {}\xff}", Fatal("Syntax", 13)),
    ("an array at the top", b"[]", Fatal("Syntax", 0)),
    ("a number at the top", b"1", Fatal("Syntax", 0)),
    ("a string at the top", b"\"return\"", Fatal("Syntax", 0)),
    ("null at the top", b"null", Fatal("Syntax", 0)),
    ("not a number after a number", br#"{"return": 1x}"#, Fatal("Syntax", 12)),
    ("a string after a number", br#"{"return": 1"x"}"#, Fatal("Syntax", 12)),
    ("a string after a string", br#"{"return": "x""x"}"#, Fatal("Syntax", 14)),

    // Numbers that nobody reads.
    ("i64 edges", br#"{"return": {}, "x": [9223372036854775807, -9223372036854775808]}"#, Says(RETURN)),
    ("past i64 and u64", br#"{"return": {}, "x": [9223372036854775808, -9223372036854775809, 18446744073709551616]}"#, Says(RETURN)),
    ("400 digits", concat!("{\"event\": \"E\", \"x\": ", "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", "}").as_bytes(), Says(EVENT)),
    ("1e400", br#"{"return": {}, "x": [1e400, -1E-400, 0.0e+0, -0]}"#, Says(RETURN)),
    ("1e400 in the return, not read", br#"{"return": 1e400}"#, Says(&["return 1e400"])),

    // The same key twice.
    ("return twice", br#"{"return": {}, "return": {}}"#, Fatal("DuplicateKey", 15)),
    ("id twice", br#"{"return": {}, "id": 1, "id": 1}"#, Fatal("DuplicateKey", 24)),
    ("event twice", br#"{"event": "E", "event": "E"}"#, Fatal("DuplicateKey", 15)),
    ("error twice", br#"{"error": {}, "error": {}}"#, Fatal("DuplicateKey", 14)),
    ("data twice", br#"{"data": 1, "event": "E", "data": 2}"#, Fatal("DuplicateKey", 26)),
    ("timestamp twice", br#"{"timestamp": 1, "timestamp": 2, "event": "E"}"#, Fatal("DuplicateKey", 17)),
    ("timestamp twice, the first in QEMU's spelling", br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "timestamp": 2, "event": "E"}"#, Fatal("DuplicateKey", 49)),
    ("seconds with a leading zero", br#"{"timestamp": {"seconds": 01, "microseconds": 2}, "event": "E"}"#, Fatal("Syntax", 27)),
    ("microseconds with a leading zero", br#"{"timestamp": {"seconds": 1, "microseconds": 00}, "event": "E"}"#, Fatal("Syntax", 46)),
    ("QMP twice", br#"{"QMP": 1, "QMP": 2}"#, Fatal("DuplicateKey", 11)),
    ("return twice, through an escape", br#"{"return": {}, "retur\u006e": {}}"#, Fatal("DuplicateKey", 15)),
    ("id twice, both through escapes", br#"{"\u0069d": 1, "i\u0064": 2, "event": "E"}"#, Fatal("DuplicateKey", 15)),
    ("timestamp twice, each letter an escape", br#"{"timestamp": 1, "\u0074\u0069\u006d\u0065\u0073\u0074\u0061\u006d\u0070": 2, "event": "E"}"#, Fatal("DuplicateKey", 17)),
    ("a key longer than that", br#"{"timestamp": 1, "\u0074\u0069\u006d\u0065\u0073\u0074\u0061\u006d\u0070\u0070": 2, "event": "E"}"#, Says(EVENT)),
    ("an unknown key twice", br#"{"x": 1, "x": 2, "event": "E"}"#, Says(EVENT)),
    ("return twice, further in", br#"{"return": {"return": 1, "return": 2, "id": 3}}"#, Says(&[r#"return {"return": 1, "return": 2, "id": 3}"#])),

    // Keys.
    ("unknown keys, any order", br#"{"x": {"return": 1}, "id": null, "y": ["error"], "return": {}, "": 0}"#, Says(&["return {} id null"])),
    ("a known key through an escape", br#"{"\u0072eturn": {}}"#, Says(RETURN)),
    ("a key much like a known one", br#"{"returns": 1, "Return": 2, "retur": 3, "return ": 4, "event": "E"}"#, Says(EVENT)),
    ("a known key as a value", br#"{"x": "return", "event": "E"}"#, Says(EVENT)),

    // One of the four kinds.
    ("return and error", br#"{"return": {}, "error": {"class": "C", "desc": ""}}"#, Fatal("NotOneKind", 0)),
    ("event and return", br#"{"event": "E", "return": {}}"#, Fatal("NotOneKind", 0)),
    ("event and error", br#"{"error": {"class": "C", "desc": ""}, "event": "E"}"#, Fatal("NotOneKind", 0)),
    ("greeting and return", br#"{"QMP": {}, "return": {}}"#, Fatal("NotOneKind", 0)),
    ("none of them", br#"{"id": 1, "data": {}}"#, Fatal("NotOneKind", 0)),
    ("an empty object", b"{}", Fatal("NotOneKind", 0)),
    ("a command", br#"{"execute": "quit"}"#, Fatal("NotOneKind", 0)),

    // Return.
    ("return null", br#"{"return": null}"#, Says(&["return null"])),
    ("return {}", br#"{"return": {}}"#, Says(RETURN)),
    ("return []", br#"{"return": []}"#, Says(&["return []"])),
    ("return of a number", br#"{"return": -1.5e3}"#, Says(&["return -1.5e3"])),
    ("return of a string", br#"{"return": "a\"}{\\"}"#, Says(&[r#"return "a\"}{\\""#])),
    ("return of a literal", br#"{"return": true}"#, Says(&["return true"])),
    ("return with space around", b"{ \"return\"\t:\r\n{ \"a\" : [ ] } \n}", Says(&["return { \"a\" : [ ] }"])),

    // Ids.
    ("an id of this crate's form", br#"{"return": {}, "id": "0000002a-7"}"#, Says(&["return {} id 0000002a-7!"])),
    ("an id with a leading zero", br#"{"return": {}, "id": "0000002a-07"}"#, Says(&[r#"return {} id "0000002a-07""#])),
    ("an id in capitals", br#"{"return": {}, "id": "0000002A-7"}"#, Says(&[r#"return {} id "0000002A-7""#])),
    ("an id without number", br#"{"return": {}, "id": "0000002a-"}"#, Says(&[r#"return {} id "0000002a-""#])),
    ("an id with a sign", br#"{"return": {}, "id": "0000002a-+7"}"#, Says(&[r#"return {} id "0000002a-+7""#])),
    ("an id with a number too large", br#"{"return": {}, "id": "0000002a-18446744073709551616"}"#, Says(&[r#"return {} id "0000002a-18446744073709551616""#])),
    ("an id without quotes", br#"{"return": {}, "id": 42}"#, Says(&["return {} id 42"])),
    ("an id that is an object", br#"{"id": {"a": []}, "return": {}}"#, Says(&[r#"return {} id {"a": []}"#])),
    ("an id on an event", br#"{"id": 1, "event": "E"}"#, Says(EVENT)),

    // Errors.
    ("an error", br#"{"error": {"class": "GenericError", "desc": "no"}}"#, Says(&["error GenericError: no"])),
    ("an error with more in it", br#"{"error": {"x": [], "desc": "no", "class": "DeviceNotFound"}, "id": 1}"#, Says(&["error DeviceNotFound: no id 1"])),
    ("an unknown class", br#"{"error": {"class": "Flux", "desc": ""}}"#, Says(&["error Flux: "])),
    ("error that is a string", br#"{"error": "no"}"#, Fatal("InvalidMember", 0)),
    ("error that is null", br#"{"error": null}"#, Fatal("InvalidMember", 0)),
    ("error that is an array of the right parts", br#"{"error": ["GenericError", "no"]}"#, Fatal("InvalidMember", 0)),
    ("error without class", br#"{"error": {"desc": "no"}}"#, Fatal("InvalidMember", 0)),
    ("error without desc", br#"{"error": {"class": "GenericError"}}"#, Fatal("InvalidMember", 0)),
    ("class of another type", br#"{"error": {"class": 1, "desc": "no"}}"#, Fatal("InvalidMember", 0)),
    ("desc of another type", br#"{"error": {"class": "GenericError", "desc": null}}"#, Fatal("InvalidMember", 0)),
    ("class twice", br#"{"error": {"class": "A", "class": "B", "desc": ""}}"#, Fatal("InvalidMember", 0)),

    // Events.
    ("event data missing", br#"{"event": "E"}"#, Says(EVENT)),
    ("event data null", br#"{"event": "E", "data": null}"#, Says(&["event E data null"])),
    ("event data an array", br#"{"data": [1], "event": "E"}"#, Says(&["event E data [1]"])),
    ("event name with an escape", br#"{"event": "ST\u004fP"}"#, Says(&["event STOP"])),
    ("event name empty", br#"{"event": ""}"#, Says(&["event "])),
    ("event name a number", br#"{"event": 1}"#, Fatal("InvalidMember", 0)),
    ("event name null", br#"{"event": null}"#, Fatal("InvalidMember", 0)),
    ("event name an object", br#"{"event": {}}"#, Fatal("InvalidMember", 0)),
    ("timestamp -1", br#"{"event": "E", "timestamp": {"seconds": -1, "microseconds": -1}}"#, Says(&["event E at -1 -1"])),
    ("timestamp in QEMU's spelling", br#"{"timestamp": {"seconds": 17, "microseconds": 5}, "event": "E"}"#, Says(&["event E at 17 5"])),
    ("microseconds over a million", br#"{"timestamp": {"seconds": 17, "microseconds": 123456789}, "event": "E"}"#, Says(&["event E at 17 123456789"])),
    ("timestamp spelled otherwise", br#"{"event": "E", "timestamp": {"microseconds":1,"x":0,"seconds":2}}"#, Says(&["event E at 2 1"])),
    ("seconds past i64", br#"{"event": "E", "timestamp": {"seconds": 9223372036854775808, "microseconds": 0}}"#, Says(EVENT)),
    ("seconds at i64's edge", br#"{"event": "E", "timestamp": {"seconds": 9223372036854775807, "microseconds": 0}}"#, Says(&["event E at 9223372036854775807 0"])),
    ("seconds of 18 nines", br#"{"event": "E", "timestamp": {"seconds": 999999999999999999, "microseconds": 0}}"#, Says(&["event E at 999999999999999999 0"])),
    ("timestamp in QEMU's spelling, last", br#"{"event": "E", "timestamp": {"seconds": 17, "microseconds": 5}}"#, Says(&["event E at 17 5"])),
    ("timestamp of zeros", br#"{"timestamp": {"seconds": 0, "microseconds": 0}, "event": "E"}"#, Says(&["event E at 0 0"])),
    ("timestamp with a third member", br#"{"timestamp": {"seconds": 17, "microseconds": 5, "x": 0}, "event": "E"}"#, Says(&["event E at 17 5"])),
    ("timestamp with spaces", br#"{"timestamp": {"seconds": 17, "microseconds": 5 }, "event": "E"}"#, Says(&["event E at 17 5"])),
    ("timestamp of fractions", br#"{"timestamp": {"seconds": 17.5, "microseconds": 5}, "event": "E"}"#, Says(EVENT)),
    ("seconds of 19 digits, first", br#"{"timestamp": {"seconds": 1999999999999999999, "microseconds": 0}, "event": "E"}"#, Says(&["event E at 1999999999999999999 0"])),
    ("timestamps inside the data", br#"{"data": {"timestamp": {"seconds": 1, "microseconds": 2}}, "event": "E"}"#, Says(&[r#"event E data {"timestamp": {"seconds": 1, "microseconds": 2}}"#])),
    ("a timestamp, and none", br#"{"timestamp": {"seconds": 2, "microseconds": 0}, "event": "E"}{"event": "E"}"#, Says(&["event E at 2 0", EVENT[0]])),
    ("timestamp a string", br#"{"event": "E", "timestamp": "now"}"#, Says(EVENT)),
    ("timestamp half", br#"{"event": "E", "timestamp": {"seconds": 1}}"#, Says(EVENT)),
    ("timestamp an array", br#"{"event": "E", "timestamp": [1, 2]}"#, Says(EVENT)),
    ("timestamps backwards", br#"{"timestamp": {"seconds": 2, "microseconds": 0}, "event": "E"}{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "E"}"#, Says(&["event E at 2 0", "event E at 1 0"])),

    // Greetings.
    ("a greeting", br#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 1}, "package": "p"}, "capabilities": ["oob"]}}"#, Says(&["QMP 1.2.3 p [oob]"])),
    ("greeting without capabilities", br#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 1}, "package": ""}}}"#, Says(&["QMP 1.2.3  []"])),
    ("greeting without package", br#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 1}}}}"#, Says(&["QMP 1.2.3  []"])),
    ("greeting with unknown capabilities", br#"{"QMP": {"capabilities": ["flux", "oob"], "x": 1, "version": {"y": 2, "qemu": {"micro": 3, "minor": 2, "major": 1, "z": 3}}}}"#, Says(&["QMP 1.2.3  [flux oob]"])),
    ("greeting without version", br#"{"QMP": {"capabilities": []}}"#, Fatal("InvalidMember", 0)),
    ("version of wrong types", br#"{"QMP": {"version": {"qemu": {"micro": "3", "minor": 2, "major": 1}}}}"#, Fatal("InvalidMember", 0)),
    ("version a string", br#"{"QMP": {"version": "1.2.3"}}"#, Fatal("InvalidMember", 0)),
    ("version negative", br#"{"QMP": {"version": {"qemu": {"micro": -1, "minor": 2, "major": 1}}}}"#, Fatal("InvalidMember", 0)),
    ("version's qemu an array", br#"{"QMP": {"version": {"qemu": [1, 2, 3]}}}"#, Fatal("InvalidMember", 0)),
    ("version an array", br#"{"QMP": {"version": [{"micro": 3, "minor": 2, "major": 1}, ""]}}"#, Fatal("InvalidMember", 0)),
    ("greeting an array", br#"{"QMP": [{"qemu": {"micro": 3, "minor": 2, "major": 1}}, []]}"#, Fatal("InvalidMember", 0)),
    ("greeting null", br#"{"QMP": null}"#, Fatal("InvalidMember", 0)),
    ("capabilities of another type", br#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 2, "major": 1}}, "capabilities": "oob"}}"#, Fatal("InvalidMember", 0)),

    // Line ends and space.
    ("no line end", br#"{"event": "E"}{"return": {}}"#, Says(&["event E", "return {}"])),
    ("CR only", b"{\"event\": \"E\"}\r{\"return\": {}}\r", Says(&["event E", "return {}"])),
    ("LF only", b"{\"event\": \"E\"}\n{\"return\": {}}\n", Says(&["event E", "return {}"])),
    ("CRLF", b"{\"event\": \"E\"}\r\n{\"return\": {}}\r\n", Says(&["event E", "return {}"])),
    ("blank lines", b"\r\n\r\n \t\n{\"event\": \"E\"}\n\n\n\n{\"return\": {}}\n\n", Says(&["event E", "return {}"])),
    ("pretty-printed", b"{\r\n    \"return\": {\r\n        \"a\": [\r\n            1,\r\n            2\r\n        ]\r\n    }\r\n}\r\n", Says(&["return {\r\n        \"a\": [\r\n            1,\r\n            2\r\n        ]\r\n    }"])),
    ("nothing", b"", Says(&[])),
    ("white space only", b" \r\n\t ", Says(&[])),
];

fn describe(message: &ServerMessage) -> String {
    let id = |id: &Option<MessageId>| match id {
        None => String::new(),
        Some(MessageId::Command(id)) => format!(" id {id}!"),
        Some(MessageId::Foreign(id)) => format!(" id {id}"),
        Some(other) => panic!("{other:?}"),
    };
    match message {
        ServerMessage::Return { id: of, value } => format!("return {value}{}", id(of)),
        ServerMessage::Error { id: of, error } => format!("error {error}{}", id(of)),
        ServerMessage::Event(event) => {
            let data = event
                .data
                .as_ref()
                .map(|data| format!(" data {data}"))
                .unwrap_or_default();
            let at = event
                .timestamp
                .map(|at| format!(" at {} {}", at.seconds, at.microseconds))
                .unwrap_or_default();
            format!("event {}{data}{at}", event.name)
        }
        ServerMessage::Greeting(greeting) => {
            let offered: Vec<_> = greeting
                .capabilities
                .iter()
                .map(|capability| capability.as_str())
                .collect();
            format!(
                "QMP {} {} [{}]",
                greeting.version,
                greeting.version.package,
                offered.join(" ")
            )
        }
        other => panic!("{other:?}"),
    }
}

/// The kind's name; of a broken protocol, in which way.
fn kind_name(kind: &DecodeErrorKind) -> String {
    let debug = format!("{kind:?}");
    let name = match kind {
        DecodeErrorKind::Protocol { reason } if reason.starts_with("key `") => "DuplicateKey",
        DecodeErrorKind::Protocol { reason } if reason.starts_with("message with ") => "NotOneKind",
        DecodeErrorKind::Protocol { reason } if reason.starts_with("invalid `") => "InvalidMember",
        _ => debug.split([' ', '{']).next().unwrap_or_default(),
    };
    name.to_owned()
}

/// Feeds the pieces and the end; what it said, and the kind and place of the fault.
fn run(pieces: &[&[u8]]) -> (Vec<String>, Option<(String, u64)>) {
    let mut codec = Codec::new(Limits::default());
    let mut said = Vec::new();
    for piece in pieces.iter().map(Some).chain([None]) {
        match piece {
            Some(piece) => codec.feed(piece),
            None => codec.feed_eof(),
        }
        loop {
            match codec.next_message() {
                Ok(Some(message)) => said.push(describe(&message)),
                Ok(None) => break,
                Err(error) => {
                    codec.feed(b"{\"event\": \"AFTER\"}");
                    assert_eq!(codec.next_message(), Err(error.clone()), "the error stays");
                    assert!(!codec.is_finished());
                    return (said, Some((kind_name(error.kind()), error.offset())));
                }
            }
        }
    }
    assert!(codec.is_finished());
    (said, None)
}

const BEFORE: &[u8] = b"{\"event\": \"BEFORE\"}\r\n";
const AFTER: &[u8] = b"{\"event\": \"AFTER\"}\r\n";

#[test]
fn every_row_in_every_cutting_alone_and_among_neighbours() {
    let mut runs = 0;
    for (name, input, then) in ROWS {
        for (before, after) in [(&b""[..], &b""[..]), (BEFORE, AFTER)] {
            let stream = [before, input, after].concat();
            let mut says: Vec<&str> = Vec::new();
            says.extend((!before.is_empty()).then_some("event BEFORE"));
            let fault = match then {
                Says(own) => {
                    says.extend(*own);
                    says.extend((!after.is_empty()).then_some("event AFTER"));
                    None
                }
                Fatal(kind, at) => {
                    // What is wrong behind a whole message comes after that.
                    says.extend((*name == "closed too often").then_some("event E"));
                    says.extend((*name == "a comment").then_some("return {}"));
                    Some(((*kind).to_owned(), (before.len() + at) as u64))
                }
            };
            for pieces in cuttings(&stream) {
                assert_eq!(
                    run(&pieces),
                    (
                        says.iter().map(|&word| word.to_owned()).collect(),
                        fault.clone()
                    ),
                    "{name}: {pieces:?}"
                );
                runs += 1;
            }
        }
    }
    println!("{} rows, {runs} runs", ROWS.len());
}

#[test]
fn a_stream_cut_at_every_byte_is_truncated_but_between_messages() {
    let stream = b"{\"return\": [1.5, \"\\ud83d\\ude00 \xc3\xa9\", true]}\r\n{\"event\": \"E\"}";
    let first = stream.iter().position(|&byte| byte == b'\r').unwrap();
    let ends = [0, first, first + 1, first + 2, stream.len()];
    for end in 0..=stream.len() {
        for pieces in cuttings(&stream[..end]) {
            let (_, fault) = run(&pieces);
            let expected = (!ends.contains(&end)).then(|| ("Truncated".to_owned(), end as u64));
            assert_eq!(fault, expected, "cut at {end}");
        }
    }
}

#[test]
fn an_error_tells_what_where_and_near_what() {
    let mut codec = Codec::new(Limits::default());
    codec.feed(b"{\"event\": \"STOP\"}\r\n{\"return\": \x01}");
    codec.next_message().unwrap().unwrap();
    let error = codec.next_message().unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid JSON, expected a value at byte 30 of the stream, near '{\"return\": \\x01'"
    );
    assert_eq!(error.seen(), b"{\"return\": \x01");
    let debug = format!("{error:?}");
    assert!(
        debug.ends_with(r#"offset: 30, seen: "{\"return\": \x01" }"#),
        "{debug}"
    );
}

#[test]
fn a_fault_of_a_whole_message_quotes_its_first_bytes() {
    for text in [
        "{}",
        "{\"event\": \"E\", \"return\": \"and 32 bytes are quoted\"}",
    ] {
        let mut codec = Codec::new(Limits::default());
        codec.feed(format!("{{\"event\": \"E\"}}{text} ").as_bytes());
        codec.next_message().unwrap().unwrap();
        let error = codec.next_message().unwrap_err();
        assert_eq!(
            (error.offset(), error.seen()),
            (14, &text.as_bytes()[..text.len().min(32)])
        );
    }
}

#[test]
fn after_the_end_nothing_is_left_once_the_last_message_is_taken() {
    for stream in [
        "{\"event\": \"E\"}",
        "{\"event\": \"E\"}\r\n",
        " {\"event\": \"E\"} \t",
    ] {
        let mut codec = Codec::new(Limits::default());
        codec.feed(stream.as_bytes());
        codec.feed_eof();
        assert!(!codec.is_finished());
        codec.next_message().unwrap().unwrap();
        assert!(codec.is_finished());
    }
}

#[test]
fn what_an_error_quotes_is_bounded() {
    let mut codec = Codec::new(Limits::default());
    codec.feed(format!("{{\"return\": [{}!", "1,".repeat(10_000)).as_bytes());
    let error = codec.next_message().unwrap_err();
    assert_eq!(error.seen().len(), 32);
    assert!(error.seen().ends_with(b"1,!"));
    assert!(error.to_string().len() < 200);
}

#[test]
fn what_an_error_says_of_a_member_is_bounded() {
    for letters in ["x", "é", "\\n"] {
        let mut codec = Codec::new(Limits::default());
        codec.feed(format!("{{\"error\": \"x{}\"}}", letters.repeat(200_000)).as_bytes());
        let error = codec.next_message().unwrap_err();
        let DecodeErrorKind::Protocol { reason } = error.kind() else {
            panic!("{error}")
        };
        let said = reason.strip_prefix("invalid `error`: ").unwrap();
        assert!((199..=200).contains(&said.len()), "{reason}");
        assert!(error.to_string().len() < 500);
    }
}

#[test]
fn greetings_errors_and_event_names_have_limits_of_their_own() {
    let version = "\"version\": {\"qemu\": {\"major\": 1, \"minor\": 2, \"micro\": 3}}";
    let greeting = |more: usize| {
        format!(
            "{{\"QMP\": {{{version}, \"x\": \"{}\"}}}}",
            "x".repeat(more)
        )
    };
    let error = |more: usize| {
        format!(
            "{{\"error\": {{\"class\": \"C\", \"desc\": \"{}\"}}}}",
            "x".repeat(more)
        )
    };
    let event = |more: usize| format!("{{\"event\": \"{}\"}}", "x".repeat(more));
    let within = [greeting(16_000), error(1_000_000), event(1022)];
    let over = [
        (greeting(16_384), 16_384),
        (error(1_048_576), 1_048_576),
        (event(1023), 1024),
    ];
    for text in within {
        let mut codec = Codec::new(Limits::default());
        codec.feed(text.as_bytes());
        assert!(codec.next_message().unwrap().is_some());
    }
    for (text, limit) in over {
        let mut codec = Codec::new(Limits::default());
        codec.feed(text.as_bytes());
        let error = codec.next_message().unwrap_err();
        assert_eq!(
            (error.kind(), error.offset()),
            (&DecodeErrorKind::TooLarge { limit }, 0)
        );
    }
}

#[test]
fn a_long_desc_is_whole_but_shown_short() {
    let desc = "é".repeat(500_000);
    let text = format!("{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"x{desc}\"}}}}");
    let mut codec = Codec::new(Limits::default());
    codec.feed(text.as_bytes());
    let Some(ServerMessage::Error { error, .. }) = codec.next_message().unwrap() else {
        panic!()
    };
    assert_eq!(error.desc.len(), 1_000_001);
    let shown = error.to_string();
    // 1,000 bytes would end inside a letter.
    assert_eq!(shown.len(), "GenericError: ".len() + 999 + "…".len());
    assert!(shown.ends_with("é…"));
}

#[test]
fn a_message_that_is_not_one_of_four_kinds_says_whether_it_is_none_or_several() {
    for (text, found) in [
        ("{}", "none"),
        ("{\"event\": \"E\", \"return\": 1}", "more than one"),
    ] {
        let mut codec = Codec::new(Limits::default());
        codec.feed(text.as_bytes());
        let error = codec.next_message().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("message with {found} of `QMP`, ")),
            "{error}"
        );
    }
}

#[test]
fn a_syntax_error_says_what_could_have_stood_there() {
    let rows = [
        ("x", "a JSON object"),
        ("{x", "a key or `}`"),
        ("{\"a\":1,x", "a key"),
        ("{\"a\"x", "`:`"),
        ("{\"a\":x", "a value"),
        ("{\"a\":[x", "a value or `]`"),
        ("{\"a\":[1,x", "a value"),
        ("{\"a\":[1 x", "`,` or `]`"),
        ("{\"a\":{} x", "`,` or `}`"),
        ("{\"a\":tx", "`true`, `false` or `null`"),
        ("{\"a\":-x", "a digit"),
    ];
    for (text, expected) in rows {
        let mut codec = Codec::new(Limits::default());
        codec.feed(text.as_bytes());
        assert_eq!(
            codec.next_message().unwrap_err().kind(),
            &DecodeErrorKind::Syntax { expected },
            "{text}"
        );
    }
}

#[test]
fn the_key_that_came_twice_is_named() {
    for key in ["QMP", "return", "error", "event", "id", "data", "timestamp"] {
        let mut codec = Codec::new(Limits::default());
        codec.feed(format!("{{\"{key}\": 1, \"{key}\": 1}}").as_bytes());
        assert_eq!(
            codec.next_message().unwrap_err().kind(),
            &DecodeErrorKind::Protocol {
                reason: format!("key `{key}` twice in one message")
            }
        );
    }
}
