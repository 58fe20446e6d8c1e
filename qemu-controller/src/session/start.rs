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
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "coverage")]
use qemu_launch::MachineSpec;
use qemu_launch::Process;
use qmp_proto::commands::Cont;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::client::Shared;
use crate::client::command::command;
use crate::client::log_sink::LogSink;
use crate::client::qtest::Qtest;
use crate::client::transcript::Transcript;
use crate::client::transport::tokio_stream;
use crate::config::{QTEST, QemuConfig, SEMIHOSTING};
#[cfg(feature = "coverage")]
use crate::coverage::LogPipe;
use crate::error::CommandError;
use crate::fork::{self, MachineState};
use crate::guest::gdb;
use crate::guest::symbols::ElfFile;
#[cfg(feature = "rtt")]
use crate::rtt::{Channels, RttReader};
use crate::serial::{Logs, PortName, Serial};
use crate::session::error::{StartError, StartPhase};
use crate::session::monitor::{connect, handshake};
use crate::session::progress::Progress;
use crate::session::{Inner, Session};
use crate::snapshot::{LoadedFiles, Store};
use crate::verdict::triple_fault;

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

pub(super) fn config_error(text: impl Into<String>) -> StartError {
    StartError::Config(text.into())
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
    let ports = Ports::drain(&mut process, &mut logs, &config);
    let ports = ports.map_err(|error| progress.connect(error))?;
    if let Some(port) = logs.left() {
        return Err(config_error(format!(
            "{port} cannot be logged: it is not one that the session reads, or it has a log already"
        )));
    }
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
    let all = ports.serials.iter().flatten().chain(&ports.semihosting);
    all.for_each(|port| port.wake_qemu(shared.share()));
    if let Some(state) = &state {
        progress.phase = StartPhase::State;
        let (shared, version) = (shared.share(), greeting.version.clone());
        let (loaded, qtest) = (loaded.clone(), ports.qtest.as_ref());
        fork::load(shared, version, &mut process, loaded, state, qtest)
            .await
            .map_err(|error| progress.state(error))?;
    }
    #[cfg(feature = "rtt")]
    let rtt = match (&config.rtt, ports.rtt, &ports.qtest) {
        (Some(rtt), Some(channels), Some(qtest)) => {
            let (shared, qtest) = (shared.share(), qtest.clone());
            let reader = RttReader::new(rtt, &firmware, shared, qtest, channels).await;
            Some(reader.map_err(|error| progress.command(error))?)
        }
        _ => None,
    };
    progress.phase = StartPhase::FirstRun;
    triple_fault::log(&shared, deadline, process.argv())
        .await
        .map_err(|error| progress.command(error))?;
    if !held {
        run(&shared, deadline)
            .await
            .map_err(|error| progress.command(error))?;
    }
    // A fork gets neither, and the caller's writers are dropped with the tasks that write to them.
    config.transcript = None;
    config.logs = Vec::new();
    let snapshots = Store::new(&config, loaded, ports.qtest.clone());
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
        serials: ports.serials,
        semihosting: ports.semihosting,
        firmware,
        snapshots: Arc::new(snapshots),
        qtest: ports.qtest,
        #[cfg(feature = "rtt")]
        rtt,
        #[cfg(feature = "coverage")]
        code_log,
        stopped: OnceCell::new(),
    }))
}

/// What the session has of a machine besides its monitor.
struct Ports {
    /// Each of the machine's serial ports that is inherited, in the board's order.
    serials: Vec<Option<Serial>>,
    semihosting: Option<Serial>,
    #[cfg(feature = "rtt")]
    rtt: Option<Channels>,
    qtest: Option<Qtest>,
}

impl Ports {
    /// Takes them, and drains them from the first byte: a guest may print before its session is
    /// ready.
    fn drain(process: &mut Process, logs: &mut Logs, config: &QemuConfig) -> io::Result<Self> {
        let deadline = config.deadlines.command;
        let count = (0..)
            .take_while(|&port| process.serial_address(port).is_some())
            .count();
        let mut serial = |port| {
            let stream = process.take_serial(port)?;
            let log = logs.take(PortName::Serial(port));
            Some(Serial::drain(vec![stream], log, deadline))
        };
        let serials = (0..count).map(|port| serial(port).transpose());
        let serials = serials.collect::<io::Result<_>>()?;
        let console = [process.take(SEMIHOSTING), process.take("stdout")];
        let console: Vec<_> = console.into_iter().flatten().collect();
        let semihosting = (!console.is_empty())
            .then(|| Serial::drain(console, logs.take(PortName::Semihosting), deadline));
        let qtest = process.take(QTEST).map(tokio_stream);
        Ok(Self {
            serials,
            semihosting: semihosting.transpose()?,
            #[cfg(feature = "rtt")]
            rtt: config.rtt.as_ref().map(|_| Channels::new(logs, deadline)),
            qtest: qtest.transpose()?.map(Qtest::new),
        })
    }
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
