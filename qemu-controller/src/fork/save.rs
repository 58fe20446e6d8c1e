//! Saving the state of a machine, which goes on as it was.

use std::fs::File;
use std::io;
use std::sync::Arc;

use qmp_proto::commands::{
    BlockInfo, BlockdevDel, QueryBlock, QueryStatus, RunState, SnapshotSave, StatusInfo,
};
use tempfile::NamedTempFile;

use super::error::StateError;
use super::{Kept, MachineState, runstate, vmstate};
use crate::client::transaction::Transaction;
use crate::session::Session;
use crate::snapshot::error::SnapshotError;
use crate::snapshot::{Store, sd_card, store};

/// What the snapshot in the image is called; it is the only one.
const TAG: &str = "state";

impl Session {
    /// Saves the machine's whole state, memory and devices, for other machines to continue from
    /// ([`start_from`](Self::start_from), [`fork`](Self::fork)). The guest goes on as it was: one
    /// that ran stands still for some milliseconds and runs on, one that stood still has not run
    /// one instruction, at a debugger's breakpoint too.
    ///
    /// What awaits it may leave at any point, as with [`save_snapshot`](Self::save_snapshot), and
    /// the same QEMUs can do it. The session's deadline is that of QEMU's part.
    ///
    /// # Errors
    /// [`StateError`]. Disks that the guest can write to are refused, by name: a state does not have what is on
    /// them. So is a medium in an SD card on an SPI bus, which QEMU cannot restore; without a
    /// medium the card is taken out for the moment of the save.
    pub async fn save_state(&self) -> Result<MachineState, StateError> {
        let store = Arc::clone(&self.inner.snapshots);
        let save = async move |operation| save(&operation, &store).await;
        self.transaction("snapshot-save", save).await
    }
}

async fn save(operation: &Transaction, store: &Store) -> Result<MachineState, StateError> {
    let before = look(operation, store).await?;
    let taken_with = store.taken_with(operation).await?.clone();
    let image = save_to_image(operation, store, &before).await?;
    let running = before.running;
    let taken_out = tokio::task::spawn_blocking(move || take_out(&image, before.status));
    let (file, bytes) = match taken_out.await {
        Ok(taken_out) => taken_out?,
        Err(panic) => return Err(unusable(io::Error::other(panic))),
    };
    Ok(MachineState::new(Kept {
        file,
        start: 0,
        bytes,
        running,
        taken_with,
    }))
}

/// The state alone, in a file without a name.
fn take_out(image: &File, run_state: RunState) -> Result<(File, u64), StateError> {
    let file = tempfile::tempfile().map_err(unusable)?;
    let bytes = vmstate::extract(image, &file).map_err(unusable)?;
    let fits = runstate::can_begin(&run_state)
        || runstate::pause(&file, bytes, &run_state).map_err(unusable)?;
    if fits {
        Ok((file, bytes))
    } else {
        Err(StateError::RunState { run_state })
    }
}

/// What forbids it is found before anything is touched.
async fn look(operation: &Transaction, store: &Store) -> Result<StatusInfo, StateError> {
    store::introspect(operation).await?;
    let cards = store.cards(operation).await?;
    let (status, blocks) =
        tokio::join!(biased; operation.command(&QueryStatus), operation.command(&QueryBlock));
    let (before, blocks) = (status?, blocks?);
    if let Some(drive) = sd_card::medium_among(cards, &blocks) {
        return Err(SnapshotError::CardWithMedium { drive }.into());
    }
    let disks = writable(&blocks);
    if !disks.is_empty() {
        return Err(StateError::Disks { disks });
    }
    match before.status {
        // It has no state yet.
        RunState::InMigrate => Err(StateError::RunState {
            run_state: before.status,
        }),
        _ => Ok(before),
    }
}

fn writable(blocks: &[BlockInfo]) -> Vec<String> {
    let written = |block: &&BlockInfo| block.inserted.as_ref().is_some_and(|medium| !medium.ro);
    let name = |block: &BlockInfo| {
        let node = block
            .inserted
            .as_ref()
            .and_then(|medium| medium.node_name.clone());
        let names = [Some(block.device.clone()), node, block.qdev.clone()];
        names
            .into_iter()
            .flatten()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    };
    blocks.iter().filter(written).map(name).collect()
}

/// QEMU saves into an image that is there for nothing else, and has lost its name by the time this
/// returns.
async fn save_to_image(
    operation: &Transaction,
    store: &Store,
    before: &StatusInfo,
) -> Result<File, StateError> {
    let image = NamedTempFile::with_prefix("qemu-state-").map_err(unusable)?;
    let node = store.scratch(operation, image.path()).await?;
    let id = operation.blocks().name();
    let command = SnapshotSave {
        job_id: &id,
        tag: TAG,
        vmstate: &node,
        devices: &[&node],
    };
    let saved = sd_card::job_without(operation, store.cards(operation).await?, &id, &command).await;
    // Also where the save failed; what it leaves in QEMU's own caches is in the file then.
    let closed = operation.command(&BlockdevDel { node_name: &node }).await;
    if saved.is_err() {
        // A save that is done has done so itself.
        operation.run(before.running).await?;
    }
    saved?;
    closed?;
    Ok(image.into_file())
}

fn unusable(source: io::Error) -> StateError {
    StateError::File {
        path: std::env::temp_dir(),
        source,
    }
}
