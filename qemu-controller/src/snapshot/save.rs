//! Saving a snapshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::{QueryBlock, RunState, SnapshotSave};
use tracing::debug;

use super::delete::delete_tags;
use super::devices::LostDevice;
use super::error::SnapshotError;
use super::listing::Precheck;
use super::name::{self, Tag};
use super::store::Store;
use crate::client::transaction::Transaction;
use crate::session::Session;

/// A save that has not begun: await it, or set more options before. Made by
/// [`Session::save_snapshot`].
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
    type Output = Result<Vec<LostDevice>, SnapshotError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            name::check(self.name)?;
            let (name, overwrite) = (self.name.to_owned(), self.overwrite);
            let store = Arc::clone(&self.session.inner.snapshots);
            let save = async move |transaction| save(&transaction, &store, &name, overwrite).await;
            self.session.transaction(SnapshotSave::NAME, save).await
        })
    }
}

pub(super) async fn save(
    transaction: &Transaction,
    store: &Store,
    name: &str,
    overwrite: bool,
) -> Result<Vec<LostDevice>, SnapshotError> {
    let record = store
        .record()
        .filter(|record| record.check_free(name, overwrite).is_ok());
    let mut precheck = match record {
        // A disk that was added since takes part.
        Some(record) if transaction.command(&QueryBlock).await?.is_empty() => {
            Precheck::from_record(transaction, record, false).await?
        }
        _ => Precheck::query(transaction, store).await?,
    };
    if precheck.listing.node.is_none() {
        store.make_image(transaction).await?;
        precheck = Precheck::query(transaction, store).await?;
    }
    match save_checked(transaction, store, &precheck, name, overwrite).await {
        Ok(lost) => Ok(lost),
        Err(error) => {
            let explain = precheck.explain(error, transaction, store, |now| {
                now.check_free(name, overwrite)
            });
            Err(explain.await)
        }
    }
}

async fn save_checked(
    transaction: &Transaction,
    store: &Store,
    precheck: &Precheck,
    name: &str,
    overwrite: bool,
) -> Result<Vec<LostDevice>, SnapshotError> {
    let listing = &precheck.listing;
    listing.check_free(name, overwrite)?;
    let Some(node) = &listing.node else {
        return Err(listing.missing(name));
    };
    let running = precheck.run_state == RunState::Running;
    let tag = Tag {
        name: name.to_owned(),
        generation: listing.next_generation(name),
        running: Some(running),
        taken_with: store.fingerprint_for_file(transaction).await?.cloned(),
    };
    let devices = listing.devices(node);
    let (id, text) = (store.ids.next(), tag.to_string());
    let command = SnapshotSave::new(&id, &text, node, &devices);
    let lost = store.check_devices(transaction).await?;
    let registers = store.save(transaction, &id, &command, running).await?;
    store.record_saved(&text, registers);
    let replaced = listing.with_name(name);
    if let Err(error) = delete_tags(transaction, store, replaced, &devices).await {
        // The new one counts already; the next save over it tries again.
        debug!(%error, "the replaced snapshot is still there");
    }
    Ok(lost)
}
