//! Saving a snapshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::SnapshotSave;
use tracing::debug;

use super::error::SnapshotError;
use super::name::{self, Tag};
use super::store::{self, Store};
use super::{Seen, delete, devices, generation, job, latest, saved_in, sd_card};
use crate::operation::Operation;
use crate::session::Session;

/// A save that is to be: await it, or say more before. Made by [`Session::save_snapshot`].
#[derive(Debug)]
#[must_use = "nothing is saved before it is awaited"]
pub struct SaveSnapshot<'a> {
    session: &'a Session,
    name: &'a str,
    overwrite: bool,
}

impl<'a> SaveSnapshot<'a> {
    pub(super) fn new(session: &'a Session, name: &'a str) -> Self {
        Self { session, name, overwrite: false }
    }

    /// Replaces the snapshot of this name, if there is one. It is deleted only after the new one has been saved
    /// whole.
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }
}

impl<'a> IntoFuture for SaveSnapshot<'a> {
    type Output = Result<(), SnapshotError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            name::check(self.name)?;
            let (name, store) = (self.name.to_owned(), Arc::clone(&self.session.inner.snapshots));
            let save = async move |operation| save(operation, &store, name, self.overwrite).await;
            self.session.operation(SnapshotSave::NAME, save).await
        })
    }
}

async fn save(
    operation: Operation,
    store: &Store,
    name: String,
    overwrite: bool,
) -> Result<(), SnapshotError> {
    let seen = Seen::look(&operation, store).await?;
    let node = store.node_to_save(&operation).await?;
    let nodes = store::nodes(&operation).await?;
    // The disks may still have snapshots of sessions whose own image is gone, and QEMU refuses a tag that any of
    // them has.
    let generation = generation(&nodes, &name).saturating_add(1);
    let saved = saved_in(nodes, &node);
    if latest(&saved, &name).is_some() && !overwrite {
        return Err(SnapshotError::Exists { name });
    }
    let taken_with = store.identity(&operation).await?.cloned();
    let running = Some(seen.before.running);
    let tag = Tag { name, generation, running, taken_with };

    let devices = devices(&node, &seen.disks);
    let (id, text) = (store.job_id(), tag.to_string());
    let command = SnapshotSave { job_id: &id, tag: &text, vmstate: &node, devices: &devices };
    let job = job::run(&operation, &id, &command);
    let result = sd_card::without(&operation, store.cards(&operation).await?, job).await;
    // QEMU has done so itself, unless the job failed in between.
    operation.put_back(&seen.before).await?;
    result?;
    let replaced = saved.iter().filter(|(_, old)| old.name == tag.name);
    let replaced: Vec<_> = replaced.map(|(info, _)| info.name.as_str()).collect();
    if let Err(error) = delete(&operation, store, &replaced, &devices).await {
        // The new one counts already; the next save over it tries again.
        debug!(%error, "the replaced snapshot is still there");
    }
    Ok(())
}
