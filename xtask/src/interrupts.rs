//! Ctrl-C, SIGTERM and a closed terminal, for the verbs that have processes to end first.

// The program's own: there is one right way to listen.
#[path = "../../cli/src/signals.rs"]
mod signals;

use self::signals::Signals;

/// The signals that ask a program to end, from now on.
pub(crate) struct Interrupts(Signals);

impl Interrupts {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Signals::listen().map(Self)
    }

    /// Waits for one, and returns the exit status that a shell reports of a program ended by it.
    pub(crate) async fn next(&mut self) -> u8 {
        128 + self.0.next().await
    }
}
