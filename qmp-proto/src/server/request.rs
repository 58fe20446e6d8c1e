//! A command as a server reads it.

use alloc::string::String;
use core::ops::Range;

use serde::Deserialize;

use crate::{
    error::{DecodeErrorKind, ParseError},
    framer::Message,
    members::{KnownKey, Members},
    object::read_name,
    raw::RawJson,
};

/// A client's command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The command's name.
    pub name: String,
    /// Its arguments, as the client wrote them; `None` where there are none.
    pub arguments: Option<RawJson>,
    /// Whether it is to be run at once, out of band.
    pub oob: bool,
    /// Its id, which goes back with the answer: any JSON value, or none.
    pub id: Option<RawJson>,
}

impl Request {
    /// Reads the arguments as a `T`; no arguments as if they were `{}`.
    ///
    /// # Errors
    /// [`ParseError`] where the arguments do not fit.
    pub fn parse_arguments<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ParseError> {
        match &self.arguments {
            Some(arguments) => arguments.parse(),
            None => serde_json::from_str("{}").map_err(ParseError::new::<T>),
        }
    }
}

impl Message for Request {
    fn read(
        members: &Members,
        message: &[u8],
        raw: impl Fn(Range<usize>) -> RawJson,
    ) -> Result<Self, DecodeErrorKind> {
        let text = |key| members.text(key, message);
        let (key, name, oob) = match (text(KnownKey::Execute), text(KnownKey::ExecOob)) {
            (Some(name), None) => (KnownKey::Execute, name, false),
            (None, Some(name)) => (KnownKey::ExecOob, name, true),
            (None, None) => {
                return Err(DecodeErrorKind::protocol(
                    "message with neither `execute` nor `exec-oob`",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(DecodeErrorKind::protocol(
                    "message with both `execute` and `exec-oob`",
                ));
            }
        };
        let arguments = members.span(KnownKey::Arguments);
        if arguments
            .as_ref()
            .is_some_and(|span| message[span.start] != b'{')
        {
            return Err(DecodeErrorKind::protocol("invalid `arguments`: no object"));
        }
        Ok(Self {
            name: read_name(key.name(), name)?,
            arguments: arguments.map(&raw),
            oob,
            id: members.span(KnownKey::Id).map(raw),
        })
    }
}
