//! Reading JSON objects, with bounds on what is read and on what an error quotes.

use alloc::{
    format,
    string::{String, ToString as _},
};
use core::{fmt, marker::PhantomData, str};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{error::DecodeErrorKind, limits::MAX_NAME_BYTES, text::skip_plain};

/// Most bytes of the JSON reader's text that a decode error keeps.
const SHOWN_REASON_BYTES: usize = 200;

/// The last place up to `most` at which `text` can be cut.
pub(crate) fn shown_end(text: &str, most: usize) -> usize {
    (0..=most.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or_default()
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

pub(crate) fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json)
        .map(|Object(value)| value)
        .map_err(|error| error.to_string())
}

pub(crate) fn invalid(member: &'static str) -> impl FnOnce(String) -> DecodeErrorKind {
    move |mut reason| {
        // The JSON reader quotes an offending string whole.
        reason.truncate(shown_end(&reason, SHOWN_REASON_BYTES));
        DecodeErrorKind::protocol(&format!("invalid `{member}`: {reason}"))
    }
}

/// Refuses a text over its bound: it would be unescaped before it is known to be of use.
pub(crate) fn bounded(json: &[u8], limit: usize) -> Result<&[u8], DecodeErrorKind> {
    if json.len() <= limit {
        Ok(json)
    } else {
        Err(DecodeErrorKind::TooLarge { limit })
    }
}

/// Reads the name of an event or a command, the value of `member`.
pub(crate) fn read_name(member: &'static str, json: &[u8]) -> Result<String, DecodeErrorKind> {
    let json = bounded(json, MAX_NAME_BYTES)?;
    // The JSON reader takes twice as long for a name without an escape.
    match json {
        [b'"', name @ .., b'"'] if skip_plain(name, 0) == name.len() => {
            Ok(str::from_utf8(name).expect("plain text is ASCII").into())
        }
        _ => serde_json::from_slice(json).map_err(|error| invalid(member)(error.to_string())),
    }
}
