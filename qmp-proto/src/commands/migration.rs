//! A machine's state on its way into a QEMU: `migrate-incoming`, `query-migrate`.

use alloc::string::String;

use serde::Serialize;

use crate::command::Empty;

command! {
    /// `query-migrate`: how far the last migration is, on whichever side this QEMU was.
    QueryMigrate = "query-migrate" -> MigrationInfo;
}

command_with_arguments! {
    /// `migrate-incoming`: takes a state in, in a QEMU that was started with `-incoming defer`, and
    /// returns before it is there. A state that does not fit ends QEMU with status 1.
    MigrateIncoming = "migrate-incoming" -> Empty {
        /// Where from: `fd:NUMBER` for a descriptor that QEMU has inherited; for `unix:PATH` and
        /// `tcp:HOST:PORT` QEMU listens.
        uri: &'a str,
    }
}

object! {
    /// What `query-migrate` returns.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub struct MigrationInfo {
        /// How far it is; `None` where there was none.
        #[serde(default)]
        pub status: Option<MigrationStatus>,
        /// Why it failed.
        #[serde(default)]
        pub error_desc: Option<String>,
    }
}

named! {
    /// How far a migration is (`MigrationStatus`).
    pub enum MigrationStatus {
        /// There was none.
        None = "none",
        /// Being set up.
        Setup = "setup",
        /// Being cancelled.
        Cancelling = "cancelling",
        /// Cancelled.
        Cancelled = "cancelled",
        /// On its way.
        Active = "active",
        /// The other side runs already, and gets the rest.
        PostcopyActive = "postcopy-active",
        /// That way is broken, and can be mended.
        PostcopyPaused = "postcopy-paused",
        /// And is being mended.
        PostcopyRecover = "postcopy-recover",
        /// Done.
        Completed = "completed",
        /// Failed; the reason may be in [`MigrationInfo::error_desc`].
        Failed = "failed",
        /// Keeps a second machine in step.
        Colo = "colo",
        /// Waiting for leave to switch over.
        PreSwitchover = "pre-switchover",
        /// Sending the devices' state.
        Device = "device",
        /// Waiting for a device to be unplugged.
        WaitUnplug = "wait-unplug",
    }
}
