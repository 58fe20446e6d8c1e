//! Loading a snapshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::{Cont, QueryStatus, RunState, SnapshotLoad, Stop};

use super::error::SnapshotError;
use super::name::{self, Tag};
use super::seen::Seen;
use super::store::Store;
use super::{reset, sd_card};
use crate::client::transaction::Transaction;
use crate::error::CommandError;
use crate::serial::Serial;
use crate::session::Session;

/// What the guest does after a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterLoad {
    /// It runs if it ran before the call.
    #[default]
    AsBefore,
    /// It runs if it ran when it was saved; as before the call where the snapshot does not say.
    AsSaved,
    /// It stands still, and has not run one instruction since it was saved.
    Paused,
    /// It runs.
    Running,
}

/// A load that is to be: await it, or say more before. Made by [`Session::load_snapshot`].
#[derive(Debug)]
#[must_use = "nothing is loaded before it is awaited"]
pub struct LoadSnapshot<'a> {
    session: &'a Session,
    name: &'a str,
    wanted: Wanted,
}

/// How it is to be loaded.
#[derive(Debug, Default)]
struct Wanted {
    then: AfterLoad,
    unchecked: bool,
    /// Nothing that the guest printed before is to be read after it.
    without_output: Option<Vec<Serial>>,
}

impl<'a> LoadSnapshot<'a> {
    pub(super) fn new(session: &'a Session, name: &'a str) -> Self {
        Self {
            session,
            name,
            wanted: Wanted::default(),
        }
    }

    /// What the guest does then. Default: what it did before the call.
    pub fn then(mut self, then: AfterLoad) -> Self {
        self.wanted.then = then;
        self
    }

    /// Loads it though it was taken with something else, or by something else that left no note.
    /// QEMU finds most misfits itself, but some only in the middle of the load, which ruins the
    /// state of the guest that runs, and some by an abort.
    pub fn unchecked(mut self) -> Self {
        self.wanted.unchecked = true;
        self
    }

    /// Drops what was printed before and nobody has read, while the guest stands still: so nothing
    /// is dropped that it prints after the load.
    pub(super) fn without_output(mut self) -> Self {
        let ports = self
            .session
            .inner
            .serials
            .iter()
            .flatten()
            .chain(&self.session.inner.semihosting);
        self.wanted.without_output = Some(ports.cloned().collect());
        self
    }
}

impl<'a> IntoFuture for LoadSnapshot<'a> {
    type Output = Result<(), SnapshotError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            name::check(self.name)?;
            let (name, store) = (
                self.name.to_owned(),
                Arc::clone(&self.session.inner.snapshots),
            );
            let wanted = self.wanted;
            let load = async move |operation| load(operation, &store, name, wanted).await;
            self.session.transaction(SnapshotLoad::NAME, load).await
        })
    }
}

async fn load(
    operation: Transaction,
    store: &Store,
    name: String,
    wanted: Wanted,
) -> Result<(), SnapshotError> {
    let seen = Seen::look(&operation, store).await?;
    match load_as_seen(&operation, store, &seen, &name, &wanted).await {
        Err(error) => match seen.anew(&error, &operation, store).await? {
            Some(seen) => load_as_seen(&operation, store, &seen, &name, &wanted).await,
            None => Err(error),
        },
        loaded => loaded,
    }
}

async fn load_as_seen(
    operation: &Transaction,
    store: &Store,
    seen: &Seen,
    name: &str,
    wanted: &Wanted,
) -> Result<(), SnapshotError> {
    let listed = &seen.listed;
    let (Some(node), Some(saved)) = (&listed.node, listed.latest(name)) else {
        return Err(listed.missing(name));
    };
    let tag = &saved.tag;
    if !wanted.unchecked {
        fits(operation, store, tag).await?;
    }
    let ran = seen.before == RunState::Running;
    let run = match wanted.then {
        AfterLoad::AsBefore => ran,
        AfterLoad::AsSaved => tag.running.unwrap_or(ran),
        AfterLoad::Paused => false,
        AfterLoad::Running => true,
    };
    // Another's snapshot may have the SD card in it: while it is out, the load fails where QEMU
    // would abort.
    let out = if tag.is_ours() {
        &[]
    } else {
        store.cards(operation).await?
    };
    let devices = listed.devices(node);
    let mut before = seen.before.clone();
    loop {
        // QEMU lets a guest that ran run on at once.
        let runs_on = before == RunState::Running && run && wanted.without_output.is_none();
        if !runs_on {
            stand(operation, store, &before).await?;
        }
        let id = operation.blocks().name();
        let command = SnapshotLoad {
            job_id: &id,
            tag: &saved.text,
            vmstate: node,
            devices: &devices,
        };
        let loaded = sd_card::job_without(operation, out, &id, &command).await;
        // Until it is known to run.
        store.loaded(false);
        match loaded {
            // It stood still already, and that had not been read when it was looked for; or events
            // were missed.
            Ok(false) if runs_on => match operation.command(&QueryStatus).await?.status {
                RunState::Running => {}
                stands => {
                    before = stands;
                    continue;
                }
            },
            Ok(_) => {}
            Err(error) => {
                operation.run(ran).await?;
                store.loaded(ran);
                return Err(error);
            }
        }
        wanted
            .without_output
            .iter()
            .flatten()
            .for_each(|port| drop(port.take()));
        if run && !runs_on {
            operation.command(&Cont).await?;
        }
        store.loaded(run);
        return Ok(());
    }
}

/// Has the guest stand as it must for a load after which it does not run on by itself.
async fn stand(
    operation: &Transaction,
    store: &Store,
    before: &RunState,
) -> Result<(), CommandError> {
    if *before == RunState::Running {
        operation.command(&Stop).await?;
        // If something else had stopped it, that has been read by now.
        return reset::revive(operation, &operation.known_run_state()).await;
    }
    reset::revive(operation, before).await?;
    store.settle(operation).await
}

/// Whether it was taken with what there is now. In a session's own image everything was.
async fn fits(operation: &Transaction, store: &Store, tag: &Tag) -> Result<(), SnapshotError> {
    let Some(now) = store.identity(operation).await? else {
        return Ok(());
    };
    let name = tag.name.clone();
    let Some(saved) = &tag.taken_with else {
        return Err(SnapshotError::UnknownOrigin { name });
    };
    match saved.differences(now) {
        differences if differences.is_empty() => Ok(()),
        differences => Err(SnapshotError::Misfit { name, differences }),
    }
}
