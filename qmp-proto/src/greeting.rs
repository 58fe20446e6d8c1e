//! The greeting: QEMU's version and the capabilities it offers.

use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct as _};

use crate::{
    error::DecodeErrorKind,
    limits::MAX_GREETING_BYTES,
    object::{Object, bounded, invalid, read_object},
};

/// What the server says of itself before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

impl Version {
    /// A version without a distributor's text.
    pub fn new(major: u32, minor: u32, micro: u32) -> Self {
        Self {
            major,
            minor,
            micro,
            package: String::new(),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Triple {
            micro: u32,
            minor: u32,
            major: u32,
        }
        let Self {
            major,
            minor,
            micro,
            ref package,
        } = *self;
        let mut version = serializer.serialize_struct("Version", 2)?;
        version.serialize_field(
            "qemu",
            &Triple {
                micro,
                minor,
                major,
            },
        )?;
        version.serialize_field("package", package)?;
        version.end()
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Greeting {
    /// The greeting of a server that is this QEMU and offers these capabilities.
    pub fn new(version: Version, capabilities: impl Into<Vec<Capability>>) -> Self {
        Self {
            version,
            capabilities: capabilities.into(),
        }
    }

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

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

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
