//! Events as they come: name, data and timestamp.

use alloc::string::String;
use core::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    error::{DecodeErrorKind, ParseError},
    limits::MAX_TIMESTAMP_BYTES,
    members::{KnownKey, Members},
    object::{bounded, read_name, read_object},
    raw::RawJson,
    text::read_digits,
};

/// Something that happened, not asked for by a command.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QmpEvent {
    /// For example `STOP`.
    pub name: String,
    /// The event's data, of any kind; `None` where the message has none.
    pub data: Option<RawJson>,
    /// The host's clock when it happened. `None` where it is missing, not two integers or over 1
    /// KiB.
    pub timestamp: Option<Timestamp>,
}

/// The host's wall clock as QEMU saw it. It may go backwards: events are ordered by their arrival,
/// never by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

impl QmpEvent {
    /// Reads the members of an event; `event` is the text of its name.
    pub(crate) fn read(
        members: &Members,
        message: &[u8],
        event: &[u8],
        raw: impl Fn(Range<usize>) -> RawJson,
    ) -> Result<Self, DecodeErrorKind> {
        let timestamp = members
            .timestamp
            .or_else(|| Timestamp::read(members.text(KnownKey::Timestamp, message)?));
        Ok(Self {
            name: read_name("event", event)?,
            data: members.span(KnownKey::Data).map(raw),
            timestamp,
        })
    }

    /// An event made up by the caller, without a timestamp: a server's, or a test's.
    pub fn new(name: impl Into<String>, data: Option<RawJson>) -> Self {
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
            None => serde_json::from_str("null").map_err(ParseError::new::<T>),
        }
    }
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
}
