//! Proptest strategies: JSON in every spelling, messages, streams, and calls on a connection.

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any},
    prop_oneof,
    sample::select,
};

use super::Op;
use crate::{
    Capability, CommandId, ErrorClass, Greeting, MessageId, QmpEvent, RawJson, ServerError,
    ServerMessage, Timestamp, Version,
};

/// A message's text and what it must be decoded to.
pub type Spelled = (String, ServerMessage);

/// White space between tokens; mostly a little.
pub fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 4 => Just(" ".to_owned()), 1 => "[ \t\r\n]{1,12}"]
}

/// A string as JSON, in quotes: plain, escaped, beyond ASCII, surrogate pairs.
pub fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ !#-\\[\\]-~]{0,20}",
        1 => "[\u{7f}-\u{d7ff}\u{e000}-\u{10ffff}]{1,3}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u[0-9a-cA-C][0-9a-fA-F]{3}",
        1 => "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9A-F]{2}",
    ];
    vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// Anything that is JSON, also what no type can hold.
pub fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string(),
        select(
            &[
                "null",
                "true",
                "false",
                "{}",
                "[]",
                "0",
                "-0",
                "1e400",
                "18446744073709551616"
            ][..]
        )
        .prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let item = move || {
            (space(), inner.clone(), space())
                .prop_map(|(before, value, after)| before + &value + &after)
        };
        let member = (space(), string(), space(), item())
            .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
        prop_oneof![
            vec(item(), 1..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A message of the server in any spelling: any order of keys, unknown ones among them, white space
/// anywhere.
pub fn message() -> impl Strategy<Value = Spelled> {
    prop_oneof![3 => reply(), 2 => error(), 4 => event(), 1 => greeting()]
}

/// Messages in a row with anything that may stand between them, and what they are.
pub fn stream() -> impl Strategy<Value = (String, Vec<ServerMessage>)> {
    vec((space(), message()), 0..8).prop_map(|parts| {
        let mut text = String::new();
        let mut messages = Vec::new();
        for (before, (spelled, message)) in parts {
            text += &before;
            text += &spelled;
            messages.push(message);
        }
        (text, messages)
    })
}

/// A stream with a few bytes changed, taken out or put in.
pub fn broken_stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), select(&b"{}[]\",:\\ue0-\xff\x00\xed\xa0"[..])];
    (
        stream(),
        vec((any::<proptest::sample::Index>(), byte, 0..3), 1..4),
    )
        .prop_map(|((text, _), changes)| {
            let mut bytes = text.into_bytes();
            for (index, byte, kind) in changes {
                let at = index.index(bytes.len() + 1);
                match kind {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => bytes[at] = byte,
                    _ if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.push(byte),
                }
            }
            bytes
        })
}

/// Calls on a connection and a server's doings.
pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    let any_op = || (any::<u8>(), any::<u8>()).prop_map(|(kind, n)| Op::read(kind, n));
    // Most runs are to get beyond the negotiation.
    let opening = any::<bool>().prop_map(|oob| {
        vec![
            Op::Greet(oob),
            Op::Negotiate(oob),
            Op::Write(255),
            Op::Answer(0, true),
        ]
    });
    (option::weighted(0.9, opening), vec(any_op(), 0..60))
        .prop_map(|(opening, rest)| opening.into_iter().flatten().chain(rest).collect())
}

fn id() -> impl Strategy<Value = Option<(String, MessageId)>> {
    let ours = (any::<u32>(), any::<u64>()).prop_map(|(prefix, number)| {
        let id = CommandId::new(prefix, number);
        (format!("\"{id}\""), MessageId::Command(id))
    });
    let foreign = json().prop_map(|text| {
        let raw = RawJson::copy(text.as_bytes());
        (text, MessageId::Foreign(raw))
    });
    option::of(prop_oneof![ours, foreign])
}

fn reply() -> impl Strategy<Value = Spelled> {
    (id(), json()).prop_flat_map(|(id, value)| {
        let message = ServerMessage::Return {
            id: id.as_ref().map(|id| id.1.clone()),
            value: RawJson::copy(value.as_bytes()),
        };
        object(
            member("return", Some(value))
                .chain(member("id", id.map(|id| id.0)))
                .collect(),
            message,
        )
    })
}

fn error() -> impl Strategy<Value = Spelled> {
    (id(), "[A-Z][A-Za-z]{0,12}", string()).prop_flat_map(|(id, class, desc)| {
        let error = ServerError::new(ErrorClass::from(class.clone()), unescape(&desc));
        let message = ServerMessage::Error {
            id: id.as_ref().map(|id| id.1.clone()),
            error,
        };
        let value = format!("{{\"class\": \"{class}\",\"more\":[{{}}],\"desc\":{desc}}}");
        object(
            member("error", Some(value))
                .chain(member("id", id.map(|id| id.0)))
                .collect(),
            message,
        )
    })
}

fn event() -> impl Strategy<Value = Spelled> {
    let name = prop_oneof![
        select(&["\"STOP\"", "\"RESUME\""][..]).prop_map(str::to_owned),
        string()
    ];
    let time = (any::<i64>(), any::<i64>(), space());
    (name, option::of(json()), option::of(time)).prop_flat_map(|(name, data, time)| {
        let timestamp = time.as_ref().map(|&(seconds, microseconds, _)| Timestamp {
            seconds,
            microseconds,
        });
        let time = time.map(|(seconds, microseconds, space)| {
            format!("{{\"seconds\":{space}{seconds}, \"microseconds\": {microseconds}}}")
        });
        let event = QmpEvent {
            name: unescape(&name),
            data: data.as_ref().map(|data| RawJson::copy(data.as_bytes())),
            timestamp,
        };
        let members = member("event", Some(name))
            .chain(member("data", data))
            .chain(member("timestamp", time));
        object(members.collect(), ServerMessage::Event(event))
    })
}

fn greeting() -> impl Strategy<Value = Spelled> {
    (any::<[u32; 3]>(), string(), vec("[a-z]{1,5}", 0..3)).prop_flat_map(
        |([major, minor, micro], package, names)| {
            let triple = format!("{{\"micro\": {micro}, \"minor\": {minor}, \"major\": {major}}}");
            let text = format!(
                "{{\"version\": {{\"qemu\": {triple}, \"package\": {package}}}, \"capabilities\": {names:?}}}"
            );
            let greeting = Greeting {
                version: Version { major, minor, micro, package: unescape(&package) },
                capabilities: names.into_iter().map(Capability::from).collect(),
            };
            object(member("QMP", Some(text)).collect(), ServerMessage::Greeting(greeting))
        },
    )
}

type SpelledMember = (String, String);

fn member(key: &str, value: Option<String>) -> impl Iterator<Item = SpelledMember> {
    value.map(|value| (format!("\"{key}\""), value)).into_iter()
}

/// Spells an object of these members and unknown ones, in any order, some keys with an escape.
fn object(members: Vec<SpelledMember>, message: ServerMessage) -> impl Strategy<Value = Spelled> {
    let unknown = ("\"[A-PR-Z]{0,3}\"", json());
    let known = members
        .into_iter()
        .map(|member| (Just(member), any::<u8>()))
        .collect::<Vec<_>>();
    let known = known.prop_map(|members| members.into_iter().map(escape_key).collect::<Vec<_>>());
    let shuffled = (known, vec(unknown, 0..3))
        .prop_map(|(known, unknown)| [known, unknown].concat())
        .prop_shuffle();
    (shuffled, space(), space()).prop_map(move |(members, before, after)| {
        let members = members
            .into_iter()
            .map(|(key, value)| format!("{before}{key}{after}:{before}{value}{after}"));
        (
            format!("{{{}{before}}}", members.collect::<Vec<_>>().join(",")),
            message.clone(),
        )
    })
}

/// One key in eight has its first letter as an escape.
fn escape_key(((key, value), draw): (SpelledMember, u8)) -> SpelledMember {
    if draw % 8 != 0 {
        return (key, value);
    }
    let first = key.as_bytes()[1];
    (format!("\"\\u{first:04x}{}", &key[2..]), value)
}

fn unescape(json: &str) -> String {
    serde_json::from_str(json).expect("the strategy spells JSON")
}
