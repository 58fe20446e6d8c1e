//! Every error this crate returns: who is at fault, where, and what to do.

#[cfg(feature = "tokio")]
use std::{path::PathBuf, time::Duration};

/// An endpoint's text that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither an address with a port nor a socket's path.
    #[error("'{0}' is no endpoint: write ADDRESS:PORT, [V6ADDRESS]:PORT, or unix:PATH")]
    Malformed(String),
    /// A host's name instead of a numeric address; this crate asks no name server.
    #[error("'{0}' names a host: write its numeric address, for example 127.0.0.1:1234")]
    HostName(String),
    /// Port 0 means 'any free port' and cannot be connected to.
    #[error("port 0 in '{0}' is a request for any port: write the port the stub really got")]
    PortZero(String),
}

/// Why waiting for a listener ended without one. The guest was not touched.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed; `last` is what the last look saw.
    #[error("no GDB stub listens on {endpoint} after {waited:?}: the last look saw {last}")]
    Deadline {
        /// Where a listener was awaited.
        endpoint: String,
        /// How long the wait took.
        waited: Duration,
        /// What the last look saw, in words.
        last: String,
    },
    /// The process that was to listen is gone.
    #[error("the process that was to listen on {endpoint} is gone: see its exit status and stderr")]
    ProcessGone {
        /// Where a listener was awaited.
        endpoint: String,
    },
    /// The kernel's tables do not show this endpoint; waiting longer would not help.
    #[error(
        "whether anybody listens on {endpoint} cannot be seen from here: {reason}; ask the monitor (query-chardev)"
    )]
    CannotSee {
        /// Where a listener was awaited.
        endpoint: String,
        /// Why it cannot be seen.
        reason: crate::Blind,
    },
}

/// A failure of this machine's own while a probe connected: not an answer about the stub.
#[cfg(feature = "tokio")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The system refused the connection for a reason that says nothing about the stub.
    #[error("could not connect to {endpoint}")]
    Connect {
        /// What was connected to.
        endpoint: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// This platform has no unix sockets here.
    #[error("unix sockets cannot be used on this platform: {}", path.display())]
    UnixSocketsUnsupported {
        /// The socket's path.
        path: PathBuf,
    },
}
