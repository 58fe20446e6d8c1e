//! Resetting a machine that was shut down and whose QEMU stays: `cont` is refused until then.

use std::time::Duration;

use qmp_proto::Command;
use qmp_proto::commands::{QueryStatus, RunState, SystemReset, TypedEvent};
use serde::Serialize;
use tokio::time::timeout;

use crate::client::events::Events;
use crate::client::transaction::Transaction;
use crate::error::{CommandError, WaitPhase};

/// The event comes at once; after this QEMU is asked, as the event may have been missed.
const QUERY_AFTER: Duration = Duration::from_secs(2);

/// `set-action`: what a reset that is asked for does.
#[derive(Serialize)]
struct SetAction {
    reboot: &'static str,
}

impl Command for SetAction {
    const NAME: &'static str = "set-action";
    type Return = qmp_proto::Empty;
}

/// Resets a machine in a run state that only a reset leaves: what is loaded into it could never
/// run.
pub(super) async fn reset_if_shut_down(
    transaction: &Transaction,
    state: &RunState,
) -> Result<(), CommandError> {
    if !needs_reset(state) || reset(transaction).await? {
        return Ok(());
    }
    // `-action reboot=shutdown` made it another shutdown.
    transaction.command(&SetAction { reboot: "reset" }).await?;
    let reset = reset(transaction).await;
    transaction
        .command(&SetAction { reboot: "shutdown" })
        .await?;
    if reset? {
        return Ok(());
    }
    let (command, deadline) = (SystemReset::NAME.to_owned(), QUERY_AFTER);
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
async fn reset(transaction: &Transaction) -> Result<bool, CommandError> {
    let mut events = transaction.events();
    transaction.command(&SystemReset).await?;
    match timeout(QUERY_AFTER, outcome(&mut events)).await {
        Ok(Some(reset)) => Ok(reset),
        // Missed, late, or the session has ended: then the query's error says how.
        Ok(None) | Err(_) => Ok(!needs_reset(
            &transaction.command(&QueryStatus).await?.status,
        )),
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
