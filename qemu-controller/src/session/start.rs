//! From a configuration to a ready session, with nothing left behind when that fails.
//!
//! ```text
//!   check ─▶ spawn -S ─▶ connect ─▶ greeting ─▶ qmp_capabilities ─▶ query-status ─▶ (GDB port) ─▶ (state) ─▶ cont ─▶ ready
//!                           └ retried only where QEMU does the listening; never a fixed sleep
//! ```
//!
//! The guest is held until its session is ready, and then let run unless it is to wait: one that is
//! over in a millisecond would else end QEMU before anybody listens.
//!
//! At each arrow QEMU may end instead: the driver watches the process all the while, so the error
//! comes at once and has QEMU's own words.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gdb_port::{WaitError, wait_until_listening};
use qemu_launch::{Address, Process, ProcessHandle, SpawnError};
use qmp_proto::commands::{Cont, QueryStatus};
use qmp_proto::{Capability, Connection, Greeting, Limits};
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument as _, debug, info, info_span, trace};

use crate::client::command::{self, A_YEAR, command};
use crate::client::driver::drive;
use crate::client::log_sink::Destination;
use crate::client::transcript::Transcript;
use crate::client::transport::{self, BoxTransport, MonitorSocket};
use crate::client::{Owned, Shared};
use crate::config::{QemuConfig, SEMIHOSTING};
use crate::error::{CommandError, SessionEnd, StartError, StartPhase};
use crate::fork::{self, MachineState};
use crate::guest::gdb;
use crate::guest::memory::Firmware;
use crate::guest::qtest::{QTEST, Qtest};
use crate::serial::{Logs, PortName, Serial};
use crate::session::{Inner, Session};
use crate::snapshot::{Difference, LoadedFiles, Store};

/// The pauses between attempts to connect grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// … to this: up to 10 ms a retry costs QEMU nothing, at 50 ms it doubles the time to ready.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// A QEMU that has greeted and answers nothing for so long may hang in `accept`. The answer takes a
/// millisecond where nothing is in the way.
const HANGS_AFTER: Duration = Duration::from_millis(250);

impl Session {
    /// Starts QEMU and returns when its session is ready: greeted, capabilities negotiated,
    /// `query-status` answered. Needs a tokio runtime with I/O and time enabled, of any flavour,
    /// and lives in it.
    ///
    /// # Errors
    /// [`StartError`], with QEMU's own words where it has ended. Whatever was started has been ended then, as
    /// it has when this future is dropped.
    pub async fn start(config: QemuConfig) -> Result<Self, StartError> {
        Self::begin_from(config, None).await
    }

    /// A start, afresh or from a saved state.
    pub(crate) async fn begin_from(
        config: QemuConfig,
        state: Option<MachineState>,
    ) -> Result<Self, StartError> {
        let transcript = config
            .transcript
            .as_ref()
            .map(Destination::open)
            .transpose()
            .map_err(StartError::Transcript)?;
        let logs = Logs::open(&config.logs).map_err(StartError::PortLog)?;
        let since = Instant::now();
        let deadline = config.deadlines.start;
        let mut started = Started::default();
        let transcript = transcript.map(Transcript::new);
        let failed = match timeout(
            deadline,
            begin(config, state, transcript, logs, &mut started),
        )
        .await
        {
            Ok(Ok(session)) => {
                info!(pid = session.pid(), took = ?since.elapsed(), "session ready");
                started.process = None;
                return Ok(session);
            }
            Ok(Err(failed)) => failed,
            Err(_) => Failed::Deadline,
        };
        Err(started.explain(failed, deadline))
    }
}

/// How far a start has come. Dropped before its end, it leaves no process, not even one that is to
/// keep running.
#[derive(Default)]
struct Started {
    phase: StartPhase,
    process: Option<ProcessHandle>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.process.iter().for_each(ProcessHandle::kill);
    }
}

impl Started {
    fn explain(&self, failed: Failed, deadline: Duration) -> StartError {
        let phase = self.phase;
        let command_line = self
            .process
            .as_ref()
            .map(|process| process.argv().to_string())
            .unwrap_or_default();
        // A program that was held up past its deadline may not have seen an end that was not its
        // own doing.
        let own = self
            .process
            .as_ref()
            .filter(|process| !process.was_signalled());
        let exit = own.and_then(ProcessHandle::try_wait);
        match failed {
            Failed::Deadline if let Some(exit) = exit => StartError::Exited {
                phase,
                exit,
                command_line,
            },
            Failed::Launch(source) => StartError::Launch(source),
            Failed::Ended(SessionEnd::Exited(exit)) => StartError::Exited {
                phase,
                exit,
                command_line,
            },
            Failed::Ended(source) => StartError::Monitor {
                phase,
                command_line,
                source,
            },
            Failed::Command(source) => StartError::Refused { phase, source },
            Failed::Connect(source) => StartError::Connect(source),
            Failed::NoMonitor => StartError::NoMonitor,
            Failed::KeptUnreachable => StartError::KeptUnreachable,
            Failed::UnknownPort => StartError::UnknownPort,
            Failed::NoPort(port) => StartError::NoPort {
                port: port.to_string(),
            },
            Failed::Misfit(differences) => StartError::Misfit { differences },
            Failed::Deadline => {
                let stderr = self
                    .process
                    .as_ref()
                    .map(|process| process.stderr_tail().to_string_lossy());
                StartError::Deadline {
                    phase,
                    deadline,
                    stderr: stderr.unwrap_or_default(),
                    command_line,
                }
            }
        }
    }
}

/// Why a start failed, before it is put together with what is known of the process.
pub(crate) enum Failed {
    Launch(SpawnError),
    KeptUnreachable,
    Ended(SessionEnd),
    Command(CommandError),
    Connect(io::Error),
    NoMonitor,
    UnknownPort,
    NoPort(PortName),
    /// The saved state is another machine's.
    Misfit(Vec<Difference>),
    Deadline,
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Ended { ended, .. } => Self::Ended(ended),
            CommandError::Deadline { .. } => Self::Deadline,
            error => Self::Command(error),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Connect(error)
    }
}

async fn begin(
    mut config: QemuConfig,
    state: Option<MachineState>,
    transcript: Option<Transcript>,
    mut logs: Logs,
    started: &mut Started,
) -> Result<Session, Failed> {
    let mut spec = config.to_spec();
    if state.is_some() {
        spec = spec.incoming();
    }
    let firmware = Firmware::new(config.symbols_file(&spec));
    // What stood still when it was saved, stands still.
    let held = spec.starts_stopped() || state.as_ref().is_some_and(|state| !state.was_running());
    let loaded = LoadedFiles::of(spec.files());
    let mut process = qemu_launch::spawn_async(spec.start_stopped(true))
        .await
        .map_err(Failed::Launch)?;
    info!(pid = process.pid(), argv = %process.argv(), "QEMU started");
    started.process = Some(process.watch());
    started.phase = StartPhase::Connecting;
    // Drained from the first byte: a guest may print before its session is ready.
    let serials = serials(&mut process, &mut logs)?;
    let console = process
        .take(SEMIHOSTING)
        .into_iter()
        .chain(process.take("stdout"))
        .collect::<Vec<_>>();
    let semihosting = match console.is_empty() {
        true => None,
        false => Some(Serial::drain(console, logs.take(PortName::Semihosting))?),
    };
    if let Some(port) = logs.left() {
        return Err(Failed::NoPort(port));
    }
    let qtest = process
        .take(QTEST)
        .map(tokio_stream)
        .transpose()?
        .map(Qtest::new);
    let transport = connect(&mut process).await?;
    // The one deadline here is that of the whole start.
    let deadline = config.deadlines.start;
    let watch = Some(process.watch());
    let address = process.qmp_address().cloned();
    let begun = handshake(
        transport,
        address,
        watch,
        transcript,
        deadline,
        &mut started.phase,
    );
    let (shared, greeting) = begun.await?;
    started.phase = StartPhase::GdbAddress;
    let gdb = gdb::endpoint(&shared, deadline, process.gdb_address()).await?;
    if let Some(state) = &state {
        started.phase = StartPhase::State;
        let version = greeting.version.clone();
        fork::load(shared.share(), version, &mut process, loaded.clone(), state).await?;
    }
    if !held {
        started.phase = StartPhase::FirstRun;
        run(&shared, deadline).await?;
    }
    // A fork has none, and the caller's writers are let go with what writes to them.
    config.transcript = None;
    config.logs = Vec::new();
    let snapshots = Store::new(config.snapshot_file.clone(), loaded, process.argv().args());
    if state.is_some() {
        snapshots.loaded(!held);
    }
    Ok(Session::new(Inner {
        shared,
        process: Some(process),
        greeting,
        gdb,
        deadlines: config.deadlines,
        config: Some(config),
        serials,
        semihosting,
        firmware,
        snapshots: Arc::new(snapshots),
        qtest,
        stopped: OnceCell::new(),
    }))
}

/// Lets the guest run. One that ends QEMU at once, and may take the answer with it, has been
/// started all the same: how it ended, the session tells.
async fn run(shared: &Shared, deadline: Duration) -> Result<(), Failed> {
    match command(shared, deadline, &Cont).await {
        Ok(_) | Err(CommandError::Ended { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// From a connected stream to an answered `query-status`. The address is the one to join again at.
pub(crate) async fn handshake(
    transport: BoxTransport,
    address: Option<Address>,
    process: Option<ProcessHandle>,
    transcript: Option<Transcript>,
    deadline: Duration,
    phase: &mut StartPhase,
) -> Result<(Owned, Greeting), Failed> {
    *phase = StartPhase::Greeting;
    let span = info_span!("qemu", pid = process.as_ref().map(ProcessHandle::pid));
    let connection = Connection::new(Limits::default());
    let shared = Owned::new(transport, connection, transcript, span, process.is_some());
    let greeting = shared.greeting();
    tokio::spawn(drive(shared.share(), process).instrument(shared.span.clone()));
    let Ok(greeting) = greeting.await else {
        return Err(Failed::Ended(shared.end().await));
    };
    *phase = StartPhase::Negotiation;
    let answers = async {
        negotiate(&shared, &greeting).await?;
        *phase = StartPhase::FirstStatus;
        command(&shared, deadline, &QueryStatus)
            .await
            .map_err(Failed::from)
    };
    out_of_accept(address, answers).await?;
    Ok((shared, greeting))
}

/// Waits for a greeted client's first answers, and frees a QEMU that hangs before it gives them.
///
/// One that is joined while it starts can hang for ever: its main loop and its monitor's thread
/// both see that somebody connects, the thread takes the connection, and the main loop waits in
/// `accept` for another one. So it gets another one, closed at once. A QEMU that is merely slow
/// sees that come and go after this client has left.
async fn out_of_accept<T>(address: Option<Address>, answers: impl Future<Output = T>) -> T {
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
async fn negotiate(shared: &Shared, greeting: &Greeting) -> Result<(), Failed> {
    let offered = greeting.capabilities.contains(&Capability::Oob);
    let enable: &[_] = if offered { &[Capability::Oob] } else { &[] };
    let name = || "qmp_capabilities".to_owned();
    let answer = match shared.negotiate(enable) {
        Ok(answer) => answer.await.ok(),
        // The end came with the greeting.
        Err(error) if command::is_over(&error) => None,
        Err(source) => {
            return Err(Failed::Command(CommandError::Invalid {
                command: name(),
                source,
            }));
        }
    };
    match answer {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(Failed::Command(CommandError::Refused {
            command: name(),
            error,
        })),
        None => Err(Failed::Ended(shared.end().await)),
    }
}

/// The stream to the monitor. A socket pair is there at once; where QEMU does the listening, it is
/// asked until it listens or has ended.
async fn connect(process: &mut Process) -> Result<BoxTransport, Failed> {
    let address = process.qmp_address().cloned().ok_or(Failed::NoMonitor)?;
    match address {
        Address::Inherited { .. } if process.is_kept() => Err(Failed::KeptUnreachable),
        Address::Inherited { .. } => {
            let stream = process.take_qmp().ok_or(Failed::NoMonitor)?;
            Ok(Box::pin(MonitorSocket::new(stream)?))
        }
        Address::Tcp(address) if address.port() == 0 => Err(Failed::UnknownPort),
        Address::Tcp(tcp) => {
            listened_to(process, tcp).await?;
            retry(process, || transport::connect(&address)).await
        }
        Address::Socket(_) => retry(process, || transport::connect(&address)).await,
        other => Err(Failed::Connect(io::Error::other(format!(
            "no way to reach a monitor at {other}"
        )))),
    }
}

/// Waits until it is this QEMU that listens there, where that can be seen: at a port that is taken
/// another QEMU may answer, and would be taken for ours until ours has exited.
async fn listened_to(process: &Process, address: SocketAddr) -> Result<(), Failed> {
    let endpoint = gdb_port::StubAddress::Tcp(address);
    let seen = wait_until_listening(&endpoint, Some(process.pid()), A_YEAR, process.wait());
    match seen.await {
        Err(WaitError::ProcessGone { .. }) => {
            Err(Failed::Ended(SessionEnd::Exited(process.wait().await)))
        }
        _ => Ok(()),
    }
}

/// Tries until it works or QEMU has ended; the deadline is the caller's.
async fn retry<S, F: Future<Output = io::Result<S>>>(
    process: &Process,
    mut attempt: impl FnMut() -> F,
) -> Result<S, Failed> {
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
        exit = process.wait() => Err(Failed::Ended(SessionEnd::Exited(exit))),
    }
}

/// Each of the machine's serial ports that is inherited, in the board's order.
fn serials(process: &mut Process, logs: &mut Logs) -> io::Result<Vec<Option<Serial>>> {
    let ports = (0..)
        .take_while(|&port| process.serial_address(port).is_some())
        .count();
    let mut drain = |port| {
        let stream = process.take_serial(port);
        stream
            .map(|stream| Serial::drain(vec![stream], logs.take(PortName::Serial(port))))
            .transpose()
    };
    (0..ports).map(&mut drain).collect()
}

pub(crate) fn tokio_stream(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
