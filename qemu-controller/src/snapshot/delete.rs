//! Deleting snapshots.

use std::sync::Arc;

use qmp_proto::Command as _;
use qmp_proto::commands::SnapshotDelete;

use super::error::SnapshotError;
use super::listing::{SnapshotEntry, SnapshotListing};
use super::store::Store;
use super::{job, name};
use crate::client::transaction::Transaction;
use crate::session::Session;

impl Session {
    /// Deletes a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), SnapshotError> {
        name::check(name)?;
        let (store, name) = (Arc::clone(&self.inner.snapshots), name.to_owned());
        let delete = async move |transaction| delete(&transaction, &store, &name).await;
        self.transaction(SnapshotDelete::NAME, delete).await
    }
}

async fn delete(transaction: &Transaction, store: &Store, name: &str) -> Result<(), SnapshotError> {
    let listing = SnapshotListing::query(transaction, store).await?;
    let (node, _) = listing.find(name)?;
    delete_tags(
        transaction,
        store,
        listing.with_name(name),
        &listing.devices(node),
    )
    .await
}

/// Deletes these, the oldest first.
pub(super) async fn delete_tags(
    transaction: &Transaction,
    store: &Store,
    entries: impl Iterator<Item = &SnapshotEntry>,
    devices: &[&str],
) -> Result<(), SnapshotError> {
    for SnapshotEntry { text: tag, .. } in entries {
        let id = store.ids.next();
        let command = SnapshotDelete::new(&id, tag, devices);
        if let Err(error) = job::run(transaction, &id, &command).await {
            store.forget_record();
            return Err(error);
        }
        store.record_deleted(tag);
    }
    Ok(())
}
