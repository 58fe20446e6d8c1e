//! From a monitor's address to an answered `query-status`.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use gdb_port::{WaitError, wait_until_listening};
use qemu_launch::{Address, Process, ProcessHandle};
use qmp_proto::commands::QueryStatus;
use qmp_proto::{Capability, Connection, Greeting, Limits};
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, debug, info_span, trace};

use crate::client::command::{self, A_YEAR, command};
use crate::client::driver::drive;
use crate::client::transcript::Transcript;
use crate::client::transport::{self, BoxTransport, UnixSocket};
use crate::client::{SessionGuard, Shared};
use crate::error::{CommandError, SessionEnd};
use crate::session::error::{StartError, StartPhase};
use crate::session::progress::Progress;
use crate::session::start::config_error;

/// The pauses between attempts to connect grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// … to this: up to 10 ms a retry costs QEMU nothing, at 50 ms it doubles the time to ready.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// A QEMU that has greeted and answers nothing for so long may hang in `accept`. The answer takes a
/// millisecond where nothing is in the way.
const HANGS_AFTER: Duration = Duration::from_millis(250);

/// From a connected stream to an answered `query-status`. The address is the one to join again at.
pub(super) async fn handshake(
    transport: BoxTransport,
    address: Option<Address>,
    process: Option<ProcessHandle>,
    transcript: Option<Transcript>,
    deadline: Duration,
    progress: &mut Progress,
) -> Result<(SessionGuard, Greeting), StartError> {
    progress.phase = StartPhase::Greeting;
    let span = info_span!("qemu", pid = process.as_ref().map(ProcessHandle::pid));
    let connection = Connection::new(Limits::default());
    let shared = SessionGuard::new(transport, connection, transcript, span);
    progress.shared = Some(shared.share());
    let greeting = shared.greeting();
    tokio::spawn(drive(shared.share(), process).instrument(shared.span.clone()));
    let Ok(greeting) = greeting.await else {
        return Err(progress.ended(shared.end().await));
    };
    progress.phase = StartPhase::Negotiation;
    let answers = async {
        negotiate(&shared, &greeting).await?;
        progress.phase = StartPhase::FirstStatus;
        command(&shared, deadline, &QueryStatus).await
    };
    let answered = unblock_accept(address, answers).await;
    answered.map_err(|error| progress.command(error))?;
    Ok((shared, greeting))
}

/// Waits for a greeted client's first answers, and frees a QEMU that hangs before it gives them.
///
/// One that is joined while it starts can hang for ever: its main loop and its monitor's thread
/// both see that somebody connects, the thread takes the connection, and the main loop waits in
/// `accept` for another one. So it gets another one, closed at once. A QEMU that is merely slow
/// sees that come and go after this client has left.
async fn unblock_accept<T>(address: Option<Address>, answers: impl Future<Output = T>) -> T {
    let mut answers = pin!(answers);
    let Some(address @ (Address::Socket(_) | Address::Tcp(_))) = address else {
        return answers.await;
    };
    if let Ok(answered) = timeout(HANGS_AFTER, &mut answers).await {
        return answered;
    }
    debug!(%address, "QEMU has greeted and does not answer; connecting once more, which frees it if it hangs");
    tokio::select! {
        biased;
        answered = &mut answers => return answered,
        _ = transport::connect(&address) => {}
    }
    answers.await
}

/// Enables out-of-band execution where it is offered.
async fn negotiate(shared: &Shared, greeting: &Greeting) -> Result<(), CommandError> {
    let command = "qmp_capabilities".to_owned();
    let offered = greeting.capabilities.contains(&Capability::Oob);
    let enable: &[_] = if offered { &[Capability::Oob] } else { &[] };
    let answer = match shared.negotiate(enable) {
        Ok(answer) => answer.await.ok(),
        // The end came with the greeting.
        Err(error) if command::is_over(&error) => None,
        Err(error) => return Err(CommandError::Invalid { command, error }),
    };
    match answer {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(CommandError::Refused { command, error }),
        None => Err(CommandError::Ended {
            command,
            ended: shared.end().await,
        }),
    }
}

/// The stream to the monitor. A socket pair is there at once; where QEMU does the listening, it is
/// asked until it listens or has ended.
pub(super) async fn connect(
    process: &mut Process,
    progress: &Progress,
) -> Result<BoxTransport, StartError> {
    const NO_MONITOR: &str =
        "the configuration has no QMP monitor, and a session needs one; leave out `without_qmp`";
    let address = process.qmp_address().cloned();
    let address = address.ok_or_else(|| config_error(NO_MONITOR))?;
    match address {
        Address::Inherited { .. } if process.is_kept() => Err(config_error(
            "a QEMU that keeps running needs a QMP endpoint that others can reach, not the inherited socket pair",
        )),
        Address::Inherited { .. } => {
            let stream = process.take_qmp().ok_or_else(|| config_error(NO_MONITOR))?;
            let socket = UnixSocket::new(stream).map_err(|error| progress.connect(error))?;
            Ok(Box::pin(socket))
        }
        Address::Tcp(address) if address.port() == 0 => Err(config_error(
            "QMP on a free TCP port cannot be found; name a port, or use the inherited socket pair (the default)",
        )),
        Address::Tcp(tcp) => {
            wait_until_ours_listens(process, tcp)
                .await
                .map_err(|end| progress.ended(end))?;
            let stream = retry(process, || transport::connect(&address)).await;
            stream.map_err(|end| progress.ended(end))
        }
        Address::Socket(_) => {
            let stream = retry(process, || transport::connect(&address)).await;
            stream.map_err(|end| progress.ended(end))
        }
        other => Err(config_error(format!(
            "no way to reach a monitor at {other}"
        ))),
    }
}

/// Waits until it is this QEMU that listens there, where that can be seen: at a port that is taken
/// another QEMU may answer, and would be taken for ours until ours has exited.
async fn wait_until_ours_listens(process: &Process, address: SocketAddr) -> Result<(), SessionEnd> {
    let endpoint = gdb_port::StubAddress::Tcp(address);
    let seen = wait_until_listening(&endpoint, Some(process.pid()), A_YEAR, process.wait());
    match seen.await {
        Err(WaitError::ProcessGone { .. }) => Err(SessionEnd::Exited(process.wait().await)),
        _ => Ok(()),
    }
}

/// Tries until it works or QEMU has ended; the deadline is the caller's.
async fn retry<S, F: Future<Output = io::Result<S>>>(
    process: &Process,
    mut attempt: impl FnMut() -> F,
) -> Result<S, SessionEnd> {
    let mut pause = FIRST_PAUSE;
    let attempts = async {
        loop {
            match attempt().await {
                Ok(stream) => return stream,
                Err(error) => trace!(%error, "the monitor does not listen yet"),
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        stream = attempts => Ok(stream),
        exit = process.wait() => Err(SessionEnd::Exited(exit)),
    }
}
