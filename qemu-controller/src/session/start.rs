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
#[cfg(feature = "coverage")]
use qemu_launch::MachineSpec;
use qemu_launch::{Address, Process, ProcessHandle};
use qmp_proto::commands::{Cont, QueryStatus};
use qmp_proto::{Capability, Connection, Greeting, Limits};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument as _, debug, info, info_span, trace};

use crate::client::command::{self, A_YEAR, command};
use crate::client::driver::drive;
use crate::client::log_sink::LogSink;
use crate::client::qtest::Qtest;
use crate::client::transcript::Transcript;
use crate::client::transport::{self, BoxTransport, MonitorSocket, tokio_stream};
use crate::client::{SessionGuard, Shared};
use crate::config::{QTEST, QemuConfig, SEMIHOSTING};
#[cfg(feature = "coverage")]
use crate::coverage::LogPipe;
use crate::error::{CommandError, SessionEnd, WaitPhase};
use crate::fork::{self, LoadError, MachineState};
use crate::guest::gdb;
use crate::guest::symbols::ElfFile;
#[cfg(feature = "rtt")]
use crate::rtt::{Channels, RttReader};
use crate::serial::{Logs, PortName, Serial};
use crate::session::error::{StartError, StartPhase, its_stderr};
use crate::session::{Inner, Session};
use crate::snapshot::{LoadedFiles, Store};

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
    /// [`StartError`], with QEMU's own words where it has ended. Whatever was started has been
    /// ended then, as it has when this future is dropped.
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
            .map(LogSink::open)
            .transpose()
            .map_err(transcript_error)?;
        let logs = Logs::open(&config.logs).map_err(|error| StartError::Log {
            log: "the log of a port".to_owned(),
            error,
        })?;
        let since = Instant::now();
        let deadline = config.deadlines.start;
        let mut progress = Progress::launching();
        let transcript = transcript.map(Transcript::new);
        let begun = begin(config, state, transcript, logs, &mut progress);
        let Ok(begun) = timeout(deadline, begun).await else {
            return Err(progress.deadline(deadline));
        };
        let session = begun?;
        info!(pid = session.pid(), took = ?since.elapsed(), "session ready");
        progress.process = None;
        Ok(session)
    }
}

pub(super) fn transcript_error(error: io::Error) -> StartError {
    StartError::Log {
        log: "the QMP transcript".to_owned(),
        error,
    }
}

fn config_error(text: impl Into<String>) -> StartError {
    StartError::Config(text.into())
}

/// How far a start has come, and of what. Dropped before its end, it leaves no process, not even
/// one that is to keep running.
pub(super) struct Progress {
    pub(super) phase: StartPhase,
    /// The QEMU or the monitor, as errors call it.
    qemu: String,
    process: Option<ProcessHandle>,
    since: Instant,
    /// There from the connection on.
    shared: Option<Arc<Shared>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.process.iter().for_each(ProcessHandle::kill);
    }
}

impl Progress {
    /// Of a QEMU that is to be started.
    fn launching() -> Self {
        Self {
            phase: StartPhase::Launching,
            qemu: "QEMU".to_owned(),
            process: None,
            since: Instant::now(),
            shared: None,
        }
    }

    /// Of a monitor that is to be attached to.
    pub(super) fn connecting(monitor: String) -> Self {
        Self {
            phase: StartPhase::Connecting,
            qemu: monitor,
            process: None,
            since: Instant::now(),
            shared: None,
        }
    }

    fn command_line(&self) -> String {
        let process = self.process.as_ref();
        process.map_or_else(String::new, |process| process.argv().to_string())
    }

    /// What people want to know too.
    fn details(&self) -> String {
        match &self.process {
            Some(process) => format!("\ncommand line: {}", process.argv()),
            None => String::new(),
        }
    }

    /// The session ended before it was ready.
    pub(super) fn ended(&self, end: SessionEnd) -> StartError {
        let phase = self.phase;
        match end {
            SessionEnd::Exited(exit) => StartError::Exited {
                phase,
                exit,
                command_line: self.command_line(),
            },
            end => StartError::Ended {
                qemu: match &self.process {
                    Some(_) => "the monitor".to_owned(),
                    None => self.qemu.clone(),
                },
                phase,
                end,
                details: self.details().into(),
            },
        }
    }

    /// One of the first commands failed. Its deadline is that of the start.
    fn command(&self, error: CommandError) -> StartError {
        match error {
            CommandError::Ended { ended, .. } => self.ended(ended),
            CommandError::Deadline { deadline, .. } => self.deadline(deadline),
            error => StartError::Refused {
                phase: self.phase,
                error,
            },
        }
    }

    /// The stream to the monitor could not be had.
    pub(super) fn connect(&self, error: io::Error) -> StartError {
        StartError::Connect {
            monitor: match &self.process {
                Some(_) => "QEMU's monitor".to_owned(),
                None => self.qemu.clone(),
            },
            error,
        }
    }

    /// The deadline of the start has passed. A program that was held up past it may not have seen
    /// an end of QEMU's that was not its own doing.
    pub(super) fn deadline(&self, deadline: Duration) -> StartError {
        let own = self.process.as_ref();
        let own = own.filter(|process| !process.was_signalled());
        if let Some(exit) = own.and_then(ProcessHandle::try_wait) {
            return self.ended(SessionEnd::Exited(exit));
        }
        if self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.is_closed())
        {
            return self.ended(SessionEnd::Closed);
        }
        let missed = self.since + deadline.min(A_YEAR);
        let held_up = match WaitPhase::Sent.at_deadline(missed) {
            WaitPhase::HeldUp => "; this program itself was held up, which says nothing of QEMU",
            _ => "",
        };
        let said = self.process.as_ref().map(ProcessHandle::stderr_tail);
        let said = said.map_or_else(String::new, |tail| its_stderr(&tail.to_string_lossy()));
        // A monitor serves one client; a second one gets no greeting until the first has left.
        let held = match (&self.process, self.phase) {
            (None, StartPhase::Greeting) => {
                "; another client may hold it, a monitor serves one at a time"
            }
            _ => "",
        };
        StartError::Deadline {
            qemu: self.qemu.clone(),
            phase: self.phase,
            deadline,
            details: format!("{held}{held_up}{said}{}", self.details()).into(),
        }
    }
}

async fn begin(
    mut config: QemuConfig,
    state: Option<MachineState>,
    transcript: Option<Transcript>,
    mut logs: Logs,
    progress: &mut Progress,
) -> Result<Session, StartError> {
    let mut spec = config.to_spec();
    if state.is_some() {
        spec = spec.incoming();
    }
    #[cfg(feature = "coverage")]
    let log_pipe = match config.coverage {
        true => Some(code_log_pipe(&mut spec)?),
        false => None,
    };
    let firmware = Arc::new(ElfFile::of(config.symbols_files(&spec)));
    // A guest that was paused when it was saved stays paused.
    let held = spec.starts_stopped() || state.as_ref().is_some_and(|state| !state.was_running());
    let loaded = LoadedFiles::of(spec.files());
    let mut process = qemu_launch::spawn_async(spec.start_stopped(true)).await?;
    info!(pid = process.pid(), argv = %process.argv(), "QEMU started");
    progress.process = Some(process.handle());
    progress.phase = StartPhase::Connecting;
    // Drained from the first byte: a guest may print before its session is ready.
    let serials = serials(&mut process, &mut logs, config.deadlines.command)
        .map_err(|error| progress.connect(error))?;
    let console = process
        .take(SEMIHOSTING)
        .into_iter()
        .chain(process.take("stdout"))
        .collect::<Vec<_>>();
    let semihosting = match console.is_empty() {
        true => None,
        false => {
            let drained = Serial::drain(
                console,
                logs.take(PortName::Semihosting),
                config.deadlines.command,
            );
            Some(drained.map_err(|error| progress.connect(error))?)
        }
    };
    #[cfg(feature = "rtt")]
    let rtt_channels = config
        .rtt
        .is_some()
        .then(|| Channels::new(&mut logs, config.deadlines.command));
    if let Some(port) = logs.left() {
        return Err(config_error(format!(
            "{port} cannot be logged: it is not one that the session reads, or it has a log already"
        )));
    }
    let qtest = process
        .take(QTEST)
        .map(tokio_stream)
        .transpose()
        .map_err(|error| progress.connect(error))?
        .map(Qtest::new);
    let transport = connect(&mut process, progress).await?;
    // The one deadline here is that of the whole start.
    let deadline = config.deadlines.start;
    let watch = Some(process.handle());
    let address = process.qmp_address().cloned();
    let begun = handshake(transport, address, watch, transcript, deadline, progress);
    let (shared, greeting) = begun.await?;
    // QEMU has greeted: it has opened its log.
    #[cfg(feature = "coverage")]
    let code_log = log_pipe
        .map(LogPipe::read)
        .transpose()
        .map_err(code_log_error)?;
    progress.phase = StartPhase::GdbAddress;
    let gdb = gdb::endpoint(&shared, deadline, process.gdb_address())
        .await
        .map_err(|error| progress.command(error))?;
    let ports = serials.iter().flatten().chain(&semihosting);
    ports.for_each(|port| port.wake_qemu(shared.share()));
    if let Some(state) = &state {
        progress.phase = StartPhase::State;
        let version = greeting.version.clone();
        let loaded = loaded.clone();
        let qtest = qtest.as_ref();
        fork::load(shared.share(), version, &mut process, loaded, state, qtest)
            .await
            .map_err(|error| match error {
                LoadError::OtherMachine(mismatches) => StartError::OtherMachine { mismatches },
                LoadError::Command(error) => progress.command(error),
                LoadError::Io(error) => progress.connect(error),
            })?;
    }
    #[cfg(feature = "rtt")]
    let rtt = match (&config.rtt, rtt_channels, &qtest) {
        (Some(rtt), Some(channels), Some(qtest)) => {
            let (shared, qtest) = (shared.share(), qtest.clone());
            let reader = RttReader::new(rtt, &firmware, shared, qtest, channels).await;
            Some(reader.map_err(|error| progress.command(error))?)
        }
        _ => None,
    };
    if !held {
        progress.phase = StartPhase::FirstRun;
        run(&shared, deadline)
            .await
            .map_err(|error| progress.command(error))?;
    }
    // A fork gets neither, and the caller's writers are dropped with the tasks that write to them.
    config.transcript = None;
    config.logs = Vec::new();
    let snapshots = Store::new(&config, loaded, qtest.clone());
    if state.is_some() {
        snapshots.set_loaded(!held);
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
        #[cfg(feature = "rtt")]
        rtt,
        #[cfg(feature = "coverage")]
        code_log,
        stopped: OnceCell::new(),
    }))
}

#[cfg(feature = "coverage")]
fn code_log_error(error: io::Error) -> StartError {
    StartError::Log {
        log: "the pipe for QEMU's log of the code that runs".to_owned(),
        error,
    }
}

/// Has QEMU log the code that it runs into a pipe.
#[cfg(feature = "coverage")]
fn code_log_pipe(spec: &mut MachineSpec) -> Result<LogPipe, StartError> {
    if spec.has_log() {
        return Err(config_error(
            "coverage takes QEMU's log, and the configuration has one already",
        ));
    }
    let pipe = LogPipe::new().map_err(code_log_error)?;
    let log = qemu_launch::Log::items(["in_asm"]).to_file(pipe.path());
    *spec = spec.clone().log(log);
    Ok(pipe)
}

/// Lets the guest run. One that ends QEMU at once, and may take the answer with it, has been
/// started all the same: how it ended, the session tells.
async fn run(shared: &Shared, deadline: Duration) -> Result<(), CommandError> {
    match command(shared, deadline, &Cont).await {
        Ok(_) | Err(CommandError::Ended { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

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
async fn connect(process: &mut Process, progress: &Progress) -> Result<BoxTransport, StartError> {
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
            let socket = MonitorSocket::new(stream).map_err(|error| progress.connect(error))?;
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

/// Each of the machine's serial ports that is inherited, in the board's order.
fn serials(
    process: &mut Process,
    logs: &mut Logs,
    deadline: Duration,
) -> io::Result<Vec<Option<Serial>>> {
    let ports = (0..)
        .take_while(|&port| process.serial_address(port).is_some())
        .count();
    let mut drain = |port| {
        let stream = process.take_serial(port);
        stream
            .map(|stream| Serial::drain(vec![stream], logs.take(PortName::Serial(port)), deadline))
            .transpose()
    };
    (0..ports).map(&mut drain).collect()
}
