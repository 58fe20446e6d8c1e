//! One command on its way: its place in the queue, its deadline, and what happens when its future is dropped.

use std::cell::Cell;
use std::time::Duration;

use qmp_proto::{Command, CommandId, Connection, Phase, RawReturn, SendError};
use tokio::time::timeout;
use tracing::trace;

use crate::driver::{Lane, Shared};
use crate::error::{CommandError, WaitPhase};

/// Sends one command and waits for its answer; all of a session's commands go this way.
///
/// May be dropped at any point: a command that was not sent yet is never sent, one that was is abandoned.
pub(crate) async fn call(
    shared: &Shared,
    command: &str,
    lane: Lane,
    deadline: Duration,
    encode: impl FnOnce(&mut Connection) -> Result<CommandId, SendError>,
) -> Result<RawReturn, CommandError> {
    let phase = Cell::new(WaitPhase::Queued);
    let answered = timeout(deadline, async {
        let place = shared.place(lane).await.ok_or(Fault::Ended)?;
        let (id, answer) = shared.submit(place, encode).map_err(|error| match error {
            // The stream is over and the exit status not known yet.
            SendError::WrongPhase {
                phase: Phase::Closed | Phase::Failed,
            } => Fault::Ended,
            error => Fault::Send(error),
        })?;
        phase.set(WaitPhase::Sent);
        trace!(command, %id, "sent");
        let in_flight = InFlight { shared, id };
        let answer = answer.await.map_err(|_| Fault::Ended)?;
        std::mem::forget(in_flight);
        trace!(command, %id, ok = answer.is_ok(), "answered");
        Ok(answer)
    });
    let command = || command.to_owned();
    match answered.await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(CommandError::Refused {
            command: command(),
            error,
        }),
        Ok(Err(Fault::Send(source))) => Err(CommandError::Invalid {
            command: command(),
            source,
        }),
        Ok(Err(Fault::Ended)) => Err(CommandError::Ended {
            command: command(),
            ended: shared.end().await,
        }),
        Err(_) => Err(CommandError::Deadline {
            command: command(),
            deadline,
            phase: phase.get(),
        }),
    }
}

/// Runs a typed in-band command.
pub(crate) async fn command<C: Command>(
    shared: &Shared,
    deadline: Duration,
    command: &C,
) -> Result<C::Return, CommandError> {
    let value = call(shared, C::NAME, Lane::InBand, deadline, |connection| {
        connection.execute(command)
    })
    .await?;
    value.parse().map_err(|source| CommandError::Return {
        command: C::NAME.to_owned(),
        source,
    })
}

/// Why a call found no answer.
enum Fault {
    Send(SendError),
    Ended,
}

/// Gives the command up when its future is dropped before the answer came.
struct InFlight<'a> {
    shared: &'a Shared,
    id: CommandId,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.shared.abandon(self.id);
    }
}
