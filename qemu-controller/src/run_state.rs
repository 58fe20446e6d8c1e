//! What each event says of the guest's run state, so that it is known without asking.

use qmp_proto::commands::{RunState, TypedEvent};

/// The run state after an event; `None` where the event says nothing of it.
///
/// An event tells less than `query-status`: STOP does not say why. What did, came just before it (SHUTDOWN,
/// WATCHDOG, GUEST_PANICKED, BLOCK_IO_ERROR), or it was a monitor or a debugger, and then it is shown as
/// `paused`.
pub(crate) fn after(current: &RunState, event: TypedEvent) -> Option<RunState> {
    Some(match event {
        TypedEvent::Stop if *current == RunState::Running => RunState::Paused,
        TypedEvent::Resume | TypedEvent::Wakeup => RunState::Running,
        // A machine that stands still waits at its reset vector then.
        TypedEvent::Reset(_) if *current != RunState::Running => RunState::Prelaunch,
        TypedEvent::Shutdown(_) => RunState::Shutdown,
        TypedEvent::Suspend => RunState::Suspended,
        TypedEvent::Watchdog(watchdog) if watchdog.action == "pause" => RunState::Watchdog,
        TypedEvent::GuestPanicked(panicked) if panicked.action == "pause" => RunState::GuestPanicked,
        TypedEvent::BlockIoError(error) if error.action == "stop" => RunState::IoError,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use qmp_proto::{Codec, Limits, ServerMessage};

    use super::*;

    /// Reads the events as a session would, and tells the state after each.
    fn check(start: RunState, events: &[(&str, &str, RunState)]) {
        let mut state = start;
        for (name, data, expected) in events {
            let mut codec = Codec::new(Limits::default());
            codec.feed(format!(r#"{{"event": "{name}", "data": {data}}}"#).as_bytes());
            let Some(ServerMessage::Event(event)) = codec.next_message().unwrap() else { panic!("{name}") };
            if let Some(next) = after(&state, event.typed().unwrap()) {
                state = next;
            }
            assert_eq!(state, *expected, "after {name}");
        }
    }

    #[test]
    fn events_move_the_run_state() {
        use RunState::{GuestPanicked, Paused, Prelaunch, Running, Shutdown, Watchdog};
        let reset = r#"{"guest": false, "reason": "host-qmp-system-reset"}"#;
        check(Prelaunch, &[("RESUME", "{}", Running), ("STOP", "{}", Paused), ("RESUME", "{}", Running)]);
        check(Running, &[("RESET", reset, Running), ("STOP", "{}", Paused), ("RESET", reset, Prelaunch)]);
        check(
            Running,
            &[("POWERDOWN", "{}", Running), ("SHUTDOWN", reset, Shutdown), ("STOP", "{}", Shutdown)],
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
            &[("GUEST_PANICKED", r#"{"action": "pause"}"#, GuestPanicked), ("STOP", "{}", GuestPanicked)],
        );
        check(
            Paused,
            &[
                ("JOB_STATUS_CHANGE", r#"{"id": "x", "status": "running"}"#, Paused),
                ("UNHEARD_OF", "{}", Paused),
            ],
        );
    }
}
