//! What the server can say: greeting, return, error, event.

use alloc::{
    borrow::Cow,
    string::{String, ToString as _},
    vec::Vec,
};
use core::{fmt, marker::PhantomData, ops::Range};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    command::CommandId,
    error::{DecodeErrorKind, ParseError},
    framing::{Key, Members},
    limits::{MAX_ERROR_BYTES, MAX_EVENT_NAME_BYTES, MAX_GREETING_BYTES, MAX_TIMESTAMP_BYTES},
    raw::{RawJson, RawReturn},
    text::read_digits,
};

/// One message of the server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ServerMessage {
    /// The first message of a connection.
    Greeting(Greeting),
    /// A command succeeded.
    Return {
        /// The command's id, if it had one.
        id: Option<MessageId>,
        /// What it returned.
        value: RawReturn,
    },
    /// A command failed, or input could not be read (then without an id).
    Error {
        /// The command's id, if it had one.
        id: Option<MessageId>,
        /// The server's word.
        error: ServerError,
    },
    /// Something happened.
    Event(QmpEvent),
}

impl ServerMessage {
    /// Gives a message its meaning; `raw` takes a value out of it.
    pub(crate) fn read(
        members: &Members,
        message: &[u8],
        raw: impl Fn(Range<usize>) -> RawJson,
    ) -> Result<Self, DecodeErrorKind> {
        let text = |key| members.span(key).map(|span| &message[span]);
        let id = || {
            let span = members.span(Key::Id)?;
            Some(MessageId::read(&message[span.clone()], || raw(span)))
        };
        match (
            members.span(Key::Return),
            text(Key::Error),
            text(Key::Event),
            text(Key::Greeting),
        ) {
            (Some(value), None, None, None) => Ok(Self::Return {
                id: id(),
                value: raw(value),
            }),
            (None, Some(error), None, None) => Ok(Self::Error {
                id: id(),
                error: ServerError::read(error)?,
            }),
            (None, None, Some(name), None) => {
                let data = members.span(Key::Data).map(raw);
                let timestamp = members
                    .timestamp
                    .or_else(|| Timestamp::read(text(Key::Timestamp)?));
                Ok(Self::Event(QmpEvent {
                    name: read_event_name(name)?,
                    data,
                    timestamp,
                }))
            }
            (None, None, None, Some(greeting)) => Ok(Self::Greeting(Greeting::read(greeting)?)),
            (None, None, None, None) => Err(DecodeErrorKind::NotOneKind {
                found: "none of `QMP`, `return`, `error` and `event`",
            }),
            _ => Err(DecodeErrorKind::NotOneKind {
                found: "more than one of `QMP`, `return`, `error` and `event`",
            }),
        }
    }
}

/// The `id` of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageId {
    /// It has the form of this crate's ids. Whether this connection gave it is for
    /// [`Connection`](crate::Connection) to know.
    Command(CommandId),
    /// Any other JSON value: some other client's.
    Foreign(RawJson),
}

impl From<CommandId> for MessageId {
    fn from(id: CommandId) -> Self {
        Self::Command(id)
    }
}

/// What the server says of itself before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Greeting {
    /// QEMU's version.
    pub version: Version,
    /// What may be enabled in [`negotiate`](crate::Connection::negotiate). Unknown ones are kept;
    /// none where the greeting has no such member.
    pub capabilities: Vec<Capability>,
}

/// QEMU's version, and the text a distributor put to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
    /// 7 in 7.2.22.
    pub major: u32,
    /// 2 in 7.2.22.
    pub minor: u32,
    /// 22 in 7.2.22.
    pub micro: u32,
    /// For example `Debian 1:7.2+dfsg-7+deb12u18+b3`; often empty.
    pub package: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// `{"qemu": {"major": …, "minor": …, "micro": …}, "package": …}`, as in the greeting and in
/// `query-version`.
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            qemu: Object<Triple>,
            #[serde(default)]
            package: String,
        }
        #[derive(Deserialize)]
        struct Triple {
            major: u32,
            minor: u32,
            micro: u32,
        }
        let Object(Wire {
            qemu:
                Object(Triple {
                    major,
                    minor,
                    micro,
                }),
            package,
        }) = Object::deserialize(deserializer)?;
        Ok(Self {
            major,
            minor,
            micro,
            package,
        })
    }
}

/// A protocol extension that a client may enable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// `oob`: commands may be sent out of band, to be run at once.
    Oob,
    /// One that this crate does not know.
    Other(String),
}

impl Capability {
    /// Its name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Oob => "oob",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for Capability {
    fn from(name: String) -> Self {
        if name == "oob" {
            Self::Oob
        } else {
            Self::Other(name)
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Capability {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The server's 'no' to a command: an ordinary value, and the connection goes on.
///
/// `Display` shows class and text, the text cut after 1,000 bytes; `desc` has all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// The kind of error. `GenericError` is nearly all of them.
    pub class: ErrorClass,
    /// The server's text, for people: it changes between versions.
    pub desc: String,
}

impl ServerError {
    /// One made up by the caller, in tests for example.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self {
            class,
            desc: desc.into(),
        }
    }
}

/// Most bytes of a [`ServerError`]'s text that `Display` shows.
const SHOWN_DESC_BYTES: usize = 1000;

/// Most bytes of the JSON reader's words that a decode error keeps.
const SHOWN_REASON_BYTES: usize = 200;

/// The last place up to `most` at which `text` can be cut.
fn shown_end(text: &str, most: usize) -> usize {
    (0..=most.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or_default()
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.desc[..shown_end(&self.desc, SHOWN_DESC_BYTES)];
        let ellipsis = if shown.len() < self.desc.len() {
            "…"
        } else {
            ""
        };
        write!(f, "{}: {shown}{ellipsis}", self.class)
    }
}

impl core::error::Error for ServerError {}

/// QMP's error classes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Anything that has no class of its own.
    GenericError,
    /// This QEMU does not have that command, or not in this state (before negotiation, for
    /// example).
    CommandNotFound,
    /// The device is there but not active.
    DeviceNotActive,
    /// There is no such device.
    DeviceNotFound,
    /// KVM lacks what the command needs.
    KvmMissingCap,
    /// One that this crate does not know.
    Other(String),
}

impl ErrorClass {
    /// Its name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::KvmMissingCap => "KVMMissingCap",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for ErrorClass {
    fn from(name: String) -> Self {
        match name.as_str() {
            "GenericError" => Self::GenericError,
            "CommandNotFound" => Self::CommandNotFound,
            "DeviceNotActive" => Self::DeviceNotActive,
            "DeviceNotFound" => Self::DeviceNotFound,
            "KVMMissingCap" => Self::KvmMissingCap,
            _ => Self::Other(name),
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened, not asked for by a command.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QmpEvent {
    /// For example `STOP`.
    pub name: Cow<'static, str>,
    /// The event's data, of any kind; `None` where the message has none.
    pub data: Option<RawJson>,
    /// The host's clock when it happened. `None` where it is missing, not two integers or over 1
    /// KiB.
    pub timestamp: Option<Timestamp>,
}

/// The host's wall clock as QEMU saw it. It may go backwards: events are ordered by their arrival,
/// never by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970; -1 where QEMU could not read its clock.
    pub seconds: i64,
    /// Microseconds in that second; -1 where QEMU could not read its clock.
    pub microseconds: i64,
}

impl Timestamp {
    /// Reads the value of a `timestamp`, which is valid JSON.
    fn read(json: &[u8]) -> Option<Self> {
        match Self::read_usual(json) {
            Some((timestamp, [])) => Some(timestamp),
            _ => read_object(bounded(json, MAX_TIMESTAMP_BYTES).ok()?).ok(),
        }
    }

    /// The one form that QEMU writes without `pretty=on`, and what follows it. Half of what a busy
    /// stream holds are timestamps.
    #[inline]
    pub(crate) fn read_usual(text: &[u8]) -> Option<(Self, &[u8])> {
        let (seconds, rest) = read_digits(text.strip_prefix(b"{\"seconds\": ")?)?;
        let (microseconds, rest) = read_digits(rest.strip_prefix(b", \"microseconds\": ")?)?;
        Some((
            Self {
                seconds,
                microseconds,
            },
            rest.strip_prefix(b"}")?,
        ))
    }
}

/// Reads a `T` from an object only: a derived struct alone would take an array too.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapOnly<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapOnly<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(MapOnly(PhantomData))
    }
}

fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json)
        .map(|Object(value)| value)
        .map_err(|error| error.to_string())
}

fn invalid(member: &'static str) -> impl FnOnce(String) -> DecodeErrorKind {
    move |mut reason| {
        // The JSON reader quotes an offending string whole.
        reason.truncate(shown_end(&reason, SHOWN_REASON_BYTES));
        reason.shrink_to_fit();
        DecodeErrorKind::InvalidMember { member, reason }
    }
}

/// Text is unescaped before it is known to be of use, so what is over its bound is not looked into.
fn bounded(json: &[u8], limit: usize) -> Result<&[u8], DecodeErrorKind> {
    if json.len() <= limit {
        Ok(json)
    } else {
        Err(DecodeErrorKind::TooLarge { limit })
    }
}

impl Greeting {
    /// Reads the value of `QMP`.
    pub(crate) fn read(json: &[u8]) -> Result<Self, DecodeErrorKind> {
        #[derive(Deserialize)]
        struct Wire {
            version: Version,
            #[serde(default)]
            capabilities: Vec<Capability>,
        }
        let Wire {
            version,
            capabilities,
        } = read_object(bounded(json, MAX_GREETING_BYTES)?).map_err(invalid("QMP"))?;
        Ok(Self {
            version,
            capabilities,
        })
    }
}

impl ServerError {
    /// Reads the value of `error`.
    pub(crate) fn read(json: &[u8]) -> Result<Self, DecodeErrorKind> {
        #[derive(Deserialize)]
        struct Wire {
            class: String,
            desc: String,
        }
        let wire: Wire = read_object(bounded(json, MAX_ERROR_BYTES)?).map_err(invalid("error"))?;
        Ok(Self {
            class: wire.class.into(),
            desc: wire.desc,
        })
    }
}

impl MessageId {
    /// Reads the value of `id`, which `raw` makes a value of its own.
    pub(crate) fn read(json: &[u8], raw: impl FnOnce() -> RawJson) -> Self {
        CommandId::read(json).map_or_else(|| Self::Foreign(raw()), Self::Command)
    }
}

impl QmpEvent {
    /// One made up by the caller, in tests for example; without a timestamp.
    pub fn new(name: impl Into<Cow<'static, str>>, data: Option<RawJson>) -> Self {
        Self {
            name: name.into(),
            data,
            timestamp: None,
        }
    }

    /// Reads the event's data as a `T`; an event without data as if it were `null`.
    ///
    /// # Errors
    /// [`ParseError`] where the data does not fit.
    pub fn parse_data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ParseError> {
        match &self.data {
            Some(data) => data.parse(),
            None => serde_json::from_str("null").map_err(|source| ParseError {
                type_name: core::any::type_name::<T>(),
                source,
            }),
        }
    }
}

fn read_event_name(json: &[u8]) -> Result<Cow<'static, str>, DecodeErrorKind> {
    if let Some(known) = json
        .get(1..json.len() - 1)
        .and_then(crate::commands::known_event)
    {
        return Ok(Cow::Borrowed(known));
    }
    serde_json::from_slice::<String>(bounded(json, MAX_EVENT_NAME_BYTES)?)
        .map(Cow::Owned)
        .map_err(|error| invalid("event")(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_in_qemu_s_spelling_needs_no_json_reader() {
        let json = "{\"seconds\": 1700000000, \"microseconds\": 123}";
        let timestamp = Timestamp {
            seconds: 1_700_000_000,
            microseconds: 123,
        };
        for after in ["", ", \"event\": \"STOP\"}"] {
            let text = format!("{json}{after}");
            assert_eq!(
                Timestamp::read_usual(text.as_bytes()),
                Some((timestamp, after.as_bytes()))
            );
        }
        for end in 0..json.len() {
            assert_eq!(Timestamp::read_usual(&json.as_bytes()[..end]), None);
        }
        assert_eq!(
            Timestamp::read_usual(b"{\"seconds\":17, \"microseconds\": 5}"),
            None
        );
    }

    #[test]
    fn what_a_greeting_tells_reads_as_qemu_writes_it() {
        let version = Version {
            major: 7,
            minor: 2,
            micro: 22,
            package: String::new(),
        };
        assert_eq!(version.to_string(), "7.2.22");
        assert_eq!(
            [Capability::Oob, Capability::Other("flux".into())].map(|one| one.to_string()),
            ["oob", "flux"]
        );
    }
}
