//! The machine's whole state, saved and brought back.
//!
//! ```text
//!   save:  look ─▶ make the image (once) ─▶ SD card out ─▶ snapshot-save ─▶ SD card in ─▶ delete the replaced one
//!   load:  look ─▶ does it fit? ─▶ reset, if it was shut down ─▶ snapshot-load ─▶ the run state that is wanted
//! ```
//!
//! Each is an [`Transaction`]: once begun it is finished, whoever waits. What can be refused is
//! refused in the look, before anything is touched.

mod disks;
pub(crate) mod error;
mod fresh;
pub(crate) mod identity;
mod job;
mod load;
mod name;
mod pflash;
mod reset;
mod save;
pub(crate) mod sd_card;
mod seen;
pub(crate) mod store;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use qmp_proto::commands::{BlockDeviceInfo, SnapshotDelete, SnapshotInfo};

pub use error::SnapshotError;
pub(crate) use error::joined;
pub(crate) use identity::LoadedFiles;
pub use identity::{Difference, Identity};
pub use load::{AfterLoad, LoadSnapshot};
pub use name::InvalidName;
pub use save::SaveSnapshot;
pub(crate) use store::Store;

use crate::client::transaction::Transaction;
use crate::session::Session;
use name::Tag;
use seen::Seen;

/// A snapshot, as [`Session::list_snapshots`] tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// When it was saved.
    pub saved: SystemTime,
    /// The guest's own time then.
    pub guest_time: Duration,
    /// How much of the machine's state it has, in bytes, disks not counted.
    pub state_bytes: u64,
    /// Whether the guest ran; `None` where something else saved it.
    pub running: Option<bool>,
    /// What it was taken with; `None` in a session's own scratch image, where it always fits, and
    /// where something else saved it.
    pub taken_with: Option<Identity>,
}

impl Session {
    /// Saves the machine's whole state, memory and devices and the contents of its writable disks,
    /// under this name, which was not there before ([`overwrite`](SaveSnapshot::overwrite)). The
    /// guest goes on as it was. No disk is needed: the snapshots are in a scratch image that is
    /// gone with the session, or in a file that outlives it
    /// ([`QemuConfig::snapshot_file`](crate::QemuConfig::snapshot_file)).
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), qemu_controller::SnapshotError> {
    /// session.save_snapshot("boot").await?;
    /// // … the guest runs on …
    /// session.load_snapshot("boot").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// A name has 1 to 64 characters: ASCII letters, digits, and `.`, `_`, `:`, `-`. Needs QEMU
    /// 6.0. Snapshots of the user's own disks are in these disks and stay there unless they are
    /// deleted. A debugger can do all of it too (`monitor savevm`, `delvm`, `drive_add`). It is
    /// seen that one stops the guest or lets it run, and then it is asked what there is. What one
    /// does while the guest stands still, and goes on standing, is seen only where something fails
    /// by it: a snapshot of the same name stays beside the new one, and a disk that was added is
    /// not saved.
    ///
    /// What awaits it may leave at any point: what was begun is finished, and the next operation
    /// waits for it. The session's deadline is that of the whole; give a machine with much memory
    /// [more](Self::with_deadline).
    ///
    /// A QEMU that outlives its session (attached, or kept running) keeps the scratch image: as a
    /// block node named `snap….N`, without a name in the file system, until `blockdev-del` or its
    /// end.
    ///
    /// # Errors
    /// [`SnapshotError`]; the run state is as it was and nothing that was saved before is lost. An SD card on an SPI
    /// bus is refused while it has a medium: QEMU aborts when it restores one, so what was saved
    /// could never be loaded. Without a medium, as on `lm3s6965evb` by default, it is taken out for
    /// the moment of the save.
    pub fn save_snapshot<'a>(&'a self, name: &'a str) -> SaveSnapshot<'a> {
        SaveSnapshot::new(self, name)
    }

    /// Brings a saved state back. The guest then runs if it ran before the call
    /// ([`then`](LoadSnapshot::then) says otherwise). A machine that was shut down and stays
    /// (`-no-shutdown`) is reset first: QEMU would not let it run otherwise.
    ///
    /// # Errors
    /// [`SnapshotError`]. After a load that QEMU failed in the middle ([`SnapshotError::Job`]) the run state is as
    /// before (`prelaunch` where it was shut down), but memory and devices may be partly the
    /// snapshot's. What does not fit, by what the snapshot says it was taken with, is refused
    /// before.
    pub fn load_snapshot<'a>(&'a self, name: &'a str) -> LoadSnapshot<'a> {
        LoadSnapshot::new(self, name)
    }

    /// The snapshots that there are, the oldest first.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn list_snapshots(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let store = Arc::clone(&self.inner.snapshots);
        let list = async move |operation: Transaction| {
            let Some(node) = store.node(&operation).await? else {
                return Ok(Vec::new());
            };
            Ok(current(&read(&operation, &node).await?))
        };
        self.transaction("query-named-block-nodes", list).await
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), SnapshotError> {
        name::check(name)?;
        let (store, name) = (Arc::clone(&self.inner.snapshots), name.to_owned());
        self.transaction("snapshot-delete", async move |operation: Transaction| {
            let listed = Seen::look_to_delete(&operation, &store).await?.listed;
            let tags: Vec<_> = listed
                .with_name(&name)
                .map(|saved| saved.text.as_str())
                .collect();
            match &listed.node {
                Some(node) if !tags.is_empty() => {
                    delete(&operation, &store, &tags, &listed.devices(node)).await
                }
                _ => Err(listed.missing(&name)),
            }
        })
        .await
    }
}

/// What is in the image, as it is: a name that was saved over may be there twice.
async fn read(
    operation: &Transaction,
    node: &str,
) -> Result<Vec<(SnapshotInfo, Tag)>, SnapshotError> {
    let is_it = |block: &BlockDeviceInfo| block.node_name.as_deref() == Some(node);
    let image = store::nodes(operation)
        .await?
        .into_iter()
        .find(is_it)
        .and_then(|block| block.image);
    let snapshots = image.map(|image| image.snapshots).unwrap_or_default();
    let with_tag = |info: SnapshotInfo| {
        let tag = Tag::read(&info.name);
        (info, tag)
    };
    Ok(snapshots.into_iter().map(with_tag).collect())
}

/// The one that counts of those with this name.
fn latest<'a>(saved: &'a [(SnapshotInfo, Tag)], name: &str) -> Option<&'a (SnapshotInfo, Tag)> {
    saved
        .iter()
        .filter(|(_, tag)| tag.name == name)
        .max_by_key(|(_, tag)| tag.generation)
}

fn current(saved: &[(SnapshotInfo, Tag)]) -> Vec<Snapshot> {
    let counts = saved
        .iter()
        .filter(|one| latest(saved, &one.1.name) == Some(one));
    let told = counts.map(|(info, tag)| Snapshot {
        name: tag.name.clone(),
        saved: SystemTime::UNIX_EPOCH + time(info.date_sec, info.date_nsec),
        guest_time: time(info.vm_clock_sec, info.vm_clock_nsec),
        state_bytes: info.vm_state_size,
        running: tag.running,
        taken_with: tag.taken_with.clone(),
    });
    told.collect()
}

/// An image can say anything.
fn time(seconds: i64, nanoseconds: i64) -> Duration {
    let seconds = u64::try_from(seconds)
        .unwrap_or_default()
        .min(u64::from(u32::MAX));
    Duration::new(
        seconds,
        u32::try_from(nanoseconds)
            .unwrap_or_default()
            .min(999_999_999),
    )
}

/// Deletes what has these tags, the oldest first.
async fn delete(
    operation: &Transaction,
    store: &Store,
    tags: &[&str],
    devices: &[&str],
) -> Result<(), SnapshotError> {
    for tag in tags {
        let id = operation.blocks().name();
        let deleted = job::run(
            operation,
            &id,
            &SnapshotDelete {
                job_id: &id,
                tag,
                devices,
            },
        )
        .await;
        match deleted {
            Ok(()) => store.deleted(tag),
            Err(_) => store.forget(),
        }
        deleted?;
    }
    Ok(())
}
