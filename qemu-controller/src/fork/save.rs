//! Saving the state of a machine, which goes on as it was.

use std::fs::File;
use std::io;
use std::sync::Arc;

use qmp_proto::commands::{
    BlockdevDel, QueryBlock, QueryStatus, RunState, SnapshotSave, StatusInfo,
};

use super::error::StateError;
use super::{MachineState, StateFile, runstate, vmstate};
use crate::client::transaction::Transaction;
use crate::session::Session;
use crate::snapshot::{SnapshotError, Store, disks, image, sd_card, store};

/// What the snapshot in the image is called; it is the only one.
const TAG: &str = "state";

impl Session {
    /// Saves the machine's whole state, memory and devices, for other machines to continue from
    /// ([`start_from`](Self::start_from), [`fork`](Self::fork)). The guest goes on as it was: one
    /// that runs is paused for some milliseconds, one that is paused does not run one instruction,
    /// at a debugger's breakpoint too.
    ///
    /// The future may be dropped at any point, as that of [`save_snapshot`](Self::save_snapshot),
    /// and the same QEMUs can do it. The session's deadline is that of QEMU's part.
    ///
    /// # Errors
    /// [`StateError`]. Disks that the guest can write to are refused, by name: a state does not
    /// have what is on them. So is a medium in an SD card on an SPI bus, which QEMU cannot restore;
    /// without a medium the card is taken out for the moment of the save.
    pub async fn save_state(&self) -> Result<MachineState, StateError> {
        let store = Arc::clone(&self.inner.snapshots);
        let save = async move |transaction| save(&transaction, &store).await;
        self.transaction("snapshot-save", save).await
    }
}

async fn save(transaction: &Transaction, store: &Store) -> Result<MachineState, StateError> {
    let before = check(transaction, store).await?;
    let taken_with = store.fingerprint(transaction).await?.clone();
    let lost_devices = store.check_devices(transaction).await?;
    let (image, registers) = save_to_image(transaction, store, &before).await?;
    let running = before.running;
    // Where registers were read the guest was paused before, and so says the state.
    let run_state = match registers {
        Some(_) if running => RunState::Paused,
        _ => before.status,
    };
    let extracted = tokio::task::spawn_blocking(move || extract(&image, run_state));
    let (file, bytes) = match extracted.await {
        Ok(extracted) => extracted?,
        Err(panic) => return Err(temporary_file(io::Error::other(panic))),
    };
    Ok(MachineState::new(StateFile {
        file,
        start: 0,
        bytes,
        running,
        registers: registers.unwrap_or_default(),
        lost_devices,
        taken_with,
    }))
}

/// The state alone, in a file without a name, and its length.
fn extract(image: &File, run_state: RunState) -> Result<(File, u64), StateError> {
    let file = tempfile::tempfile().map_err(temporary_file)?;
    let bytes = vmstate::extract(image, &file).map_err(temporary_file)?;
    if runstate::can_begin(&run_state)
        || runstate::pause(&file, bytes, &run_state).map_err(temporary_file)?
    {
        Ok((file, bytes))
    } else {
        Err(StateError::RunState { run_state })
    }
}

/// Refuses what cannot be saved before anything is touched.
async fn check(transaction: &Transaction, store: &Store) -> Result<StatusInfo, StateError> {
    store::require_snapshot_commands(transaction).await?;
    let cards = store.cards(transaction).await?;
    let (status, blocks) =
        tokio::join!(biased; transaction.command(&QueryStatus), transaction.command(&QueryBlock));
    let (before, blocks) = (status?, blocks?);
    if let Some(drive) = sd_card::drive_with_medium(cards, &blocks) {
        return Err(SnapshotError::CardWithMedium { drive }.into());
    }
    let disks = disks::writable_names(&blocks);
    if !disks.is_empty() {
        return Err(StateError::Disks { disks });
    }
    match before.status {
        // It has no state yet.
        run_state @ RunState::InMigrate => Err(StateError::RunState { run_state }),
        _ => Ok(before),
    }
}

/// Has QEMU save into an image of this state's own, whose file has no name.
async fn save_to_image(
    transaction: &Transaction,
    store: &Store,
    before: &StatusInfo,
) -> Result<(File, Option<Vec<u64>>), StateError> {
    let (image, node) = image::make_scratch(transaction, &store.ids).await?;
    let id = store.ids.next();
    let devices = [&*node];
    let command = SnapshotSave::new(&id, TAG, &node, &devices);
    let saved = store.save(transaction, &id, &command, before.running).await;
    // Also where the save failed. What QEMU still has in its own caches is in the file then.
    let closed = transaction.command(&BlockdevDel::new(&node)).await;
    let registers = saved?;
    closed?;
    Ok((image, registers))
}

fn temporary_file(source: io::Error) -> StateError {
    StateError::file(&std::env::temp_dir(), source)
}
