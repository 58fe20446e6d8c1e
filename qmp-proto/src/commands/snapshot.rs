//! Snapshots of the whole machine: `snapshot-save`, `-load`, `-delete`. Each is a job: its failure
//! is in `query-jobs`.

use serde::Serialize;

use crate::command::Empty;

command_with_arguments! {
    /// `snapshot-save`: saves the machine's state under a new tag. QEMU 6.0 and later.
    SnapshotSave = "snapshot-save" -> Empty {
        /// The name of the job to be made.
        job_id: &'a str,
        /// The snapshot's name. QEMU cuts it after 255 bytes, in silence.
        tag: &'a str,
        /// The block node that takes the machine's state.
        vmstate: &'a str,
        /// The block nodes whose contents are saved.
        devices: &'a [&'a str],
    }
    /// `snapshot-load`: brings a saved state back.
    SnapshotLoad = "snapshot-load" -> Empty {
        /// The name of the job to be made.
        job_id: &'a str,
        /// The snapshot's name.
        tag: &'a str,
        /// The block node that has the machine's state.
        vmstate: &'a str,
        /// The block nodes whose contents are restored.
        devices: &'a [&'a str],
    }
    /// `snapshot-delete`: deletes a snapshot.
    SnapshotDelete = "snapshot-delete" -> Empty {
        /// The name of the job to be made.
        job_id: &'a str,
        /// The snapshot's name.
        tag: &'a str,
        /// The block nodes it is deleted from.
        devices: &'a [&'a str],
    }
}
