//! The server's errors: an ordinary answer to a command.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    error::DecodeErrorKind,
    limits::MAX_ERROR_BYTES,
    object::{bounded, invalid, read_object, shown_end},
};

/// The server's 'no' to a command: an ordinary value, and the connection goes on.
///
/// `Display` shows class and text, the text cut after 1,000 bytes; `desc` has all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerError {
    /// The kind of error. `GenericError` is nearly all of them.
    pub class: ErrorClass,
    /// The server's text, for people: it changes between versions.
    pub desc: String,
}

impl ServerError {
    /// An error made up by the caller: a server's, or a test's.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self {
            class,
            desc: desc.into(),
        }
    }
}

/// Most bytes of a [`ServerError`]'s text that `Display` shows.
const SHOWN_DESC_BYTES: usize = 1000;

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

impl Serialize for ErrorClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
