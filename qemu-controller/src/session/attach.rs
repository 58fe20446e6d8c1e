//! A session with a QEMU that somebody else has started.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::client::log_sink::LogSink;
use crate::client::transcript::Transcript;
use crate::client::transport::{BoxTransport, connect};
use crate::config::Deadlines;
use crate::session::error::StartError;
use crate::session::monitor::handshake;
use crate::session::progress::Progress;
use crate::session::start::transcript_error;
use crate::session::{Inner, Session};

/// How a session with a QEMU that runs already is to be. A plain [`Duration`] will do where only
/// the time to become ready matters.
///
/// ```no_run
/// # use std::time::Duration;
/// # use qemu_controller::{Address, AttachConfig, Session};
/// # async fn example(address: Address) -> Result<(), qemu_controller::StartError> {
/// let config = AttachConfig::default()
///     .command_deadline(Duration::from_secs(60))
///     .qmp_transcript("qmp.log");
/// let session = Session::attach(address, config).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct AttachConfig {
    deadlines: Deadlines,
    transcript: Option<LogSink>,
}

impl AttachConfig {
    /// How long it may take to become ready. Default 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.start = deadline;
        self
    }

    /// As [`QemuConfig::command_deadline`](crate::QemuConfig::command_deadline), for each command,
    /// `quit` included. Default 5 s.
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.command = deadline;
        self
    }

    /// As [`QemuConfig::qmp_transcript`](crate::QemuConfig::qmp_transcript).
    pub fn qmp_transcript(mut self, path: impl Into<PathBuf>) -> Self {
        self.transcript = Some(LogSink::file(path));
        self
    }

    /// As [`QemuConfig::qmp_transcript_to`](crate::QemuConfig::qmp_transcript_to).
    pub fn qmp_transcript_to(mut self, writer: impl Write + Send + 'static) -> Self {
        self.transcript = Some(LogSink::writer(writer));
        self
    }
}

/// The defaults but for the time to become ready.
impl From<Duration> for AttachConfig {
    fn from(deadline: Duration) -> Self {
        Self::default().deadline(deadline)
    }
}

impl Session {
    /// Joins a QEMU that runs already, at the unix socket or TCP address of its QMP monitor, within
    /// a [`Duration`] or as an [`AttachConfig`] says. That QEMU is not this session's: dropping the
    /// last handle closes the connection and leaves it running, and [`stop`](Self::stop) can only
    /// ask.
    ///
    /// # Errors
    /// [`StartError`], after the deadline at the latest. A monitor serves one client at a time:
    /// while it has another one, this session gets no greeting, and sends nothing that could run
    /// later.
    pub async fn attach(
        address: Address,
        config: impl Into<AttachConfig>,
    ) -> Result<Self, StartError> {
        ready(connect(&address), Some(&address), config.into()).await
    }

    /// As [`attach`](Self::attach), over a stream to the monitor that is open already: a relay, a
    /// tunnel, or a scripted peer in a test.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn attach_stream(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        config: impl Into<AttachConfig>,
    ) -> Result<Self, StartError> {
        let stream: BoxTransport = Box::pin(stream);
        ready(async { Ok(stream) }, None, config.into()).await
    }
}

async fn ready(
    transport: impl Future<Output = io::Result<BoxTransport>>,
    address: Option<&Address>,
    config: AttachConfig,
) -> Result<Session, StartError> {
    let AttachConfig {
        deadlines,
        transcript,
    } = config;
    let deadline = deadlines.start;
    let transcript = transcript
        .as_ref()
        .map(LogSink::open)
        .transpose()
        .map_err(transcript_error)?;
    let monitor = match address {
        Some(address) => format!("the monitor at {address}"),
        None => "the monitor at the other end of the stream".to_owned(),
    };
    let mut progress = Progress::connecting(monitor);
    let begun = timeout(deadline, async {
        let transport = transport.await.map_err(|error| progress.connect(error))?;
        let transcript = transcript.map(Transcript::new);
        let address = address.cloned();
        handshake(
            transport,
            address,
            None,
            transcript,
            deadline,
            &mut progress,
        )
        .await
    });
    let Ok(begun) = begun.await else {
        return Err(progress.deadline(deadline));
    };
    let (shared, greeting) = begun?;
    Ok(Session::new(Inner {
        shared,
        process: None,
        greeting,
        gdb: None,
        deadlines,
        config: None,
        serials: Vec::new(),
        semihosting: None,
        firmware: Arc::default(),
        snapshots: Arc::default(),
        qtest: None,
        #[cfg(feature = "rtt")]
        rtt: None,
        #[cfg(feature = "coverage")]
        code_log: None,
        stopped: OnceCell::new(),
    }))
}
