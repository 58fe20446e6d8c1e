//! What events and commands have shown of a run so far, kept for the verdict on it.

use qmp_proto::Command as _;
use qmp_proto::commands::{Quit, ShutdownCause, ShutdownEvent, SystemReset, TypedEvent};

/// Kept from the first event on: the verdict may be asked for when all is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The SHUTDOWN that the guest has not come back from.
    pub(crate) shutdown: Option<ShutdownEvent>,
    /// Its watchdog has expired since it last came back.
    pub(crate) watchdog: bool,
    /// How often the guest reset itself.
    pub(crate) guest_resets: u64,
    /// This session sent `quit` …
    quit: bool,
    /// … or a reset that did not become one yet: it ends a QEMU that may not reboot.
    reset: bool,
}

impl History {
    pub(crate) fn note(&mut self, event: &TypedEvent) {
        match event {
            TypedEvent::Shutdown(shutdown) => self.shutdown = Some(shutdown.clone()),
            // A machine that stayed was brought back by a reset or a snapshot: its next end is
            // another one.
            TypedEvent::Resume => (self.shutdown, self.watchdog) = (None, false),
            TypedEvent::Watchdog(_) => self.watchdog = true,
            TypedEvent::Reset(reset) => {
                (self.shutdown, self.watchdog) = (None, false);
                self.guest_resets += u64::from(reset.guest);
                self.reset &= reset.reason != ShutdownCause::HostQmpSystemReset;
            }
            _ => {}
        }
    }

    /// A command that was sent.
    pub(crate) fn sent(&mut self, command: &str) {
        self.quit |= command == Quit::NAME;
        self.reset |= command == SystemReset::NAME;
    }

    /// This session sent a command that may be what ended QEMU.
    pub(crate) fn asked_to_end(&self) -> bool {
        self.quit || self.reset
    }
}

#[cfg(test)]
mod tests {
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
        note(
            &mut history,
            "SHUTDOWN",
            json!({ "guest": true, "reason": "guest-reset" }),
        );
        note(&mut history, "STOP", json!({}));
        assert_eq!(
            history.shutdown.as_ref().unwrap().reason,
            ShutdownCause::GuestReset
        );
        note(&mut history, "RESUME", json!({}));
        assert!(history.shutdown.is_none());
    }

    #[test]
    fn a_watchdog_counts_until_the_machine_runs_again() {
        let reset = json!({ "guest": true, "reason": "guest-reset" });
        for (event, data, expected) in [
            ("SHUTDOWN", reset.clone(), true),
            ("RESET", reset, false),
            ("RESUME", json!({}), false),
        ] {
            let mut history = History::default();
            note(&mut history, "WATCHDOG", json!({ "action": "reset" }));
            note(&mut history, event, data);
            assert_eq!(history.watchdog, expected, "{event}");
        }
    }

    #[test]
    fn a_reset_that_was_one_has_not_ended_it() {
        let mut history = History::default();
        history.sent("system_reset");
        note(
            &mut history,
            "RESET",
            json!({ "guest": true, "reason": "guest-reset" }),
        );
        assert!(history.asked_to_end());
        note(
            &mut history,
            "SHUTDOWN",
            json!({ "guest": false, "reason": "host-qmp-system-reset" }),
        );
        note(
            &mut history,
            "RESET",
            json!({ "guest": false, "reason": "host-qmp-system-reset" }),
        );
        assert!(!history.asked_to_end() && history.shutdown.is_none());
        history.sent("quit");
        assert!(history.asked_to_end());
    }
}
