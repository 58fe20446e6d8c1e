//! One command on its way: its slot in the queue, its deadline, and what happens when its future
//! is dropped.

use std::time::Duration;

use qmp_proto::{Command, CommandId, Connection, Phase, RawReturn, SendError};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span, debug, debug_span, field};

use crate::client::{Answer, Band, Shared};
use crate::error::{CommandError, WaitPhase};

/// Stands for 'no deadline': `Instant::now()` plus this cannot overflow.
pub(crate) const A_YEAR: Duration = Duration::from_secs(365 * 86_400);

/// How long a caller whose time is up waits for the exit status of a QEMU that has closed its
/// monitor.
pub(crate) const EXIT_STATUS_GRACE: Duration = Duration::from_millis(500);

/// Sends one command and waits for its answer; all of a session's commands go this way.
///
/// May be dropped at any point: a command that was not sent yet is never sent, one that was is
/// abandoned.
pub(crate) async fn call(
    shared: &Shared,
    command: &str,
    band: Band,
    deadline: impl Into<Deadline>,
    encode: impl FnOnce(&mut Connection) -> Result<CommandId, SendError>,
) -> Result<RawReturn, CommandError> {
    let since = Instant::now();
    let Deadline {
        set: deadline,
        at: until,
    } = deadline.into();
    let span = debug_span!(parent: &shared.span, "command", name = command, id = field::Empty);
    let fail = |fault| async move {
        let command = command.to_owned();
        match fault {
            Fault::Deadline(phase) => CommandError::Deadline {
                command,
                deadline,
                phase,
            },
            Fault::Ended => {
                match timeout_at(until.max(Instant::now() + EXIT_STATUS_GRACE), shared.end()).await
                {
                    Ok(ended) => CommandError::Ended { command, ended },
                    // Its stream is over, and its process takes its time to exit.
                    Err(_) => CommandError::Deadline {
                        command,
                        deadline,
                        phase: WaitPhase::MonitorClosed,
                    },
                }
            }
            Fault::Send(error) => CommandError::Invalid { command, error },
        }
    };
    let answered = answer(shared, command, band, until, &span, encode)
        .instrument(span.clone())
        .await;
    match &answered {
        Ok(answer) => {
            debug!(parent: &span, ok = answer.is_ok(), took = ?since.elapsed(), "answered")
        }
        Err(_) => debug!(parent: &span, took = ?since.elapsed(), "not answered"),
    }
    match answered {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CommandError::Refused {
            command: command.to_owned(),
            error,
        }),
        Err(fault) => Err(fail(fault).await),
    }
}

async fn answer(
    shared: &Shared,
    command: &str,
    band: Band,
    until: Instant,
    span: &Span,
    encode: impl FnOnce(&mut Connection) -> Result<CommandId, SendError>,
) -> Result<Answer, Fault> {
    let queued = |_| Fault::Deadline(WaitPhase::Queued.at_deadline(until));
    let ended = Fault::Ended;
    let slot = timeout_at(until, shared.slot(band))
        .await
        .map_err(queued)?
        .ok_or(ended)?;
    let refused = |error| {
        if is_over(&error) {
            Fault::Ended
        } else {
            Fault::Send(error)
        }
    };
    let (id, mut answer) = shared.submit(slot, command, encode).map_err(refused)?;
    span.record("id", field::display(id));
    debug!("sent");
    let in_flight = InFlight { shared, id };
    let answer = match timeout_at(until, &mut answer).await {
        Ok(answer) => answer.map_err(|_| Fault::Ended)?,
        Err(_) => {
            let is_over = shared.poll_once();
            let none = |_| {
                if is_over {
                    Fault::Ended
                } else {
                    Fault::Deadline(WaitPhase::Sent.at_deadline(until))
                }
            };
            answer.try_recv().map_err(none)?
        }
    };
    std::mem::forget(in_flight);
    Ok(answer)
}

/// Nothing can be sent, as the stream is over; the exit status may not be known yet.
pub(crate) fn is_over(error: &SendError) -> bool {
    matches!(
        error,
        SendError::WrongPhase {
            phase: Phase::Closed | Phase::Failed
        }
    )
}

/// When a call has to be done.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    /// As it was set, for the error.
    pub(crate) set: Duration,
    pub(crate) at: Instant,
}

impl From<Duration> for Deadline {
    /// From now on.
    fn from(set: Duration) -> Self {
        Self {
            set,
            at: instant_after(set),
        }
    }
}

/// So long from now, and a year at the most: beyond that an instant may not exist.
pub(crate) fn instant_after(deadline: Duration) -> Instant {
    Instant::now() + deadline.min(A_YEAR)
}

/// Runs a typed in-band command.
pub(crate) async fn command<C: Command>(
    shared: &Shared,
    deadline: impl Into<Deadline>,
    command: &C,
) -> Result<C::Return, CommandError> {
    let value = call(shared, C::NAME, Band::In, deadline, |connection| {
        connection.command(command)
    })
    .await?;
    value.parse().map_err(|error| CommandError::Return {
        command: C::NAME.to_owned(),
        error,
    })
}

/// Why a call found no answer.
enum Fault {
    Deadline(WaitPhase),
    Send(SendError),
    /// The session is over.
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
