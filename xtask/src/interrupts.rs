//! Ctrl-C, SIGTERM and a closed terminal, for the verbs that have processes to end first.

// As the program has them: there is one right way to listen.
#[path = "../../cli/src/signals.rs"]
mod signals;

use self::signals::Signals;

/// The signals that ask a program to end, from now on.
pub(crate) struct Interrupts(Signals);

impl Interrupts {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Signals::listen().map(Self)
    }

    /// Waits for one; the exit status is what a shell reports of a program that it ended.
    pub(crate) async fn next(&mut self) -> u8 {
        128 + self.0.next().await
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
