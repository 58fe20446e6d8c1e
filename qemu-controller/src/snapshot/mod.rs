//! The machine's whole state, saved and brought back.
//!
//! ```text
//!   save:  check ─▶ make the image (once) ─▶ SD card out ─▶ snapshot-save ─▶ SD card in ─▶ delete the replaced one
//!   load:  check ─▶ does it fit? ─▶ reset, if it was shut down ─▶ snapshot-load ─▶ the run state that is wanted
//! ```
//!
//! Each is a [`Transaction`]: once begun it is finished, whoever waits. What can be refused is
//! refused before anything is touched, unless the session's own record says that it is possible
//! ([`listing`]).

mod delete;
pub(crate) mod devices;
pub(crate) mod disks;
pub(crate) mod error;
pub(crate) mod fingerprint;
mod fresh;
pub(crate) mod ids;
pub(crate) mod image;
mod job;
mod listing;
mod load;
pub(crate) mod loaded_files;
mod name;
mod pflash;
mod reset;
mod save;
pub(crate) mod sd_card;
pub(crate) mod store;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use qmp_proto::commands::SnapshotInfo;

pub use devices::LostDevice;
pub use error::SnapshotError;
pub use fingerprint::{MachineFingerprint, MachineMismatch};
pub use load::{AfterLoad, LoadSnapshot};
pub(crate) use loaded_files::LoadedFiles;
pub use name::InvalidName;
pub use save::SaveSnapshot;
pub(crate) use store::Store;

use crate::client::transaction::Transaction;
use crate::session::Session;
use name::Tag;

/// A snapshot, as [`Session::list_snapshots`] returns it.
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
    pub taken_with: Option<MachineFingerprint>,
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
    /// | to | use |
    /// |---|---|
    /// | go back to a point, again and again, in this QEMU | [`save_snapshot`](Self::save_snapshot), [`load_snapshot`](Self::load_snapshot) |
    /// | begin many test cases in one state, one after the other | [`with_fresh_state`](Self::with_fresh_state) |
    /// | run many cases at once from where this machine is | [`fork`](Self::fork) |
    /// | go on later, in another program, or with another configuration | [`save_state`](Self::save_state), [`start_from`](Self::start_from) |
    ///
    /// A name has 1 to 64 characters: ASCII letters, digits, and `.`, `_`, `:`, `-`. Needs QEMU
    /// 6.0. Snapshots of the user's own disks are in these disks and stay there unless they are
    /// deleted.
    ///
    /// A session knows what it has saved into its scratch image and does not ask QEMU again. Who
    /// changes that image by other commands (`savevm`, `delvm`, a debugger's `monitor`) is noticed
    /// only where something fails by it: a snapshot of the same name stays beside the new one.
    ///
    /// The future may be dropped at any point: what was begun is finished, and the next transaction
    /// waits for it. The session's deadline is that of the whole; give a machine with much memory
    /// [more](Self::with_deadline).
    ///
    /// A QEMU that outlives its session (attached, or kept running) keeps the scratch image: as a
    /// block node named `snap….N`, without a name in the file system, until `blockdev-del` or its
    /// end.
    ///
    /// Returns the devices that a load does not bring back, as QEMU saves nothing of them or only a
    /// part: after it they are as after a reset. Those that can be put right, as RISC-V's timers, are
    /// not among them. In a snapshot *file* their registers are not: another session names them
    /// when it loads it. [`strict_snapshots`](crate::QemuConfig::strict_snapshots) refuses instead.
    ///
    /// # Errors
    /// [`SnapshotError`]; the run state is as it was and nothing that was saved before is lost. An
    /// SD card on an SPI bus is refused while it has a medium: QEMU aborts when it restores one, so
    /// what was saved could never be loaded. Without a medium, as on `lm3s6965evb` by default, it
    /// is taken out for the moment of the save.
    pub fn save_snapshot<'a>(&'a self, name: &'a str) -> SaveSnapshot<'a> {
        SaveSnapshot::new(self, name)
    }

    /// Brings a saved state back. The guest then runs if it ran before the call
    /// ([`then`](LoadSnapshot::then) says otherwise). A machine that was shut down and stays
    /// (`-no-shutdown`) is reset first: QEMU would not let it run otherwise.
    ///
    /// Returns the devices that are not as they were, as [`save_snapshot`](Self::save_snapshot) does.
    ///
    /// # Errors
    /// [`SnapshotError`]. After a load that QEMU failed in the middle ([`SnapshotError::Job`]) the
    /// run state is as before (`prelaunch` where it was shut down), but memory and devices may be
    /// partly the snapshot's. What does not fit, by what the snapshot says it was taken with, is
    /// refused before.
    pub fn load_snapshot<'a>(&'a self, name: &'a str) -> LoadSnapshot<'a> {
        LoadSnapshot::new(self, name)
    }

    /// The snapshots that there are, the oldest first.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn list_snapshots(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let store = Arc::clone(&self.inner.snapshots);
        let list = async move |transaction: Transaction| {
            let Some(node) = store.node(&transaction).await? else {
                return Ok(Vec::new());
            };
            Ok(latest_of_each_name(
                listing::snapshots(&transaction, &node).await?,
            ))
        };
        self.transaction("query-named-block-nodes", list).await
    }
}

/// Those that count: a name that was saved over may be there twice.
fn latest_of_each_name(snapshots: Vec<SnapshotInfo>) -> Vec<Snapshot> {
    let tags: Vec<_> = snapshots
        .iter()
        .map(|info| Tag::parse(&info.name))
        .collect();
    let is_latest = |tag: &Tag| {
        tags.iter()
            .all(|t| t.name != tag.name || t.generation <= tag.generation)
    };
    let latest = snapshots
        .iter()
        .zip(&tags)
        .filter(|(_, tag)| is_latest(tag));
    let public = |(info, tag): (&SnapshotInfo, &Tag)| Snapshot {
        name: tag.name.clone(),
        saved: SystemTime::UNIX_EPOCH + duration(info.date_sec, info.date_nsec),
        guest_time: duration(info.vm_clock_sec, info.vm_clock_nsec),
        state_bytes: info.vm_state_size,
        running: tag.running,
        taken_with: tag.taken_with.clone(),
    };
    latest.map(public).collect()
}

/// A time as an image has it, which can be anything.
fn duration(seconds: i64, nanoseconds: i64) -> Duration {
    let seconds = seconds.clamp(0, u32::MAX.into()) as u64;
    Duration::new(seconds, nanoseconds.clamp(0, 999_999_999) as u32)
}
