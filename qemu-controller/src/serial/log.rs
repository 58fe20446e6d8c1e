//! A port's bytes into a file or a writer as well, from the first one on.

use std::io::{self, Write};

use tracing::warn;

use crate::client::log_sink::LogSink;

/// Which of the guest's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortName {
    Serial(usize),
    Semihosting,
    #[cfg(feature = "rtt")]
    Rtt(u32),
}

impl std::fmt::Display for PortName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(port) => write!(f, "serial port {port}"),
            Self::Semihosting => f.write_str("the semihosting console"),
            #[cfg(feature = "rtt")]
            Self::Rtt(channel) => write!(f, "RTT channel {channel}"),
        }
    }
}

/// Writes down what comes. Stops at the first write that fails: the port is worth more than its
/// log.
pub(crate) struct Log(Option<Box<dyn Write + Send>>);

impl Log {
    /// At once, so that the log is whole when the program ends.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let Some(writer) = &mut self.0 else { return };
        if let Err(error) = writer.write_all(bytes).and_then(|()| writer.flush()) {
            warn!(%error, "a port's log cannot be written and stops here");
            self.0 = None;
        }
    }
}

/// The logs that a session was asked for, and not given to their ports yet.
#[derive(Default)]
pub(crate) struct Logs(Vec<(PortName, Log)>);

impl Logs {
    pub(crate) fn open(wanted: &[(PortName, LogSink)]) -> io::Result<Self> {
        let open = |(port, sink): &(PortName, LogSink)| Ok((*port, Log(Some(sink.open()?))));
        wanted.iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    pub(crate) fn take(&mut self, port: PortName) -> Option<Log> {
        let at = self.0.iter().position(|(known, _)| *known == port)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A port that there is not, or that was named twice.
    pub(crate) fn left(&self) -> Option<PortName> {
        self.0.first().map(|(port, _)| *port)
    }
}
