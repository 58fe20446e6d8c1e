//! What a run has told so far by events and commands, kept for the verdict on it.

use qmp_proto::Command as _;
use qmp_proto::commands::{Quit, ShutdownEvent, SystemReset, TypedEvent};

/// Kept from the first event on: the verdict may be asked for when all is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The last SHUTDOWN.
    pub(crate) shutdown: Option<ShutdownEvent>,
    /// How often the guest reset itself.
    pub(crate) guest_resets: u64,
    /// This session sent a command that can end QEMU.
    pub(crate) asked_to_end: bool,
}

impl History {
    pub(crate) fn note(&mut self, event: &TypedEvent) {
        match event {
            TypedEvent::Shutdown(shutdown) => self.shutdown = Some(shutdown.clone()),
            TypedEvent::Reset(reset) if reset.guest => self.guest_resets += 1,
            _ => {}
        }
    }

    /// A command that was sent. A reset ends a QEMU that may not reboot.
    pub(crate) fn sent(&mut self, command: &str) {
        self.asked_to_end |= command == Quit::NAME || command == SystemReset::NAME;
    }
}
