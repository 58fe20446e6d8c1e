//! The probe and the wait for a listener without a runtime: they block the thread.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::address::StubAddress;
use crate::connection::{
    BeforeConnecting, Connection, LONGEST_PAUSE, QueuedConnection, Report, Step,
    look_before_connecting, next_step, refused,
};
use crate::error::{ConnectError, WaitError};
use crate::listen::Listener;
use crate::options::ProbeOptions;
use crate::wait::{Pauses, Wait};

/// Probes the stub on `endpoint`: **this stops a running guest**, and the report says so.
///
/// It looks first, connects only where nobody else is attached, leaves in order, and keeps the
/// same deadlines as `gdb_port::probe`, the same as a future.
///
/// # Errors
/// Only what says nothing about the stub: the system has no sockets left, or forbids the
/// connection. Nobody listening, silence, strange answers are results.
pub fn probe(endpoint: &StubAddress, options: &ProbeOptions) -> Result<Report, ConnectError> {
    let deadline = Instant::now() + options.bounded_deadline();
    let mut pauses = Pauses::new(LONGEST_PAUSE);
    loop {
        match look_before_connecting(endpoint, options, deadline) {
            BeforeConnecting::Connect => break,
            BeforeConnecting::Answer(reachability) => return Ok(Report::untouched(reachability)),
            BeforeConnecting::LookAgain => sleep(pauses.next_pause()),
        }
    }
    let connected = Connection::new(endpoint, options).and_then(|(mut connection, address)| {
        connection.connect_blocking(&address, deadline)?;
        Ok(connection)
    });
    match connected {
        Ok(connection) => Ok(drive(connection, options.clone())),
        Err(error) => refused(endpoint, options, error),
    }
}

/// Waits up to `deadline` until a queued connection is accepted, then probes and leaves as the
/// options of its probe said.
///
/// Still not accepted after that, the report has it again.
pub fn finish(queued: QueuedConnection, deadline: Duration) -> Report {
    let (connection, options) = queued.restart(deadline);
    drive(connection, options)
}

/// Waits until somebody listens on `endpoint`; with `owner`, until that process does. Nothing is
/// connected.
///
/// `is_gone` is asked between two looks, every 25 ms at most, and ends the wait when it says so.
///
/// # Errors
/// [`WaitError::ProcessGone`] when `is_gone` says so, [`WaitError::Deadline`] after `deadline`, and
/// [`WaitError::CannotSee`] at once where looks see nothing.
pub fn wait_until_listening(
    endpoint: &StubAddress,
    owner: Option<u32>,
    deadline: Duration,
    mut is_gone: impl FnMut() -> bool,
) -> Result<Listener, WaitError> {
    let mut wait = Wait::new(endpoint, owner, deadline, Instant::now());
    loop {
        if let Some(listener) = wait.look(Instant::now())? {
            return Ok(listener);
        }
        if is_gone() {
            return Err(wait.process_gone());
        }
        sleep(wait.next_pause(Instant::now()));
    }
}

fn drive(mut connection: Connection, options: ProbeOptions) -> Report {
    let mut buffer = vec![0; 8 * 1024];
    let _ = connection.socket.set_nonblocking(false);
    loop {
        let Connection {
            probe,
            queue,
            socket,
            ..
        } = &mut connection;
        match next_step(probe, Some(queue), Instant::now()) {
            Step::Write(until) => {
                let written = socket
                    .set_write_timeout(Some(left_until(until)))
                    .and_then(|()| socket.write(probe.output()));
                match written {
                    Ok(written) if written > 0 => probe.advance_output(written),
                    Err(error) if is_timeout(&error) => {}
                    // Nobody reads any more; what the stub sent before may still be there.
                    _ => probe.advance_output(usize::MAX),
                }
            }
            Step::Read(until) => {
                let read = socket
                    .set_read_timeout(Some(left_until(until)))
                    .and_then(|()| socket.read(&mut buffer));
                match read {
                    Ok(count) if count > 0 => probe.handle_input(&buffer[..count]),
                    Err(error) if is_timeout(&error) => {}
                    _ => probe.handle_eof(),
                }
            }
            Step::Finished => break,
            Step::StillQueued(state) => return connection.still_queued(state, options),
        }
    }
    let accepted = connection.is_accepted();
    shutdown(&mut connection, Instant::now() + options.bounded_leave());
    connection.finished(accepted)
}

/// Sends EOF, and waits until the other side has closed too, at most until `deadline`.
fn shutdown(connection: &mut Connection, deadline: Instant) {
    let socket = &mut connection.socket;
    let mut rest = [0; 1024];
    let mut open = socket.shutdown(Shutdown::Write).is_ok();
    while open && Instant::now() < deadline {
        let read = socket
            .set_read_timeout(Some(left_until(deadline)))
            .and_then(|()| socket.read(&mut rest));
        open = matches!(read, Ok(count) if count > 0);
    }
}

/// A time-out of zero is refused by the system.
fn left_until(until: Instant) -> Duration {
    until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
