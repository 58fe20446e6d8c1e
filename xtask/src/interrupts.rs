//! Ctrl-C, SIGTERM and a closed terminal, for the verbs that have processes to end first.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to end, from now on. One that comes between two waits is not lost.
pub(crate) struct Interrupts {
    signals: [(SignalKind, Signal); 3],
}

impl Interrupts {
    pub(crate) fn listen() -> std::io::Result<Self> {
        let listen = |kind| Ok::<_, std::io::Error>((kind, signal(kind)?));
        let signals = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        Ok(Self { signals })
    }

    /// Waits for one; the exit status is what a shell reports of a program that it ended.
    pub(crate) async fn next(&mut self) -> u8 {
        let [first, second, third] = &mut self.signals;
        let kind = tokio::select! {
            _ = first.1.recv() => first.0,
            _ = second.1.recv() => second.0,
            _ = third.1.recv() => third.0,
        };
        // Signal numbers are below 128.
        128 + kind.as_raw_value() as u8
    }

    /// One that has come already.
    pub(crate) async fn pending(&mut self) -> Option<u8> {
        // Signals reach their streams when the runtime gets its turn.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            status = self.next() => Some(status),
            () = std::future::ready(()) => None,
        }
    }
}
