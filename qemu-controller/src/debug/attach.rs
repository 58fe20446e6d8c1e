//! A debugger at the stub, and how it leaves: points out, the stub taken away if it was made for
//! this, and the guest let run if it is to run.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use gdb_remote::client::{Client, Reply};
use gdb_remote::handshake::StubIdentity;
use gdb_remote::reply::{Id, StopReply, ThreadId};
use gdb_remote::target::{Target, TargetReader};
use qmp_proto::Command;
use qmp_proto::commands::{Cont, QueryStatus, RunState, Stop};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{Instrument as _, debug};

use super::connect::{self, Owner};
use super::error::DebugError;
use super::questions::Question;
use super::registers::Layout;
use super::stub::{Attention, Stub};
use super::{KeepAlive, UNATTENDED};
use crate::client::Shared;
use crate::client::command::command;
use crate::client::run_state::{DebuggerPlace, RunRequests};
use crate::client::transport::UnixSocket;

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
const BIG_ENDIAN: [&str; 13] = [
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
    "xtensaeb",
];

/// More clusters than any machine of QEMU's has.
const MOST_CLUSTERS: u32 = 16;

/// A stub that is ours.
pub(super) struct Attachment {
    pub(super) shared: Arc<Shared>,
    pub(super) stub: Arc<Stub>,
    owner: Owner,
    /// What the handshake found, the description of the first cluster's cores in it.
    pub(super) identity: StubIdentity,
    /// The cores of each cluster, the first cluster's first.
    pub(super) clusters: Vec<Cluster>,
    /// All cores; none where the stub does not list them.
    pub(super) cores: Vec<ThreadId>,
    pub(super) big_endian: bool,
    /// QEMU's name of the architecture.
    pub(super) arch: String,
    /// Keeps a QEMU that outlives its session from being let go before the stub is gone.
    _keep_alive: Option<KeepAlive>,
}

/// Cores that are described alike. The stub calls it a process.
pub(super) struct Cluster {
    process: Option<Id>,
    /// Empty where the stub describes them not, or not so that it can be read, and nobody else
    /// knows them.
    pub(super) target: Target,
    pub(super) layout: Arc<Layout>,
}

/// Takes the stub away when it is dropped, in a task of its own, and gives its place free then.
pub(super) struct CloseOnDrop {
    attachment: Arc<Attachment>,
    /// Until another has it.
    place: Option<Place>,
}

impl Deref for CloseOnDrop {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.attachment
    }
}

impl CloseOnDrop {
    pub(super) fn new(attachment: Arc<Attachment>, place: Place) -> Self {
        Self {
            attachment,
            place: Some(place),
        }
    }

    /// For a task that may outlive it.
    pub(super) fn share(&self) -> Arc<Attachment> {
        Arc::clone(&self.attachment)
    }

    /// The stub is another's to take away.
    pub(super) fn release(mut self) -> (Arc<Attachment>, Option<Place>) {
        (Arc::clone(&self.attachment), self.place.take())
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        place.set(DebuggerPlace::Closing);
        let attachment = Arc::clone(&self.attachment);
        let shared = Arc::clone(&attachment.shared);
        let span = shared.span.clone();
        let closing = async move {
            let turn = attachment
                .shared
                .take_turn("gdbserver none", UNATTENDED.into())
                .await;
            if turn.is_ok() {
                attachment.close_logged().await;
            }
            drop(place);
        };
        shared.runtime.spawn(closing.instrument(span));
    }
}

/// The session has one debugger at a time; this is its place. Dropped, it is free.
pub(super) struct Place(Arc<Shared>);

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
        Ok(Self(shared))
    }

    pub(super) fn set(&self, place: DebuggerPlace) {
        self.0.run_requests.debugger.send_replace(place);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.set(DebuggerPlace::Free);
    }
}

impl Attachment {
    /// Connects to the stub. The turn is the caller's; nobody else changes the run state meanwhile.
    pub(super) async fn open(
        shared: Arc<Shared>,
        keep_alive: Option<KeepAlive>,
        deadline: Duration,
    ) -> Result<Arc<Self>, DebugError> {
        let TargetInfo { arch } = command(&shared, deadline, &QueryTarget {}).await?;
        let was_running = command(&shared, deadline, &QueryStatus).await?.running;
        let (socket, owner) = connect::connect(&shared, deadline).await?;
        let stub = Stub::new(UnixSocket::new(socket).map_err(DebugError::Socket)?);
        // The handshake's events are read here, and not by the reader task.
        let _attention = Attention::new(&stub);
        stub.state().should_run = was_running;
        shared.run_requests.last.store(0, Relaxed);
        let mut attachment = Self {
            shared,
            stub,
            owner,
            identity: StubIdentity::default(),
            clusters: Vec::new(),
            cores: Vec::new(),
            big_endian: BIG_ENDIAN.contains(&arch.as_str()),
            arch,
            _keep_alive: keep_alive,
        };
        match attachment.look_around(deadline).await {
            Ok(()) => Ok(Arc::new(attachment)),
            Err(error) => {
                attachment.close_logged().await;
                Err(error)
            }
        }
    }

    /// Reads who the stub is, and which cores there are.
    async fn look_around(&mut self, deadline: Duration) -> Result<(), DebugError> {
        self.identity = self.stub.connected(deadline).await?;
        let first = self.identity.stop.as_ref().and_then(StopReply::thread);
        self.stub.state().thread = first;
        let target = self.identity.target.clone().unwrap_or_default();
        self.add_cluster(first, target);
        if self.identity.features.supports("multiprocess") {
            self.attach_clusters(first, deadline).await?;
        }
        let cores = self.stub.ask("the threads", deadline, Client::threads);
        self.cores = match cores.await {
            Ok(Reply::Threads(cores)) => cores,
            Ok(_) | Err(DebugError::Refused { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// The stub's clients have the first cluster of a machine; a stop in another would be taken for
    /// one in that. The cores of another may have other registers, and the same ones under other
    /// numbers.
    async fn attach_clusters(
        &mut self,
        first: Option<ThreadId>,
        deadline: Duration,
    ) -> Result<(), DebugError> {
        for process in 2..=MOST_CLUSTERS {
            let attach = format!("vAttach;{process:x}");
            let reply = self
                .stub
                .ask("attaching a cluster", deadline, |client| {
                    client.send_packet(attach.as_bytes())
                })
                .await?;
            let Reply::Packet(reply) = reply else { break };
            let Some(stop @ StopReply::Signal { .. }) = StopReply::parse(&reply) else {
                break;
            };
            // That made it the current one.
            let target = self.description(deadline).await?;
            self.add_cluster(stop.thread(), target);
            if let Some(first) = first {
                self.stub
                    .ask_all(&[Question::Select(first)], deadline)
                    .await?;
            }
        }
        Ok(())
    }

    fn add_cluster(&mut self, core: Option<ThreadId>, target: Target) {
        let target = match target.registers.is_empty() {
            true => Target::undescribed(&self.arch).unwrap_or(target),
            false => target,
        };
        self.clusters.push(Cluster {
            process: core.and_then(|core| core.process),
            layout: Layout::new(&target, self.big_endian),
            target,
        });
    }

    /// Reads the description of the current core's cluster; an empty one where there is none that
    /// can be read.
    async fn description(&self, deadline: Duration) -> Result<Target, DebugError> {
        let piece = self.identity.features.description_piece();
        let mut reader = TargetReader::new();
        while let Some(question) = reader.question(piece) {
            let reply = self
                .stub
                .ask("reading the target description", deadline, |client| {
                    client.send_packet(&question)
                })
                .await?;
            let Reply::Packet(payload) = reply else { break };
            if !matches!(reader.handle_reply(&payload), Ok(true)) {
                break;
            }
        }
        Ok(reader.finish().unwrap_or_default())
    }

    /// The cluster that a core belongs to; the first where that is not known.
    pub(super) fn cluster(&self, core: Option<ThreadId>) -> &Cluster {
        let process = core.and_then(|core| core.process);
        let mut clusters = self.clusters.iter();
        let found = clusters.find(|cluster| cluster.process == process);
        found.unwrap_or(&self.clusters[0])
    }

    /// Whether the guest runs, as QEMU answers. The turn is the caller's.
    pub(super) async fn is_running(&self, deadline: Duration) -> Result<bool, DebugError> {
        Ok(self.status(deadline).await? == RunState::Running)
    }

    /// What the guest does, as QEMU answers. The turn is the caller's.
    pub(super) async fn status(&self, deadline: Duration) -> Result<RunState, DebugError> {
        let status = command(&self.shared, deadline, &QueryStatus).await?.status;
        if !self.stub.state().runs {
            self.stub.note(status == RunState::Running);
        }
        Ok(status)
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
        let removals = self.stub.state().removals();
        self.stub.ask_all(&removals, deadline).await.map(drop)
    }

    /// Puts back what was in a register that was changed for a look.
    pub(super) async fn put_back(&self, deadline: Duration) -> Result<(), DebugError> {
        let Some((number, bytes)) = self.stub.state().put_back.clone() else {
            return Ok(());
        };
        self.stub
            .ask("writing a register", deadline, |client| {
                client.write_register(number, &bytes)
            })
            .await?;
        self.stub.state().put_back = None;
        Ok(())
    }

    /// Makes the thread the current one again that was it before others were looked at.
    pub(super) async fn select_back(&self, deadline: Duration) -> Result<(), DebugError> {
        let Some(thread) = self.stub.state().back_to else {
            return Ok(());
        };
        self.stub
            .ask_all(&[Question::Select(thread)], deadline)
            .await?;
        self.stub.state().back_to = None;
        Ok(())
    }

    /// Whether the guest is to run when the debugger lets go of it.
    pub(super) fn should_run(&self) -> bool {
        let last = self.shared.run_requests.last.load(Relaxed);
        self.stub.state().should_run && last != RunRequests::STOP
    }

    /// After a verb that was dropped in the middle: nothing of it is left, and the guest runs on if
    /// it was to. The turn is the caller's.
    pub(super) async fn clean_up(&self, deadline: Duration) -> Result<(), DebugError> {
        let (is_dirty, is_away) = {
            let state = self.stub.state();
            (state.is_dirty, state.back_to.is_some())
        };
        if is_dirty {
            self.stop(deadline).await?;
        } else if !is_away || self.is_running(deadline).await? {
            // Of a guest that runs, the next stop says which thread is current.
            return Ok(());
        }
        self.select_back(deadline).await?;
        if !is_dirty {
            return Ok(());
        }
        self.put_back(deadline).await?;
        self.remove_points(deadline).await?;
        let is_moving = self.stub.state().is_moving;
        if is_moving {
            self.run_on(deadline).await?;
        }
        // Dropped before, all of it is done once more.
        let mut state = self.stub.state();
        (state.is_dirty, state.is_moving) = (false, false);
        Ok(())
    }

    /// Lets a stopped guest run, if it is to run and can.
    async fn run_on(&self, deadline: Duration) -> Result<(), DebugError> {
        if self.should_run() && run_on(&self.shared, deadline).await? {
            self.stub.note(true);
        }
        Ok(())
    }

    /// Takes the stub away, and lets the guest run if it is to run.
    pub(super) async fn close_logged(&self) {
        if let Err(error) = self.close().await {
            // A QEMU that has ended, mostly.
            debug!(%error, "the stub was not taken away in order");
        }
    }

    async fn close(&self) -> Result<(), DebugError> {
        // The answers are read here, and not by the reader task.
        let _attention = Attention::new(&self.stub);
        self.stub.idle(UNATTENDED).await;
        let was_running = self.is_running(UNATTENDED).await?;
        if !self.stub.state().points.is_empty() {
            self.stop(UNATTENDED).await?;
            self.remove_points(UNATTENDED).await?;
        }
        if self.owner == Owner::Us {
            connect::remove(&self.shared, UNATTENDED).await?;
        }
        self.stub.hang_up();
        if was_running {
            // Only if it was stopped for this.
            self.stub.state().should_run = true;
        }
        self.run_on(UNATTENDED).await
    }
}

/// Lets a stopped guest run if it can; whether it does.
pub(super) async fn run_on(shared: &Shared, deadline: Duration) -> Result<bool, DebugError> {
    let state = command(shared, deadline, &QueryStatus).await?.status;
    let can = matches!(
        state,
        RunState::Paused | RunState::Debug | RunState::Prelaunch
    );
    if can {
        command(shared, deadline, &Cont).await?;
    }
    Ok(can)
}
