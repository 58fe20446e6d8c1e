//! A session's snapshots: the image that they are in, made at the first save, and what is known of
//! the machine.
//!
//! Without a file of the user's choice the image is a scratch image. Its file loses its name before
//! the first snapshot is in it, so it is gone with the session, however that ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use qmp_proto::commands::QueryCommands;
use tokio::sync::OnceCell;

use super::error::SnapshotError;
use super::fingerprint::MachineFingerprint;
use super::ids::Ids;
use super::listing::{SnapshotEntry, SnapshotListing};
use super::loaded_files::LoadedFiles;
use super::sd_card::{self, SdCard};
use super::{image, pflash};
use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// What a session keeps for its snapshots. Used by one transaction at a time.
#[derive(Default)]
pub(crate) struct Store {
    /// The user's own file; none for a scratch image.
    file: Option<PathBuf>,
    /// What the session was started with.
    loaded_files: LoadedFiles,
    pub(crate) ids: Ids,
    /// The image's block node, once there is one.
    node: Mutex<Option<String>>,
    /// What is in the scratch image, where no drive takes part: only this session saves into it.
    /// [`Precheck`](super::listing::Precheck) says how far it is trusted.
    record: Mutex<Option<SnapshotListing>>,
    cards: OnceCell<Vec<SdCard>>,
    has_pflash: OnceCell<bool>,
    /// Something was loaded, and the guest has not run since, as far as is known here.
    paused_after_load: AtomicBool,
    fingerprint: OnceCell<MachineFingerprint>,
}

impl Store {
    /// For a QEMU that this session has started.
    pub(crate) fn new(file: Option<PathBuf>, loaded_files: LoadedFiles) -> Self {
        Self {
            file,
            loaded_files,
            ids: Ids::for_own_qemu(),
            ..Self::default()
        }
    }

    /// The machine's SD cards that QEMU cannot restore; a board has them or has not.
    pub(crate) async fn cards(&self, transaction: &Transaction) -> Result<&[SdCard], CommandError> {
        let cards = self.cards.get_or_try_init(|| sd_card::find(transaction));
        cards.await.map(Vec::as_slice)
    }

    /// Prepares flash memory for a load into a machine that may be paused where another load has
    /// left it.
    pub(super) async fn settle_pflash(
        &self,
        transaction: &Transaction,
    ) -> Result<(), CommandError> {
        let has_pflash = self
            .has_pflash
            .get_or_try_init(|| pflash::is_there(transaction));
        if *has_pflash.await? && self.paused_after_load.load(Ordering::Relaxed) {
            pflash::settle(transaction).await?;
        }
        Ok(())
    }

    /// Notes that something was loaded, perhaps in part, and whether the guest runs.
    pub(crate) fn set_loaded(&self, running: bool) {
        self.paused_after_load.store(!running, Ordering::Relaxed);
    }

    /// What a snapshot says it was taken with, where it may outlive the session; within one it
    /// always fits.
    pub(super) async fn fingerprint_for_file(
        &self,
        transaction: &Transaction,
    ) -> Result<Option<&MachineFingerprint>, CommandError> {
        match self.file {
            Some(_) => self.fingerprint(transaction).await.map(Some),
            None => Ok(None),
        }
    }

    /// What the machine is.
    pub(crate) async fn fingerprint(
        &self,
        transaction: &Transaction,
    ) -> Result<&MachineFingerprint, CommandError> {
        let ask = || MachineFingerprint::ask(transaction, self.loaded_files.clone());
        self.fingerprint.get_or_try_init(ask).await
    }

    /// What is in the scratch image by what this session did.
    pub(super) fn record(&self) -> Option<SnapshotListing> {
        lock(&self.record).clone()
    }

    /// Takes a listing as the record. A machine without a drive has none tomorrow; one with a drive
    /// may have another medium in it.
    pub(super) fn set_record(&self, listing: &SnapshotListing, has_drives: bool) {
        let recordable = self.file.is_none() && !has_drives && listing.node.is_some();
        *lock(&self.record) = recordable.then(|| listing.clone());
    }

    /// Notes a save under this tag.
    pub(super) fn record_saved(&self, tag: &str) {
        if let Some(listing) = &mut *lock(&self.record) {
            listing.entries.push(SnapshotEntry::parse(tag));
        }
    }

    /// Notes that the snapshot with this tag was deleted.
    pub(super) fn record_deleted(&self, tag: &str) {
        if let Some(listing) = &mut *lock(&self.record) {
            listing.entries.retain(|entry| entry.text != tag);
        }
    }

    /// Drops the record: after a failure nothing is certain.
    pub(super) fn forget_record(&self) {
        *lock(&self.record) = None;
    }

    /// The image's block node, if there is one. Opens the user's file if that is there.
    pub(super) async fn node(
        &self,
        transaction: &Transaction,
    ) -> Result<Option<String>, SnapshotError> {
        let node = lock(&self.node).clone();
        if let (None, Some(path)) = (&node, &self.file)
            && image::is_there(path).map_err(|error| SnapshotError::file(path, error))?
        {
            require_snapshot_commands(transaction).await?;
            return self.open_file(transaction, path).await.map(Some);
        }
        Ok(node)
    }

    /// Makes the image, and returns its block node.
    pub(super) async fn make_image(
        &self,
        transaction: &Transaction,
    ) -> Result<String, SnapshotError> {
        require_snapshot_commands(transaction).await?;
        if let Some(path) = &self.file {
            image::create(path)
                .await
                .map_err(|error| SnapshotError::file(path, error))?;
            return self.open_file(transaction, path).await;
        }
        let (_, node) = image::make_scratch(transaction, &self.ids).await?;
        *lock(&self.node) = Some(node.clone());
        Ok(node)
    }

    async fn open_file(
        &self,
        transaction: &Transaction,
        path: &Path,
    ) -> Result<String, SnapshotError> {
        let node = image::open(transaction, &self.ids, path, true).await?;
        *lock(&self.node) = Some(node.clone());
        Ok(node)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says before anything is changed that a QEMU has no snapshots.
pub(crate) async fn require_snapshot_commands(
    transaction: &Transaction,
) -> Result<(), SnapshotError> {
    let commands = transaction.command(&QueryCommands).await?;
    for command in ["snapshot-save", "snapshot-load", "snapshot-delete"] {
        if !commands.iter().any(|known| known.name == command) {
            let qemu = transaction.qemu_version();
            return Err(SnapshotError::Unsupported { command, qemu });
        }
    }
    Ok(())
}
