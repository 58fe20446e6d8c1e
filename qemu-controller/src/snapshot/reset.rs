//! A machine that was shut down and stays: QEMU lets it run again only after a reset.

use std::time::Duration;

use qmp_proto::Command;
use qmp_proto::commands::{QueryStatus, RunState, SystemReset, TypedEvent};
use serde::Serialize;
use tokio::time::timeout;

use crate::client::events::Events;
use crate::client::transaction::Transaction;
use crate::error::{CommandError, WaitPhase};

/// The event tells at once; this is for one that was missed.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// `set-action`: what a reset that is asked for does.
#[derive(Serialize)]
struct SetAction {
    reboot: &'static str,
}

impl Command for SetAction {
    const NAME: &'static str = "set-action";
    type Return = qmp_proto::Empty;
}

/// Resets a machine that is in a state which QEMU leaves by a reset alone: what is loaded into it
/// could never run.
pub(super) async fn revive(operation: &Transaction, state: &RunState) -> Result<(), CommandError> {
    if !needs_reset(state) || reset(operation).await? {
        return Ok(());
    }
    // `-action reboot=shutdown` made another shutdown of it.
    operation.command(&SetAction { reboot: "reset" }).await?;
    let reset = reset(operation).await;
    operation.command(&SetAction { reboot: "shutdown" }).await?;
    if reset? {
        return Ok(());
    }
    let (command, deadline) = (SystemReset::NAME.to_owned(), LOOK_AFTER);
    Err(CommandError::Deadline {
        command,
        deadline,
        phase: WaitPhase::Effect,
    })
}

fn needs_reset(state: &RunState) -> bool {
    matches!(state, RunState::Shutdown | RunState::InternalError)
}

/// Whether the machine was reset, and not shut down once more.
async fn reset(operation: &Transaction) -> Result<bool, CommandError> {
    let mut events = operation.events();
    operation.command(&SystemReset).await?;
    match timeout(LOOK_AFTER, outcome(&mut events)).await {
        Ok(Some(reset)) => Ok(reset),
        // Missed, late, or the session has ended: then this says how.
        Ok(None) | Err(_) => Ok(!needs_reset(&operation.command(&QueryStatus).await?.status)),
    }
}

async fn outcome(events: &mut Events) -> Option<bool> {
    while let Some(event) = events.next().await {
        match event.ok().as_ref().map(|event| event.typed()) {
            Some(Ok(TypedEvent::Reset(_))) => return Some(true),
            Some(Ok(TypedEvent::Shutdown(_))) => return Some(false),
            _ => {}
        }
    }
    None
}
