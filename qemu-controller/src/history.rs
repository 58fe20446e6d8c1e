//! What a run has told so far by events and commands, kept for the verdict on it.

use qmp_proto::Command as _;
use qmp_proto::commands::{Quit, ShutdownEvent, SystemReset, TypedEvent};

/// Kept from the first event on: the verdict may be asked for when all is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The SHUTDOWN that the guest has not come back from.
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
            // A machine that stayed was brought back by a reset or a snapshot: its next end is another one.
            TypedEvent::Resume => self.shutdown = None,
            TypedEvent::Reset(reset) if reset.guest => self.guest_resets += 1,
            _ => {}
        }
    }

    /// A command that was sent. A reset ends a QEMU that may not reboot.
    pub(crate) fn sent(&mut self, command: &str) {
        self.asked_to_end |= command == Quit::NAME || command == SystemReset::NAME;
    }
}

#[cfg(test)]
mod tests {
    use qmp_proto::commands::ShutdownCause;
    use qmp_proto::{QmpEvent, RawJson};
    use serde_json::{Value, json};

    use super::*;

    fn note(history: &mut History, name: &str, data: Value) {
        let event = QmpEvent::new(name.to_owned(), Some(RawJson::from_value(&data).unwrap()));
        history.note(&event.typed().unwrap());
    }

    #[test]
    fn a_shutdown_counts_until_the_machine_runs_again() {
        let mut history = History::default();
        note(&mut history, "SHUTDOWN", json!({ "guest": true, "reason": "guest-reset" }));
        note(&mut history, "STOP", json!({}));
        assert_eq!(history.shutdown.as_ref().unwrap().reason, ShutdownCause::GuestReset);
        note(&mut history, "RESUME", json!({}));
        assert!(history.shutdown.is_none());
    }
}
