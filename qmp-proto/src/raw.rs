//! A JSON value as the server wrote it, not yet given a type.

use alloc::boxed::Box;
use core::{fmt, ops::Range, str};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

use crate::error::ParseError;

/// What a command returned. Any JSON value, `null` too; for most commands without an answer it is
/// `{}`.
pub type RawReturn = RawJson;

/// One JSON value of any kind, as the server wrote it: checked to be valid, not yet given a type.
///
/// It is cheap to clone. A small one keeps no more memory than its own text; one of 16 KiB and more
/// may keep the buffer it came in, up to four times its own size.
///
/// ```
/// # let raw = qmp_proto::RawJson::from_value(&serde_json::json!({"running": true, "status": "running"})).unwrap();
/// #[derive(serde::Deserialize)]
/// struct Status {
///     running: bool,
/// }
/// assert!(raw.parse::<Status>()?.running);
/// # Ok::<(), qmp_proto::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawJson {
    // Valid JSON, so valid UTF-8: checked by the scanner or written by serde_json.
    bytes: Bytes,
}

impl RawJson {
    /// Copies a value that the scanner has checked.
    pub(crate) fn copy(checked: &[u8]) -> Self {
        // The return of most commands: no allocation for it.
        let bytes = if checked == b"{}" {
            Bytes::from_static(b"{}")
        } else {
            Bytes::copy_from_slice(checked)
        };
        Self { bytes }
    }

    /// Shares a value that the scanner has checked.
    pub(crate) fn share(message: &Bytes, value: Range<usize>) -> Self {
        Self {
            bytes: message.slice(value),
        }
    }

    /// Makes one from anything that serialises: a server's return, or a test's.
    ///
    /// # Errors
    /// What the value's own `Serialize` says.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self {
            bytes: serde_json::to_vec(value)?.into(),
        })
    }

    /// Reads it as a `T`, which may borrow from it. Unknown fields are ignored unless `T` says
    /// otherwise.
    ///
    /// # Errors
    /// [`ParseError`] where the value does not fit; its source names the field and the place.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ParseError> {
        serde_json::from_slice(&self.bytes).map_err(ParseError::new::<T>)
    }

    /// The value's JSON text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes).expect("checked by the scanner")
    }

    /// The value's JSON text, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawJson({})", self.as_str())
    }
}

impl fmt::Display for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Written into JSON as it is.
impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_slice::<&RawValue>(&self.bytes)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

/// Read from JSON only, as [`RawValue`] is.
impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Box<str> = Box::<RawValue>::deserialize(deserializer)?.into();
        Ok(Self {
            bytes: text.into_boxed_bytes().into(),
        })
    }
}
