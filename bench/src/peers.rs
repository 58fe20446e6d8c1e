//! The clients that are compared, each ready to ask: this project's session, bare loops, crates
//! `qapi` and `qmp`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use qapi::futures::{QapiService, QmpStreamTokio};
use qemu_controller::{QemuConfig, Session};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::machine::{self, Machine, PATIENCE};

/// The names under which they appear.
pub const SESSION: &str = "qemu-controller";
pub const BARE: &str = "bare loop";
pub const BARE_TOKIO: &str = "bare tokio loop";
pub const BARE_PLAIN: &str = "bare tokio loop, no out-of-band";
pub const QAPI: &str = "qapi 0.15, tokio";
pub const QAPI_SYNC: &str = "qapi 0.15, sync";
pub const QMP: &str = "qmp 0.1.1";
pub const PYTHON: &str = "qemu.qmp, Python";

/// A runtime of one thread for each contender, so that none's tasks take another's time.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// The machine of all measurements but that of a whole start, the guest stopped where that is
/// wanted.
pub fn config(firmware: &Path, stopped: bool) -> QemuConfig {
    let config = QemuConfig::default()
        .firmware(firmware)
        .start_paused(stopped);
    // Fifty at once on a busy machine take their time.
    config
        .start_deadline(Duration::from_secs(60))
        .command_deadline(PATIENCE)
}

pub async fn session(firmware: &Path) -> Result<Session> {
    Ok(Session::start(config(firmware, true)).await?)
}

/// A blocking stream made tokio's.
pub fn tokio_stream(stream: std::os::unix::net::UnixStream) -> Result<UnixStream> {
    stream.set_nonblocking(true)?;
    Ok(UnixStream::from_std(stream)?)
}

/// The least that an async client does: write, read a line, look whether it is a return.
pub struct BareTokio {
    stream: BufReader<UnixStream>,
    line: String,
    _machine: Option<Machine>,
}

impl BareTokio {
    /// With a QEMU of its own; `oob` as a session negotiates.
    pub async fn start(firmware: &Path, oob: bool) -> Result<Self> {
        let (machine, stream) = machine::over_pair(firmware, true)?;
        Self::over(tokio_stream(stream)?, oob, Some(machine)).await
    }

    pub async fn over(stream: UnixStream, oob: bool, machine: Option<Machine>) -> Result<Self> {
        let mut bare = Self {
            stream: BufReader::new(stream),
            line: String::new(),
            _machine: machine,
        };
        bare.read_line().await?;
        let enable = if oob {
            r#","arguments":{"enable":["oob"]}"#
        } else {
            ""
        };
        bare.ask(
            &format!(r#"{{"execute":"qmp_capabilities"{enable}}}"#),
            1,
            1,
        )
        .await?;
        Ok(bare)
    }

    /// So many commands, so many of them in flight.
    pub async fn ask(&mut self, command: &str, count: usize, in_flight: usize) -> Result<()> {
        let (mut sent, mut answered) = (0, 0);
        let mut batch = Vec::new();
        while answered < count {
            batch.clear();
            while sent < count && sent - answered < in_flight {
                batch.extend_from_slice(command.as_bytes());
                sent += 1;
            }
            if !batch.is_empty() {
                self.stream.get_mut().write_all(&batch).await?;
            }
            self.read_line().await?;
            serde_json::from_str::<serde::de::IgnoredAny>(&self.line)?;
            ensure!(
                !self.line.starts_with(r#"{"error""#),
                "QEMU refuses {command}: {}",
                self.line
            );
            answered += usize::from(self.line.starts_with(r#"{"return""#));
        }
        Ok(())
    }

    async fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        let length = self.stream.read_line(&mut self.line).await?;
        ensure!(length > 0, "QEMU closed its monitor");
        Ok(())
    }

    /// The stream, with what was read of it.
    pub fn into_stream(self) -> BufReader<UnixStream> {
        self.stream
    }
}

/// `qapi`'s async service, its reader in a task of its own.
pub type Qapi = Arc<QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>>;

/// The reader's side, for events.
pub type QapiEvents = qapi::futures::QapiEvents<QmpStreamTokio<ReadHalf<UnixStream>>>;

pub async fn qapi_over(stream: UnixStream) -> Result<(Qapi, QapiEvents)> {
    let stream = QmpStreamTokio::open(stream).await?.negotiate().await?;
    let (service, events) = stream.into_parts();
    Ok((Arc::new(service), events))
}

pub async fn qapi(firmware: &Path) -> Result<(Machine, Qapi)> {
    let (machine, stream) = machine::over_pair(firmware, true)?;
    let (service, events) = qapi_over(tokio_stream(stream)?).await?;
    events.spawn_tokio();
    Ok((machine, service))
}

type SyncStream = std::os::unix::net::UnixStream;
pub type QapiSync = qapi::Qmp<qapi::Stream<std::io::BufReader<SyncStream>, SyncStream>>;

pub fn qapi_sync_over(stream: SyncStream) -> Result<QapiSync> {
    let reader = std::io::BufReader::new(stream.try_clone()?);
    let mut client = qapi::Qmp::new(qapi::Stream::new(reader, stream));
    client.handshake()?;
    Ok(client)
}

/// `qmp` connects by itself; tried again where QEMU does not listen yet, as its users have to.
pub async fn qmp_at(path: &Path) -> Result<qmp::Client> {
    retry(async || Ok(qmp::Client::connect(qmp::Endpoint::unix(path)).await?)).await
}

/// Every 10 ms, as who starts a QEMU that listens commonly does.
pub async fn retry<T>(mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let attempts = async {
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts)
        .await
        .context("it never listened")
}
