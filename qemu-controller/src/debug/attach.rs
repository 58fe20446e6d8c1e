//! The stub, made when it is asked for and taken away when it is no longer needed: no port, no
//! listener.
//!
//! ```text
//!  socket pair ─► getfd (SCM_RIGHTS) ─► chardev-add ─► gdbserver chardev:ID ─► handshake
//!  drop ─► points out ─► gdbserver none ─► cont, if it is to run
//! ```

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gdb_port::Chardev;
use gdb_remote::handshake::StubIdentity;
use gdb_remote::reply::StopReply;
use qmp_proto::commands::{ChardevInfo, Cont, QueryChardev, QueryStatus, RunState, Stop};
use qmp_proto::{Command, Empty};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{Instrument as _, debug};

use super::UNATTENDED;
use super::error::DebugError;
use super::stub::{Attention, Stub};
use crate::client::Shared;
use crate::client::command::command;
use crate::client::run_state::{DebuggerPlace, RunRequests};
use crate::client::transport::tokio_stream;
use crate::error::CommandError;

/// Distinguishes the chardevs of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Serialize)]
struct Getfd {
    fdname: String,
}

impl Command for Getfd {
    const NAME: &'static str = "getfd";
    type Return = Empty;
}

/// `chardev-add` of a socket whose descriptor was passed before.
#[derive(Serialize)]
struct AddChardev {
    id: String,
    backend: serde_json::Value,
}

impl Command for AddChardev {
    const NAME: &'static str = "chardev-add";
    type Return = serde_json::Value;
}

#[derive(Serialize)]
struct HumanMonitor {
    #[serde(rename = "command-line")]
    line: String,
}

impl Command for HumanMonitor {
    const NAME: &'static str = "human-monitor-command";
    type Return = String;
}

#[derive(Serialize)]
struct QueryTarget {}

#[derive(Deserialize)]
pub(super) struct TargetInfo {
    arch: String,
}

impl Command for QueryTarget {
    const NAME: &'static str = "query-target";
    type Return = TargetInfo;
}

/// QEMU's targets whose words begin with their highest byte.
const BIG_ENDIAN: [&str; 12] = [
    "hppa",
    "m68k",
    "microblaze",
    "mips",
    "mips64",
    "or1k",
    "ppc",
    "ppc64",
    "s390x",
    "sh4eb",
    "sparc",
    "sparc64",
];

/// A stub that is ours.
pub(super) struct Attachment {
    pub(super) shared: Arc<Shared>,
    pub(super) stub: Arc<Stub>,
    identity: OnceLock<StubIdentity>,
    pub(super) big_endian: bool,
    /// QEMU's name of the architecture.
    pub(super) arch: String,
    /// Keeps a QEMU that outlives its session from being let go before the stub is gone.
    _keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// Takes the stub away when it is dropped, in a task of its own.
pub(super) struct CloseOnDrop(Arc<Attachment>);

impl Deref for CloseOnDrop {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.0
    }
}

impl CloseOnDrop {
    /// For a task that may outlive it.
    pub(super) fn share(&self) -> Arc<Attachment> {
        Arc::clone(&self.0)
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let attachment = Arc::clone(&self.0);
        let shared = Arc::clone(&attachment.shared);
        shared
            .run_requests
            .debugger
            .send_replace(DebuggerPlace::Closing);
        let span = shared.span.clone();
        let closing = async move {
            let turn = attachment
                .shared
                .take_turn("gdbserver none", UNATTENDED.into())
                .await;
            if let (Ok(_turn), Err(error)) = (&turn, attachment.close().await) {
                // A QEMU that has ended, mostly.
                debug!(%error, "the stub was not taken away in order");
            }
            let place = &attachment.shared.run_requests.debugger;
            place.send_replace(DebuggerPlace::Free);
        };
        shared.runtime.spawn(closing.instrument(span));
    }
}

/// The session has one debugger at a time; this is its place, while the stub is being made.
pub(super) struct Place(Option<Arc<Shared>>);

impl Place {
    /// Waits for an earlier debugger's stub to be gone.
    pub(super) async fn take(shared: Arc<Shared>, deadline: Duration) -> Result<Self, DebugError> {
        let place = &shared.run_requests.debugger;
        let mut free = false;
        let mut seen = place.subscribe();
        while !free {
            let is_settled = |place: &DebuggerPlace| *place != DebuggerPlace::Closing;
            let waited = timeout(deadline, seen.wait_for(is_settled)).await;
            if !waited.is_ok_and(|place| place.is_ok_and(|place| *place == DebuggerPlace::Free)) {
                return Err(DebugError::Busy);
            }
            free = place.send_if_modified(|place| {
                let free = *place == DebuggerPlace::Free;
                if free {
                    *place = DebuggerPlace::Open;
                }
                free
            });
        }
        Ok(Self(Some(Arc::clone(&shared))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared
                .run_requests
                .debugger
                .send_replace(DebuggerPlace::Free);
        }
    }
}

impl Attachment {
    /// Makes the stub. The turn is the caller's; nobody else changes the run state meanwhile.
    pub(super) async fn open(
        mut place: Place,
        shared: Arc<Shared>,
        keep_alive: Option<Arc<dyn Any + Send + Sync>>,
        deadline: Duration,
    ) -> Result<CloseOnDrop, DebugError> {
        let chardevs = command(&shared, deadline, &QueryChardev).await?;
        let listens = |chardev: &&ChardevInfo| {
            chardev.label == "gdb" && Chardev::parse(&chardev.filename).is_some()
        };
        if let Some(stub) = chardevs.iter().find(listens) {
            return Err(DebugError::StubListens(stub.filename.clone()));
        }
        let TargetInfo { arch } = command(&shared, deadline, &QueryTarget {}).await?;
        let was_running = command(&shared, deadline, &QueryStatus).await?.running;
        let (ours, theirs) = UnixStream::pair().map_err(DebugError::Socket)?;
        let name = format!("qemu-controller-gdb-{}", NEXT.fetch_add(1, Relaxed));
        pass(&shared, &theirs).await?;
        let fdname = name.clone();
        command(&shared, deadline, &Getfd { fdname }).await?;
        drop(theirs);
        let backend = serde_json::json!({ "type": "socket", "data": {
            "addr": { "type": "fd", "data": { "str": name } }, "server": false,
        }});
        let id = name.clone();
        command(&shared, deadline, &AddChardev { id, backend }).await?;
        let stub = Stub::new(tokio_stream(ours).map_err(DebugError::Socket)?);
        // The handshake's events are read here, and not by the reader task.
        let _attention = Attention::new(&stub);
        stub.state().should_run = was_running;
        shared.run_requests.last.store(0, Relaxed);
        // From here on the stub is taken away, whatever happens.
        place.0 = None;
        let closing = CloseOnDrop(Arc::new(Self {
            shared,
            stub,
            identity: OnceLock::new(),
            big_endian: BIG_ENDIAN.contains(&arch.as_str()),
            arch,
            _keep_alive: keep_alive,
        }));
        let attachment = &closing;
        let line = format!("gdbserver chardev:{name}");
        let said = attachment.human_monitor(line.clone(), deadline).await?;
        if !said.contains("Waiting for gdb connection") {
            let text = said.trim().to_owned();
            return Err(CommandError::HumanMonitor { line, text }.into());
        }
        let identity = attachment.stub.connected(deadline).await?;
        let _ = attachment.identity.set(identity);
        Ok(closing)
    }

    async fn human_monitor(&self, line: String, deadline: Duration) -> Result<String, DebugError> {
        Ok(command(&self.shared, deadline, &HumanMonitor { line }).await?)
    }

    /// Whether the guest runs, as QEMU answers. The turn is the caller's.
    pub(super) async fn is_running(&self, deadline: Duration) -> Result<bool, DebugError> {
        let is_running = command(&self.shared, deadline, &QueryStatus).await?.running;
        if !self.stub.state().runs {
            self.stub.note(is_running);
        }
        Ok(is_running)
    }

    /// What the handshake found.
    pub(super) fn identity(&self) -> &StubIdentity {
        self.identity.get_or_init(StubIdentity::default)
    }

    /// Stops the guest if it runs, and reads the stub's stop reply. The turn is the caller's.
    pub(super) async fn stop(&self, deadline: Duration) -> Result<Option<StopReply>, DebugError> {
        // What lets the guest run may still be on its way.
        self.stub.idle(deadline).await;
        if self.is_running(deadline).await? {
            command(&self.shared, deadline, &Stop).await?;
        }
        let what = "that the guest stopped";
        let mut reply = None;
        while self.stub.state().runs {
            let stopped = timeout(deadline, self.stub.stopped()).await;
            reply = Some(stopped.map_err(|_| DebugError::Deadline { what, deadline })??);
        }
        self.stub.note(false);
        Ok(reply)
    }

    /// Takes out what a verb has set, in a guest that is stopped.
    pub(super) async fn remove_points(&self, deadline: Duration) -> Result<(), DebugError> {
        loop {
            let first = self.stub.state().points.first().copied();
            let Some(point @ (kind, address, size)) = first else {
                break;
            };
            self.stub
                .ask("taking a breakpoint out", deadline, |client| {
                    client.remove(kind, address, size)
                })
                .await?;
            self.stub.state().points.remove(&point);
        }
        self.stub.state().is_dirty = false;
        Ok(())
    }

    /// Whether the guest is to run when the debugger lets go of it.
    fn should_run(&self) -> bool {
        let last = self.shared.run_requests.last.load(Relaxed);
        self.stub.state().should_run && last != RunRequests::STOP
    }

    /// After a verb that was dropped in the middle: nothing of it is left, and the guest runs on if
    /// it was to. The turn is the caller's.
    pub(super) async fn clean_up(&self, deadline: Duration) -> Result<(), DebugError> {
        if !self.stub.state().is_dirty {
            return Ok(());
        }
        self.stop(deadline).await?;
        self.remove_points(deadline).await?;
        if std::mem::take(&mut self.stub.state().is_moving) {
            self.run_on(deadline).await?;
        }
        Ok(())
    }

    /// Lets a stopped guest run, if it is to run and can.
    async fn run_on(&self, deadline: Duration) -> Result<(), DebugError> {
        let state = command(&self.shared, deadline, &QueryStatus).await?.status;
        let can = matches!(
            state,
            RunState::Paused | RunState::Debug | RunState::Prelaunch
        );
        if self.should_run() && can {
            command(&self.shared, deadline, &Cont).await?;
            self.stub.note(true);
        }
        Ok(())
    }

    /// Takes the stub away.
    async fn close(&self) -> Result<(), DebugError> {
        self.stub.idle(UNATTENDED).await;
        let was_running = self.is_running(UNATTENDED).await?;
        if !self.stub.state().points.is_empty() {
            self.stop(UNATTENDED).await?;
            self.remove_points(UNATTENDED).await?;
        }
        self.human_monitor("gdbserver none".to_owned(), UNATTENDED)
            .await?;
        if was_running {
            // Only if it was stopped for this.
            self.stub.state().should_run = true;
        }
        self.run_on(UNATTENDED).await
    }
}

/// Sends QEMU's end of the pair over the monitor's socket.
async fn pass(shared: &Shared, theirs: &UnixStream) -> Result<(), DebugError> {
    loop {
        let sent = shared.state().send_descriptor(theirs.as_fd());
        match sent {
            None => return Err(DebugError::NoDescriptor),
            Some(Ok(())) => return Ok(()),
            // A command is being written; the driver is at it.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => yield_now().await,
            Some(Err(error)) => return Err(DebugError::Socket(error)),
        }
    }
}
