//! Saving a snapshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::{RunState, SnapshotSave};
use tracing::debug;

use super::error::SnapshotError;
use super::name::{self, Tag};
use super::seen::Seen;
use super::store::Store;
use super::{delete, sd_card};
use crate::client::transaction::Transaction;
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
        Self {
            session,
            name,
            overwrite: false,
        }
    }

    /// Replaces the snapshot of this name, if there is one. It is deleted only after the new one
    /// has been saved whole.
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
            let (name, store) = (
                self.name.to_owned(),
                Arc::clone(&self.session.inner.snapshots),
            );
            let save = async move |operation| save(operation, &store, name, self.overwrite).await;
            self.session.transaction(SnapshotSave::NAME, save).await
        })
    }
}

async fn save(
    operation: Transaction,
    store: &Store,
    name: String,
    overwrite: bool,
) -> Result<(), SnapshotError> {
    let mut seen = Seen::look(&operation, store).await?;
    if seen.listed.node.is_none() {
        store.node_to_save(&operation).await?;
        seen = Seen::look(&operation, store).await?;
    }
    match save_as_seen(&operation, store, &seen, &name, overwrite).await {
        Err(error) => match seen.anew(&error, &operation, store).await? {
            Some(seen) => save_as_seen(&operation, store, &seen, &name, overwrite).await,
            None => Err(error),
        },
        saved => saved,
    }
}

async fn save_as_seen(
    operation: &Transaction,
    store: &Store,
    seen: &Seen,
    name: &str,
    overwrite: bool,
) -> Result<(), SnapshotError> {
    let listed = &seen.listed;
    let replaced: Vec<_> = listed
        .with_name(name)
        .map(|saved| saved.text.as_str())
        .collect();
    if !replaced.is_empty() && !overwrite {
        return Err(SnapshotError::Exists {
            name: name.to_owned(),
        });
    }
    let Some(node) = &listed.node else {
        return Err(listed.missing(name));
    };
    let taken_with = store.identity(operation).await?.cloned();
    let (generation, running) = (
        listed.next_generation(name),
        seen.before == RunState::Running,
    );
    let tag = Tag {
        name: name.to_owned(),
        generation,
        running: Some(running),
        taken_with,
    };

    let devices = listed.devices(node);
    let (id, text) = (operation.blocks().name(), tag.to_string());
    let command = SnapshotSave {
        job_id: &id,
        tag: &text,
        vmstate: node,
        devices: &devices,
    };
    let saved = sd_card::job_without(operation, store.cards(operation).await?, &id, &command).await;
    if saved.is_err() {
        // A save that is done has done so itself.
        operation.run(running).await?;
    }
    saved?;
    store.saved(&text);
    if let Err(error) = delete(operation, store, &replaced, &devices).await {
        // The new one counts already; the next save over it tries again.
        debug!(%error, "the replaced snapshot is still there");
    }
    Ok(())
}
