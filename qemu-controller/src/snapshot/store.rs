//! Where the snapshots are: a qcow2 image that QEMU holds as a block node, made at the first save.
//!
//! Without a file of the user's choice it is a scratch image, whose file has lost its name before
//! the first snapshot is in it: it is gone with the session, however that ends. Paths are only ever
//! values of `filename` for the driver `file`, which takes them as they are; absolute, so that none
//! is read as a protocol.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex as SyncMutex, MutexGuard, PoisonError};

use qmp_proto::Command;
use qmp_proto::commands::{
    BlockDeviceInfo, BlockdevAdd, BlockdevCreate, BlockdevDel, QueryCommands,
};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::sync::{Mutex, OnceCell};

use super::error::SnapshotError;
use super::identity::{Identity, LoadedFiles};
use super::sd_card::{self, SdCard};
use super::seen::{Listed, Saved};
use super::{job, pflash};
use crate::block_changes::is_ours;
use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// A session's snapshots: where they are, and what need not be asked twice.
#[derive(Default)]
pub(crate) struct Store {
    /// The user's own file; none for a scratch image.
    file: Option<PathBuf>,
    /// What the session was started with.
    loaded_files: LoadedFiles,
    node: Mutex<Option<String>>,
    cards: OnceCell<Vec<SdCard>>,
    pflash: OnceCell<bool>,
    /// Something was loaded, and the guest has stood still since, as far as is known here.
    stands_loaded: AtomicBool,
    identity: OnceCell<Identity>,
    /// Nobody but the session can change anything, by all that is known of how QEMU was started.
    ours_alone: bool,
    /// What there is, as long as no other change is counted.
    known: SyncMutex<Option<(u64, Listed)>>,
}

impl Store {
    /// For a QEMU with these arguments.
    pub(crate) fn new(file: Option<PathBuf>, loaded_files: LoadedFiles, args: &[OsString]) -> Self {
        Self {
            file,
            loaded_files,
            ours_alone: has_one_monitor(args),
            ..Self::default()
        }
    }

    /// The machine's SD cards that QEMU cannot restore; a board has them or has not.
    pub(crate) async fn cards(&self, operation: &Transaction) -> Result<&[SdCard], CommandError> {
        self.cards
            .get_or_try_init(|| sd_card::find(operation))
            .await
            .map(Vec::as_slice)
    }

    /// What must be done before a load into a machine that may stand where another load has put it.
    pub(crate) async fn settle(&self, operation: &Transaction) -> Result<(), CommandError> {
        let pflash = self
            .pflash
            .get_or_try_init(|| pflash::is_there(operation))
            .await?;
        if *pflash && self.stands_loaded.load(Ordering::Relaxed) {
            pflash::settle(operation).await?;
        }
        Ok(())
    }

    /// Something was loaded, be it in part; does the guest stand still?
    pub(crate) fn loaded(&self, running: bool) {
        self.stands_loaded.store(!running, Ordering::Relaxed);
    }

    /// What a snapshot is taken with, where it may outlive the session; within one it always fits.
    pub(crate) async fn identity(
        &self,
        operation: &Transaction,
    ) -> Result<Option<&Identity>, CommandError> {
        if self.file.is_none() {
            return Ok(None);
        }
        self.taken_with(operation).await.map(Some)
    }

    /// What the machine is.
    pub(crate) async fn taken_with(
        &self,
        operation: &Transaction,
    ) -> Result<&Identity, CommandError> {
        self.identity
            .get_or_try_init(|| Identity::ask(operation, self.loaded_files.clone()))
            .await
    }

    /// What there is, if it is known for certain.
    pub(crate) fn remembered(&self, operation: &Transaction) -> Option<Listed> {
        let now = operation.blocks().count();
        self.known()
            .as_ref()
            .filter(|(as_of, _)| *as_of == now)
            .map(|(_, listed)| listed.clone())
    }

    /// There was this when so many changes were counted.
    pub(crate) fn remember(&self, as_of: u64, listed: Listed) {
        *self.known() = self.ours_alone.then_some((as_of, listed));
    }

    /// A snapshot with this tag was saved.
    pub(crate) fn saved(&self, tag: &str) {
        if let Some((_, listed)) = &mut *self.known() {
            listed.saved.push(Saved::read(tag));
        }
    }

    /// The one with this tag was deleted.
    pub(crate) fn deleted(&self, tag: &str) {
        if let Some((_, listed)) = &mut *self.known() {
            listed.saved.retain(|saved| saved.text != tag);
        }
    }

    /// Something failed: who knows what there is.
    pub(crate) fn forget(&self) {
        *self.known() = None;
    }

    fn known(&self) -> MutexGuard<'_, Option<(u64, Listed)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block node, where there is one yet: the user's file is opened, nothing is made.
    pub(crate) async fn node(
        &self,
        operation: &Transaction,
    ) -> Result<Option<String>, SnapshotError> {
        let mut node = self.node.lock().await;
        if let (None, Some(file)) = (&*node, &self.file)
            && is_there(file)?
        {
            introspect(operation).await?;
            *node = Some(open(operation, file, true).await?);
        }
        Ok(node.clone())
    }

    /// The block node, made if need be.
    pub(crate) async fn node_to_save(
        &self,
        operation: &Transaction,
    ) -> Result<String, SnapshotError> {
        if let Some(node) = self.node(operation).await? {
            return Ok(node);
        }
        introspect(operation).await?;
        let made = match &self.file {
            Some(file) => self.make(operation, file).await?,
            None => {
                let file = NamedTempFile::with_prefix("qemu-snapshots-");
                let file = file.map_err(|source| unusable(&std::env::temp_dir(), source))?;
                self.scratch(operation, file.path()).await?
                // Here its name goes; QEMU has it open.
            }
        };
        *self.node.lock().await = Some(made.clone());
        Ok(made)
    }

    /// Makes the user's file: whole before it has its name, and nothing that is there is ever
    /// replaced.
    async fn make(&self, operation: &Transaction, file: &Path) -> Result<String, SnapshotError> {
        let unusable = |source| unusable(file, source);
        let folder = file
            .parent()
            .ok_or_else(|| unusable(io::ErrorKind::InvalidInput.into()))?;
        let unnamed = NamedTempFile::with_prefix_in("qemu-snapshots-", folder).map_err(unusable)?;
        self.format(operation, unnamed.path()).await?;
        unnamed
            .persist_noclobber(file)
            .map_err(|error| unusable(error.error))?;
        open(operation, file, true).await
    }

    /// Makes an empty image of an empty file, for what does not outlive the session, and opens it
    /// as a node.
    pub(crate) async fn scratch(
        &self,
        operation: &Transaction,
        file: &Path,
    ) -> Result<String, SnapshotError> {
        self.format(operation, file).await?;
        open(operation, file, false).await
    }

    /// Makes an empty qcow2 image of an empty file.
    async fn format(&self, operation: &Transaction, file: &Path) -> Result<(), SnapshotError> {
        let node = operation.blocks().name();
        add(
            operation,
            json!({ "driver": "file", "node-name": node, "filename": text(file)? }),
        )
        .await?;
        let options = json!({ "driver": "qcow2", "file": node, "size": 0 });
        let id = operation.blocks().name();
        let formatted = job::run(
            operation,
            &id,
            &BlockdevCreate {
                job_id: &id,
                options,
            },
        )
        .await;
        let deleted = operation.command(&BlockdevDel { node_name: &node }).await;
        formatted?;
        deleted?;
        Ok(())
    }
}

/// Opens an image as a block node and tells the node's name. One that a session before this one
/// left in the same QEMU is taken over, for a second could not be locked.
async fn open(
    operation: &Transaction,
    file: &Path,
    outlives: bool,
) -> Result<String, SnapshotError> {
    let path = text(file)?;
    let ours = |block: &BlockDeviceInfo| {
        block.drv == "qcow2"
            && block.file == path
            && block.node_name.as_deref().is_some_and(is_ours)
    };
    if outlives && let Some(left) = nodes(operation).await?.into_iter().find(ours) {
        return Ok(left.node_name.unwrap_or_default());
    }
    let node = operation.blocks().name();
    add(
        operation,
        json!({
            "driver": "qcow2",
            "node-name": node,
            // Whatever the header says, no other file is read.
            "backing": null,
            // What is gone with the session needs not survive a power cut.
            "cache": { "no-flush": !outlives },
            "file": { "driver": "file", "filename": path },
        }),
    )
    .await?;
    Ok(node)
}

async fn add(operation: &Transaction, options: Value) -> Result<(), CommandError> {
    operation.command(&BlockdevAdd { options }).await.map(drop)
}

/// All block nodes, each once.
pub(crate) async fn nodes(operation: &Transaction) -> Result<Vec<BlockDeviceInfo>, CommandError> {
    operation.command(&QueryNodes { flat: true }).await
}

/// `query-named-block-nodes` without the chains of backing files.
#[derive(Serialize)]
struct QueryNodes {
    flat: bool,
}

impl Command for QueryNodes {
    const NAME: &'static str = "query-named-block-nodes";
    type Return = Vec<BlockDeviceInfo>;
}

/// Says it in time where a QEMU has no snapshots.
pub(crate) async fn introspect(operation: &Transaction) -> Result<(), SnapshotError> {
    let commands = operation.command(&QueryCommands).await?;
    for command in ["snapshot-save", "snapshot-load", "snapshot-delete"] {
        if !commands.iter().any(|known| known.name == command) {
            return Err(SnapshotError::Unsupported {
                command,
                qemu: operation.qemu_version(),
            });
        }
    }
    Ok(())
}

/// Whether the user's file is there, and is what this project writes: nothing else is opened for
/// writing.
fn is_there(file: &Path) -> Result<bool, SnapshotError> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(unusable(file, source)),
        // Opening something else may wait for ever.
        Ok(metadata) if !metadata.is_file() => {
            Err(unusable(file, io::Error::other("it is no regular file")))
        }
        Ok(_) => match read_header(file) {
            Ok(()) => Ok(true),
            Err(source) => Err(unusable(file, source)),
        },
    }
}

/// A qcow2 image may name other files, which QEMU would open.
fn read_header(file: &Path) -> io::Result<()> {
    let mut header = Vec::new();
    File::open(file)?.take(104).read_to_end(&mut header)?;
    let is_zero = |from: usize, to: usize| {
        header
            .get(from..to)
            .is_none_or(|bytes| bytes.iter().all(|&byte| byte == 0))
    };
    let refused = if !header.starts_with(b"QFI\xfb\0\0\0") || header.len() < 72 {
        "it is no qcow2 image, and is left as it is"
    } else if !is_zero(8, 16) {
        "it is a qcow2 image over a backing file, and not for snapshots alone"
    } else if header[7] >= 3 && header.get(79).is_none_or(|features| features & 4 != 0) {
        "it is a qcow2 image whose data are in another file"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, refused))
}

/// QMP is text, and so is a path in it.
fn text(file: &Path) -> Result<&str, SnapshotError> {
    let not_text = || {
        unusable(
            file,
            io::Error::other("QEMU can only be told a path that is UTF-8"),
        )
    };
    file.to_str().ok_or_else(not_text)
}

fn unusable(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::File {
        path: path.to_owned(),
        source,
    }
}

/// Whether no other client can give this QEMU commands, but a debugger by way of its stub.
fn has_one_monitor(args: &[OsString]) -> bool {
    let args = args.iter().filter_map(|arg| arg.to_str());
    let may_be_one = |arg: &str| {
        let option = arg.trim_start_matches('-');
        ["mon", "qmp", "readconfig"]
            .iter()
            .any(|option_of_one| option.starts_with(option_of_one))
    };
    args.filter(|arg| may_be_one(arg)).count() == 1
}
