//! Block devices: `blockdev-add`, `blockdev-del`, `query-block`.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use crate::command::{Command, Empty};

command! {
    /// `query-block`: the block devices that the guest has, with or without a medium.
    QueryBlock = "query-block" -> Vec<BlockInfo>;
}

command_with_arguments! {
    /// `blockdev-del`: takes a node away that nobody uses.
    BlockdevDel = "blockdev-del" -> Empty {
        /// The node.
        node_name: &'a str,
    }
}

/// `blockdev-add`: makes a block node. The options are the driver's own: anything that serialises
/// to an object with at least `driver` and `node-name`. For files use the driver `file`, never a
/// text that QEMU may take for a protocol.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
#[non_exhaustive]
pub struct BlockdevAdd<O> {
    /// The node's options.
    pub options: O,
}

impl<O: Serialize> BlockdevAdd<O> {
    /// The command with these options.
    pub fn new(options: O) -> Self {
        Self { options }
    }
}

impl<O: Serialize> Command for BlockdevAdd<O> {
    const NAME: &'static str = "blockdev-add";
    type Return = Empty;
}

object! {
    /// A block device of the guest.
    #[derive(Debug, Clone, PartialEq)]
    pub struct BlockInfo {
        /// The backend's name; empty for one that was added as a node.
        #[serde(default)]
        pub device: String,
        /// The guest device: its id or its QOM path.
        #[serde(default)]
        pub qdev: Option<String>,
        /// Whether the medium can be taken out.
        #[serde(default)]
        pub removable: bool,
        /// Whether the guest has locked it in.
        #[serde(default)]
        pub locked: bool,
        /// Whether the tray is open; `None` where there is none.
        #[serde(default)]
        pub tray_open: Option<bool>,
        /// The medium, if there is one.
        #[serde(default)]
        pub inserted: Option<BlockDeviceInfo>,
    }
}

object! {
    /// A block node.
    #[derive(Debug, Clone, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    pub struct BlockDeviceInfo {
        /// Its name.
        #[serde(default)]
        pub node_name: Option<String>,
        /// Its driver, for example `qcow2`.
        pub drv: String,
        /// The file, or a description of it.
        #[serde(default)]
        pub file: String,
        /// Whether it is read-only.
        #[serde(default)]
        pub ro: bool,
        /// What its image has.
        #[serde(default)]
        pub image: Option<ImageInfo>,
    }
}

object! {
    /// What an image has.
    #[derive(Debug, Clone, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    pub struct ImageInfo {
        /// Its file.
        pub filename: String,
        /// Its format, for example `qcow2`.
        pub format: String,
        /// What the guest sees, in bytes.
        #[serde(default)]
        pub virtual_size: u64,
        /// What it takes on the disk, in bytes.
        #[serde(default)]
        pub actual_size: Option<u64>,
        /// The snapshots in it.
        #[serde(default)]
        pub snapshots: Vec<SnapshotInfo>,
    }
}

object! {
    /// A snapshot inside an image.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub struct SnapshotInfo {
        /// The image's own number for it.
        pub id: String,
        /// Its tag.
        pub name: String,
        /// The machine's state in it, in bytes; 0 if there is none.
        #[serde(default)]
        pub vm_state_size: u64,
        /// When it was made, in seconds since 1970.
        #[serde(default)]
        pub date_sec: i64,
        /// And nanoseconds.
        #[serde(default)]
        pub date_nsec: i64,
        /// The guest's clock then, in seconds.
        #[serde(default)]
        pub vm_clock_sec: i64,
        /// And nanoseconds.
        #[serde(default)]
        pub vm_clock_nsec: i64,
    }
}
