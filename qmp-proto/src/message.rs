//! What the server can say: greeting, return, error, event.

use core::ops::Range;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    command::CommandId,
    error::DecodeErrorKind,
    event::QmpEvent,
    framer::Message,
    greeting::Greeting,
    members::{KnownKey, Members},
    raw::{RawJson, RawReturn},
    server_error::ServerError,
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
        /// What the server says.
        error: ServerError,
    },
    /// Something happened.
    Event(QmpEvent),
}

impl Message for ServerMessage {
    fn read(
        members: &Members,
        message: &[u8],
        raw: impl Fn(Range<usize>) -> RawJson,
    ) -> Result<Self, DecodeErrorKind> {
        let text = |key| members.text(key, message);
        let id = || {
            let span = members.span(KnownKey::Id)?;
            Some(MessageId::read(&message[span.clone()], || raw(span)))
        };
        match (
            members.span(KnownKey::Return),
            text(KnownKey::Error),
            text(KnownKey::Event),
            text(KnownKey::Greeting),
        ) {
            (Some(value), None, None, None) => Ok(Self::Return {
                id: id(),
                value: raw(value),
            }),
            (None, Some(error), None, None) => Ok(Self::Error {
                id: id(),
                error: ServerError::read(error)?,
            }),
            (None, None, Some(event), None) => {
                QmpEvent::read(members, message, event, raw).map(Self::Event)
            }
            (None, None, None, Some(greeting)) => Greeting::read(greeting).map(Self::Greeting),
            (None, None, None, None) => Err(DecodeErrorKind::protocol(
                "message with none of `QMP`, `return`, `error` and `event`",
            )),
            _ => Err(DecodeErrorKind::protocol(
                "message with more than one of `QMP`, `return`, `error` and `event`",
            )),
        }
    }
}

/// As a server writes it, without a line end.
impl Serialize for ServerMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        let id = match self {
            Self::Event(event) => {
                if let Some(timestamp) = &event.timestamp {
                    members.serialize_entry("timestamp", timestamp)?;
                }
                members.serialize_entry("event", &event.name)?;
                if let Some(data) = &event.data {
                    members.serialize_entry("data", data)?;
                }
                &None
            }
            Self::Greeting(greeting) => {
                members.serialize_entry("QMP", greeting)?;
                &None
            }
            Self::Return { id, value } => {
                members.serialize_entry("return", value)?;
                id
            }
            Self::Error { id, error } => {
                members.serialize_entry("error", error)?;
                id
            }
        };
        if let Some(id) = id {
            members.serialize_entry("id", id)?;
        }
        members.end()
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

impl From<RawJson> for MessageId {
    fn from(json: RawJson) -> Self {
        Self::read(json.as_bytes(), || json.clone())
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Command(id) => serializer.collect_str(id),
            Self::Foreign(json) => json.serialize(serializer),
        }
    }
}

impl MessageId {
    /// Reads the value of `id`, which `raw` makes a value of its own.
    pub(crate) fn read(json: &[u8], raw: impl FnOnce() -> RawJson) -> Self {
        CommandId::read(json).map_or_else(|| Self::Foreign(raw()), Self::Command)
    }
}
