//! From words to a process: what QEMU inherits and what it does not. The crate's only unsafe code
//! is below here.

use std::io::{self, PipeReader};

use crate::process::child::Child;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod clone;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod command;
#[cfg(unix)]
mod confine;
#[cfg(unix)]
mod inherited;
#[cfg(not(unix))]
mod uninherited;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use clone::start;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use command::start;
#[cfg(unix)]
pub(crate) use inherited::{Descriptor, Inherited, Stream, duplicate};
#[cfg(not(unix))]
pub(crate) use uninherited::{Descriptor, Inherited, Stream, duplicate};

/// What becomes the process's standard streams. Without a stdin it is `/dev/null`, without a stdout
/// a pipe that is drained here.
pub(crate) struct Standard {
    pub(crate) stdin: Option<Descriptor>,
    pub(crate) stdout: Option<Descriptor>,
}

/// A process that has just been started, and this program's ends of its output.
pub(crate) struct Started {
    pub(crate) child: Child,
    /// `None` where the caller has it.
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) stderr: PipeReader,
}

/// No process was started.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system refused something on the way there.
    System {
        what: &'static str,
        source: io::Error,
    },
    /// It refused to execute the program.
    Exec(io::Error),
}

impl Failure {
    fn to<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}
