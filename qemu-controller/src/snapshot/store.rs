//! A session's snapshots: the image that they are in, made at the first save, and what is known of
//! the machine.
//!
//! Without a file of the user's choice the image is a scratch image. Its file loses its name before
//! the first snapshot is in it, so it is gone with the session, however that ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use qmp_proto::commands::{QueryCommands, SnapshotSave};
use tokio::sync::OnceCell;

use super::devices::{Devices, LostDevice};
use super::error::SnapshotError;
use super::fingerprint::MachineFingerprint;
use super::ids::Ids;
use super::listing::{SnapshotEntry, SnapshotListing};
use super::loaded_files::LoadedFiles;
use super::sd_card::{self, SdCard};
use super::{image, pflash};
use crate::client::qtest::Qtest;
use crate::client::transaction::Transaction;
use crate::config::QemuConfig;
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
    devices: OnceCell<Devices>,
    /// The way to their registers; none where QEMU was not started by this session.
    qtest: Option<Qtest>,
    /// What they were when each snapshot of this session was saved, by its tag.
    registers: Mutex<HashMap<String, Vec<u64>>>,
    /// Whether a machine with devices that a load does not bring back is not to be saved.
    strict: bool,
}

impl Store {
    /// For a QEMU that this session has started.
    pub(crate) fn new(
        config: &QemuConfig,
        loaded_files: LoadedFiles,
        qtest: Option<Qtest>,
    ) -> Self {
        Self {
            file: config.snapshot_file.clone(),
            strict: config.strict_snapshots,
            qtest,
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

    /// What QEMU does not save of the machine's devices.
    async fn devices(&self, transaction: &Transaction) -> Result<&Devices, CommandError> {
        let devices = self.devices.get_or_try_init(|| Devices::find(transaction));
        devices.await
    }

    /// Before a save: the devices that a load will not bring back.
    pub(crate) async fn check_devices(
        &self,
        transaction: &Transaction,
    ) -> Result<Vec<LostDevice>, SnapshotError> {
        let devices = self.devices(transaction).await?.lost(self.qtest.is_some());
        if self.strict && !devices.is_empty() {
            return Err(SnapshotError::LostDevices { devices });
        }
        Ok(devices)
    }

    /// Runs the job of a save, without the SD cards in the machine, and leaves the run state as it
    /// was. Returns the registers that were read before it, if there are any to read.
    pub(crate) async fn save(
        &self,
        transaction: &Transaction,
        id: &str,
        command: &SnapshotSave<'_>,
        running: bool,
    ) -> Result<Option<Vec<u64>>, SnapshotError> {
        let saved = self.read_and_save(transaction, id, command).await;
        // A save that succeeds puts the run state back that it found.
        if !matches!(saved, Ok(None)) {
            transaction.run(running).await?;
        }
        saved
    }

    async fn read_and_save(
        &self,
        transaction: &Transaction,
        id: &str,
        command: &SnapshotSave<'_>,
    ) -> Result<Option<Vec<u64>>, SnapshotError> {
        let devices = self.devices(transaction).await?;
        let registers = match &self.qtest {
            Some(qtest) if devices.has_registers() => {
                transaction.run(false).await?;
                Some(devices.read(transaction, qtest).await?)
            }
            _ => None,
        };
        let cards = self.cards(transaction).await?;
        sd_card::job_without(transaction, cards, id, command).await?;
        Ok(registers)
    }

    /// What was read when the snapshot with this tag was saved.
    pub(super) fn registers_of(&self, tag: &str) -> Option<Vec<u64>> {
        lock(&self.registers).get(tag).cloned()
    }

    /// After a load, while the guest is paused: writes what was read before the save, and returns
    /// the devices that are not as they were.
    pub(super) async fn write_registers(
        &self,
        transaction: &Transaction,
        values: Option<&[u64]>,
    ) -> Result<Vec<LostDevice>, SnapshotError> {
        let devices = self.devices(transaction).await?;
        let (Some(qtest), Some(values)) = (&self.qtest, values) else {
            return Ok(devices.lost(false));
        };
        devices.write(transaction, qtest, values).await?;
        Ok(devices.lost(true))
    }

    /// Prepares flash memory for a load into a machine that may be paused where another load has
    /// left it.
    pub(super) async fn run_pflash_callbacks(
        &self,
        transaction: &Transaction,
    ) -> Result<(), CommandError> {
        let has_pflash = self
            .has_pflash
            .get_or_try_init(|| pflash::is_there(transaction));
        if *has_pflash.await? && self.paused_after_load.load(Ordering::Relaxed) {
            pflash::run_callbacks(transaction).await?;
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

    /// Notes a save under this tag, and the registers that were read before it.
    pub(super) fn record_saved(&self, tag: &str, registers: Option<Vec<u64>>) {
        if let Some(registers) = registers {
            lock(&self.registers).insert(tag.to_owned(), registers);
        }
        if let Some(listing) = &mut *lock(&self.record) {
            listing.entries.push(SnapshotEntry::parse(tag));
        }
    }

    /// Notes that the snapshot with this tag was deleted.
    pub(super) fn record_deleted(&self, tag: &str) {
        lock(&self.registers).remove(tag);
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
