//! Run state: `query-status`, `stop`, `cont`, and how a machine is reset and ended.

use crate::command::Empty;

object! {
    /// What `query-status` returns.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct StatusInfo {
        /// Whether the guest's CPUs run.
        pub running: bool,
        /// The run state.
        pub status: RunState,
    }
}

named! {
    /// QEMU's run states (`RunState` in its reference).
    pub enum RunState {
        /// A debugger stopped the guest.
        Debug = "debug",
        /// Waiting for an incoming migration.
        InMigrate = "inmigrate",
        /// An internal error stopped the guest.
        InternalError = "internal-error",
        /// An I/O error stopped the guest.
        IoError = "io-error",
        /// Stopped by `stop`.
        Paused = "paused",
        /// An outgoing migration is done.
        PostMigrate = "postmigrate",
        /// Started with `-S` and not yet continued.
        Prelaunch = "prelaunch",
        /// An outgoing migration is being finished.
        FinishMigrate = "finish-migrate",
        /// A snapshot is being restored, or restoring it failed.
        RestoreVm = "restore-vm",
        /// The guest runs.
        Running = "running",
        /// A snapshot is being saved.
        SaveVm = "save-vm",
        /// The guest was shut down, and `-no-shutdown` keeps QEMU.
        Shutdown = "shutdown",
        /// The guest is suspended.
        Suspended = "suspended",
        /// A watchdog stopped the guest.
        Watchdog = "watchdog",
        /// The guest reported a panic.
        GuestPanicked = "guest-panicked",
        /// Paused to save the state of a COLO secondary.
        Colo = "colo",
    }
}

command! {
    /// `query-status`: what the machine is doing.
    QueryStatus = "query-status" -> StatusInfo;
    /// `stop`: pauses the guest. A guest that is stopped already stays so, without an event.
    Stop = "stop" -> Empty;
    /// `cont`: lets the guest run. A guest that runs already goes on, without an event.
    Cont = "cont" -> Empty;
    /// `system_reset`: as if the reset button was pressed.
    SystemReset = "system_reset" -> Empty;
    /// `system_powerdown`: asks the guest to power down. It may not listen.
    SystemPowerdown = "system_powerdown" -> Empty;
    /// `quit`: ends QEMU. SHUTDOWN comes before its reply, and then the stream ends or is reset.
    Quit = "quit" -> Empty;
}
