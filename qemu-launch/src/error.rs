//! Why no process was started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use crate::argv::command_line::Argv;
use crate::discover::FindError;
use crate::firmware::FirmwareError;

/// The description contradicts itself, or has something in it that can't be passed to QEMU
/// unharmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A value that QEMU would refuse or misread: give another.
    #[error("{message}")]
    Invalid {
        /// What the value was for, such as `machine` or `extra argument`.
        what: &'static str,
        /// The value, and what is wrong with it.
        message: String,
    },
    /// Two settings that can't both hold: leave one out.
    #[error("{message}")]
    Conflict {
        /// Both settings.
        message: String,
    },
    /// An extra argument that sets again what a typed setting has set: leave one out.
    #[error("the extra argument {option:?} sets {part} again, which {first:?} has set")]
    SetAgain {
        /// The option.
        option: OsString,
        /// What of the machine it sets.
        part: &'static str,
        /// The option that has set it.
        first: OsString,
    },
    /// An extra argument that is never passed on.
    #[error("the extra argument {option:?} is refused: {why}")]
    Refused {
        /// The option.
        option: OsString,
        /// Why.
        why: &'static str,
    },
    /// There is something at the path of a socket, and QEMU would remove it.
    #[error("there is something at the socket path {} already, and QEMU would remove it", path.display())]
    SocketPathTaken {
        /// The path.
        path: PathBuf,
    },
}

impl SpecError {
    /// `problem` begins with the value: the message is `the WHAT "VALUE" …`.
    pub(crate) fn invalid(what: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Invalid {
            what,
            message: format!("the {what} {problem}"),
        }
    }

    pub(crate) fn bad_name(what: &'static str, text: &str) -> Self {
        Self::invalid(
            what,
            format!("{text:?} is no name: letters, digits and - _ . only, a letter or digit first"),
        )
    }

    pub(crate) fn set_twice(what: &str, key: &str, first: &OsStr, second: &OsStr) -> Self {
        Self::Conflict {
            message: format!("the {what} {key} is set twice, to {first:?} and to {second:?}"),
        }
    }

    /// An endpoint that this system does not have.
    pub(crate) fn unsupported(id: &str, endpoint: &'static str) -> Self {
        Self::Invalid {
            what: "endpoint",
            message: format!(
                "{id} can't be reached by {endpoint} on this system; use a loopback port"
            ),
        }
    }

    /// Two that would use one id, port, socket or file.
    pub(crate) fn shared(what: impl std::fmt::Display, first: &str, second: &str) -> Self {
        Self::Conflict {
            message: format!("{first} and {second} would share {what}"),
        }
    }
}

/// No process was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The description is at fault.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A firmware file can't be read, or is not what this machine can run.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// QEMU was not found, or what was found can't be run.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The system refused something that a start needs.
    #[error("could not {what} for QEMU")]
    System {
        /// What was refused.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("could not start {argv}")]
    Exec {
        /// The command line.
        argv: Box<Argv>,
        /// Why.
        source: io::Error,
    },
}
