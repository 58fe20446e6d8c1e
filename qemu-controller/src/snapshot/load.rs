//! Loading a snapshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::{SnapshotLoad, Stop};

use super::error::SnapshotError;
use super::name::{self, Tag};
use super::store::Store;
use super::{Seen, devices, job, latest, missing, read, sd_card};
use crate::operation::Operation;
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
    then: AfterLoad,
    unchecked: bool,
}

impl<'a> LoadSnapshot<'a> {
    pub(super) fn new(session: &'a Session, name: &'a str) -> Self {
        Self { session, name, then: AfterLoad::default(), unchecked: false }
    }

    /// What the guest does then. Default: what it did before the call.
    pub fn then(mut self, then: AfterLoad) -> Self {
        self.then = then;
        self
    }

    /// Loads it though it was taken with something else, or by something else that left no note. QEMU finds most
    /// misfits itself, but some only in the middle of the load, which ruins the state of the guest that runs, and
    /// some by an abort.
    pub fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }
}

impl<'a> IntoFuture for LoadSnapshot<'a> {
    type Output = Result<(), SnapshotError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            name::check(self.name)?;
            let (name, store) = (self.name.to_owned(), Arc::clone(&self.session.inner.snapshots));
            let (then, unchecked) = (self.then, self.unchecked);
            let load = async move |operation| load(operation, &store, name, then, unchecked).await;
            self.session.operation(SnapshotLoad::NAME, load).await
        })
    }
}

async fn load(
    operation: Operation,
    store: &Store,
    name: String,
    then: AfterLoad,
    unchecked: bool,
) -> Result<(), SnapshotError> {
    let seen = Seen::look(&operation, store).await?;
    let Some(node) = store.node(&operation).await? else {
        return Err(missing(&name, &[]));
    };
    let saved = read(&operation, &node).await?;
    let Some(tag) = latest(&saved, &name) else {
        return Err(missing(&name, &saved));
    };
    if !unchecked {
        fits(&operation, store, tag).await?;
    }
    let run = match then {
        AfterLoad::AsBefore => seen.before.running,
        AfterLoad::AsSaved => tag.running.unwrap_or(seen.before.running),
        AfterLoad::Paused => false,
        AfterLoad::Running => true,
    };
    if seen.before.running && !run {
        // QEMU lets a guest that ran run on at once.
        operation.command(&Stop).await?;
    } else if !seen.before.running {
        store.settle(&operation).await?;
    }
    // Another's snapshot may have the SD card in it: while it is out, the load fails where QEMU would abort.
    let out = if tag.is_ours() { &[] } else { store.cards(&operation).await? };
    let devices = devices(&node, &seen.disks);
    let (id, text) = (store.job_id(), tag.to_string());
    let command = SnapshotLoad { job_id: &id, tag: &text, vmstate: &node, devices: &devices };
    let loaded = sd_card::without(&operation, out, job::run(&operation, &id, &command)).await;
    let run = if loaded.is_ok() { run } else { seen.before.running };
    operation.run(run).await?;
    store.loaded(run);
    loaded
}

/// Whether it was taken with what there is now. In a session's own image everything was.
async fn fits(operation: &Operation, store: &Store, tag: &Tag) -> Result<(), SnapshotError> {
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
