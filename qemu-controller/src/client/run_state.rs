//! What each event says of the guest's run state, so that it is known without asking.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use qmp_proto::commands::{RunState, TypedEvent};

/// Who asked for which run state. A debugger looks here whether anybody but itself has changed it.
#[derive(Debug, Default)]
pub(crate) struct RunRequests {
    /// How often the turn to change it was taken, or waited for until a deadline.
    pub(crate) turns: AtomicU64,
    /// The last command of a user: 0 for none since the debugger asked, or one of the others.
    pub(crate) last: AtomicU8,
    /// Whether there is a debugger.
    #[cfg(feature = "debugger")]
    pub(crate) debugger: tokio::sync::watch::Sender<DebuggerPlace>,
    /// A real debugger was let in, who can end QEMU.
    #[cfg(feature = "debugger")]
    pub(crate) handed_over: std::sync::atomic::AtomicBool,
}

/// A session has one debugger at a time.
#[cfg(feature = "debugger")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DebuggerPlace {
    /// There is none.
    #[default]
    Free,
    /// There is one.
    Open,
    /// It was dropped, and its stub is being taken away.
    Closing,
}

impl RunRequests {
    /// The user's last command stopped the guest.
    pub(crate) const STOP: u8 = 1;
    /// The user's last command let the guest run.
    pub(crate) const CONT: u8 = 2;

    pub(crate) fn handed_over(&self) -> bool {
        #[cfg(feature = "debugger")]
        return self.handed_over.load(Ordering::Relaxed);
        #[cfg(not(feature = "debugger"))]
        false
    }

    /// Notes a command that changes the run state.
    pub(crate) fn note(&self, command: &str) {
        let last = match command {
            "stop" | "s" => Self::STOP,
            "cont" | "c" => Self::CONT,
            _ => return,
        };
        self.last.store(last, Ordering::Relaxed);
    }
}

/// The run state as it is known, from events and from answers to `query-status`.
#[derive(Debug)]
pub(crate) struct RunStateTracker {
    pub(crate) now: RunState,
    /// Why the guest is about to stop. An answer may come in between that calls it running still:
    /// the processor that meets the reason only asks the main loop to stop it.
    reason: Option<RunState>,
}

impl RunStateTracker {
    pub(crate) fn new(now: RunState) -> Self {
        Self { now, reason: None }
    }

    pub(crate) fn observe(&mut self, event: TypedEvent) {
        let stops = matches!(event, TypedEvent::Stop);
        let reason = match event {
            TypedEvent::Stop | TypedEvent::Resume | TypedEvent::Reset(_) => self.reason.take(),
            _ => None,
        };
        let Some(now) = after(&self.now, event) else {
            return;
        };
        self.now = reason.filter(|_| stops).unwrap_or(now);
        let is_reason = matches!(
            self.now,
            RunState::Shutdown | RunState::Watchdog | RunState::GuestPanicked | RunState::IoError
        );
        if is_reason && !stops {
            self.reason = Some(self.now.clone());
        }
    }
}

/// The run state after an event; `None` where the event says nothing of it.
///
/// An event tells less than `query-status`: STOP does not say why. What did, came just before it
/// (SHUTDOWN, WATCHDOG, GUEST_PANICKED, BLOCK_IO_ERROR), or it was a monitor or a debugger, and
/// then it is shown as `paused`.
fn after(current: &RunState, event: TypedEvent) -> Option<RunState> {
    Some(match event {
        TypedEvent::Stop if *current == RunState::Running => RunState::Paused,
        TypedEvent::Resume | TypedEvent::Wakeup => RunState::Running,
        // A machine that is stopped waits at its reset vector then.
        TypedEvent::Reset(_) if *current != RunState::Running => RunState::Prelaunch,
        TypedEvent::Shutdown(_) => RunState::Shutdown,
        TypedEvent::Suspend => RunState::Suspended,
        TypedEvent::Watchdog(watchdog) if watchdog.action == "pause" => RunState::Watchdog,
        TypedEvent::GuestPanicked(panicked) if panicked.action == "pause" => {
            RunState::GuestPanicked
        }
        TypedEvent::BlockIoError(error) if error.action == "stop" => RunState::IoError,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use qmp_proto::{Codec, Limits, ServerMessage};

    use super::*;

    /// Takes the place of an event: an answer to `query-status` comes, with this state.
    const ANSWER: &str = "an answer";

    /// Reads the events as a session would, and tells the state after each.
    fn check(start: RunState, events: &[(&str, &str, RunState)]) {
        let mut state = RunStateTracker::new(start);
        for (name, data, expected) in events {
            if *name == ANSWER {
                state.now = expected.clone();
                continue;
            }
            let mut codec = Codec::new(Limits::default());
            codec.feed(format!(r#"{{"event": "{name}", "data": {data}}}"#).as_bytes());
            let Some(ServerMessage::Event(event)) = codec.next_message().unwrap() else {
                panic!("{name}")
            };
            state.observe(event.typed().unwrap());
            assert_eq!(state.now, *expected, "after {name}");
        }
    }

    #[test]
    fn events_move_the_run_state() {
        use RunState::{GuestPanicked, Paused, Prelaunch, Running, Shutdown, Watchdog};
        let reset = r#"{"guest": false, "reason": "host-qmp-system-reset"}"#;
        check(
            Prelaunch,
            &[
                ("RESUME", "{}", Running),
                ("STOP", "{}", Paused),
                ("RESUME", "{}", Running),
            ],
        );
        check(
            Running,
            &[
                ("RESET", reset, Running),
                ("STOP", "{}", Paused),
                ("RESET", reset, Prelaunch),
            ],
        );
        check(
            Running,
            &[
                ("POWERDOWN", "{}", Running),
                ("SHUTDOWN", reset, Shutdown),
                ("STOP", "{}", Shutdown),
            ],
        );
        check(
            Running,
            &[
                ("WATCHDOG", r#"{"action": "reset"}"#, Running),
                ("WATCHDOG", r#"{"action": "pause"}"#, Watchdog),
            ],
        );
        check(
            Running,
            &[
                ("GUEST_PANICKED", r#"{"action": "pause"}"#, GuestPanicked),
                ("STOP", "{}", GuestPanicked),
            ],
        );
        let panicked = ("GUEST_PANICKED", r#"{"action": "pause"}"#, GuestPanicked);
        check(
            Running,
            &[
                panicked.clone(),
                (ANSWER, "", Running),
                ("STOP", "{}", GuestPanicked),
                ("RESUME", "{}", Running),
            ],
        );
        check(
            Running,
            &[
                panicked.clone(),
                ("STOP", "{}", GuestPanicked),
                (ANSWER, "", Running),
                ("STOP", "{}", Paused),
            ],
        );
        check(
            Running,
            &[
                panicked,
                (ANSWER, "", Running),
                ("RESET", reset, Running),
                ("STOP", "{}", Paused),
            ],
        );
        check(
            Paused,
            &[
                (
                    "JOB_STATUS_CHANGE",
                    r#"{"id": "x", "status": "running"}"#,
                    Paused,
                ),
                ("UNHEARD_OF", "{}", Paused),
            ],
        );
    }
}
