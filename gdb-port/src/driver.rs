//! The probe as a future: looks first, connects only to a listener that nobody else holds, moves
//! bytes, leaves in order.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::address::StubAddress;
use crate::connection::{
    AcceptState, BeforeConnecting, Connection, Queue, QueuedConnection, Report, Step,
    look_before_connecting, next_step, refused,
};
use crate::dialogue::{Outcome, Probe};
use crate::error::ConnectError;
use crate::options::ProbeOptions;
use crate::reachability::Reachability;
use crate::wait::Pauses;

impl QueuedConnection {
    /// Waits up to `deadline` until the connection is accepted, then probes and leaves as the
    /// options of the probe said.
    ///
    /// Still not accepted after that, the report has it again.
    #[must_use = "the report may have the connection again"]
    pub async fn finish(self, deadline: Duration) -> Report {
        let (connection, options) = self.restart(deadline);
        match copy_stream(&connection) {
            Ok(stream) => drive_connection(connection, stream, options).await,
            // No descriptors are left: as it was.
            Err(_) => connection.still_queued(AcceptState::NotShown, options),
        }
    }
}

/// Probes the stub on `endpoint`: **this stops a running guest**, and the report says so. One that
/// is let run on was stopped for about 1 ms (QEMU 7.2 on an idle machine).
///
/// Looks first. Only if somebody listens (the process `options.owner`, if named) and no client is
/// attached or waiting does it connect. Where looks see nothing (another platform than Linux, an
/// address of another host) it connects only if the caller vouches with
/// [`ProbeOptions::nobody_attached`]; otherwise the answer is [`Reachability::Unknown`].
///
/// Ends within `options.deadline` plus twice `options.leave_within`. Cancelling it by dropping the
/// future closes the connection; a guest that is known to have run, and is to run on, is let go by
/// a last packet.
///
/// # Errors
/// Only what says nothing about the stub: the system has no sockets left, or forbids the
/// connection. Nobody listening, silence, strange answers are results.
pub async fn probe(endpoint: &StubAddress, options: &ProbeOptions) -> Result<Report, ConnectError> {
    let deadline = Instant::now() + options.bounded_deadline();
    let mut pauses = Pauses::new(crate::connection::LONGEST_PAUSE);
    loop {
        match look_before_connecting(endpoint, options, deadline.into_std()) {
            BeforeConnecting::Connect => {
                return connect_and_probe(endpoint, options, deadline).await;
            }
            BeforeConnecting::Answer(reachability) => return Ok(Report::untouched(reachability)),
            BeforeConnecting::LookAgain => sleep(pauses.next_pause()).await,
        }
    }
}

/// The probe as it is when another client has won the race since the look.
///
/// # Errors
/// As [`probe`].
#[cfg(any(test, feature = "_testing"))]
pub async fn probe_unlooked(
    endpoint: &StubAddress,
    options: &ProbeOptions,
) -> Result<Report, ConnectError> {
    let deadline = Instant::now() + options.bounded_deadline();
    connect_and_probe(endpoint, options, deadline).await
}

async fn connect_and_probe(
    endpoint: &StubAddress,
    options: &ProbeOptions,
    deadline: Instant,
) -> Result<Report, ConnectError> {
    match timeout_at(deadline, connect(endpoint, options)).await {
        // A full queue: the listener's kernel does not even answer.
        Err(_) => Ok(Report::untouched(Reachability::Silent {
            accepted: Some(false),
        })),
        Ok(Err(error)) => refused(endpoint, options, error),
        Ok(Ok((connection, stream))) => {
            Ok(drive_connection(connection, stream, options.clone()).await)
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(
    endpoint: &StubAddress,
    options: &ProbeOptions,
) -> io::Result<(Connection, Box<dyn Stream>)> {
    let (mut connection, address) = Connection::new(endpoint, options)?;
    connection.begin_to_connect(&address)?;
    let stream: Box<dyn Stream> = if address.is_unix() {
        copy_stream(&connection)?
    } else {
        let stream = TcpStream::from_std(connection.socket.try_clone()?.into())?;
        stream.writable().await?;
        Box::new(stream)
    };
    connection.connected()?;
    Ok((connection, stream))
}

/// The same socket a second time, for the runtime.
fn copy_stream(connection: &Connection) -> io::Result<Box<dyn Stream>> {
    let socket = connection.socket.try_clone()?;
    #[cfg(unix)]
    if socket.local_addr()?.is_unix() {
        return Ok(Box::new(UnixStream::from_std(socket.into())?));
    }
    Ok(Box::new(TcpStream::from_std(socket.into())?))
}

async fn drive_connection(
    mut connection: Connection,
    mut stream: Box<dyn Stream>,
    options: ProbeOptions,
) -> Report {
    let Connection { probe, queue, .. } = &mut connection;
    if let Some(state) = drive(&mut stream, probe, Some(queue)).await {
        return connection.still_queued(state, options);
    }
    let accepted = connection.is_accepted();
    shutdown_stream(&mut stream, options.bounded_leave()).await;
    connection.finished(accepted)
}

/// Probes over a stream that is open already, for example one end of a relay. The stream is shut
/// down at the end.
///
/// Where it came from cannot be looked up: that no other client holds the stub is for the caller to
/// know. A connection that is not accepted shows as [`Reachability::Silent`] here.
pub async fn probe_stream<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    options: &ProbeOptions,
) -> Outcome {
    let mut probe = Probe::new(options, Instant::now().into_std());
    drive(&mut stream, &mut probe, None).await;
    shutdown_stream(&mut stream, options.bounded_leave()).await;
    probe.outcome()
}

/// Moves bytes between the stream and the probe until the probe is done or its time is over; says
/// where the connection is if it was not accepted.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    probe: &mut Probe,
    mut queue: Option<&mut Queue>,
) -> Option<AcceptState> {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match next_step(probe, queue.as_deref_mut(), Instant::now().into_std()) {
            Step::Write(until) => {
                match timeout_at(until.into(), stream.write(probe.output())).await {
                    Err(_) => {}
                    Ok(Ok(written)) if written > 0 => probe.advance_output(written),
                    // Nobody reads any more; what the stub sent before may still be there.
                    Ok(_) => probe.advance_output(usize::MAX),
                }
            }
            Step::Read(until) => match timeout_at(until.into(), stream.read(&mut buffer)).await {
                Err(_) => {}
                Ok(Ok(0) | Err(_)) => probe.handle_eof(),
                Ok(Ok(count)) => probe.handle_input(&buffer[..count]),
            },
            Step::Finished => return None,
            Step::StillQueued(state) => return Some(state),
        }
    }
}

/// Sends EOF, and waits a little until the other side has closed too: the port is free then.
async fn shutdown_stream<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, within: Duration) {
    let closing = async {
        if stream.shutdown().await.is_ok() {
            let mut rest = [0; 1024];
            while matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {}
        }
    };
    // Whoever does not close within that time is left to itself.
    let _ = timeout(within, closing).await;
}
