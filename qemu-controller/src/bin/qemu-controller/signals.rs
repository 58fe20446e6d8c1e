//! Ctrl-C, SIGTERM and a closed terminal: the run is ended first, and then we end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to end, from now on. One that comes between two waits is not lost.
pub(crate) struct Signals([(SignalKind, Signal); 3]);

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        let listen = |kind| Ok::<_, std::io::Error>((kind, signal(kind)?));
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one, and tells its number.
    pub(crate) async fn next(&mut self) -> u8 {
        let [first, second, third] = &mut self.0;
        let kind = tokio::select! {
            _ = first.1.recv() => first.0,
            _ = second.1.recv() => second.0,
            _ = third.1.recv() => third.0,
        };
        // Signal numbers are below 128.
        kind.as_raw_value() as u8
    }
}
