//! Event data by type, for the events that a session meets.

use alloc::string::String;

use crate::{commands::JobStatus, error::ParseError, event::QmpEvent, raw::RawJson};

/// An event's name and data in one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TypedEvent {
    /// `STOP`: the guest stopped running.
    Stop,
    /// `RESUME`: it goes on.
    Resume,
    /// `RESET`: it was reset.
    Reset(ShutdownEvent),
    /// `SHUTDOWN`: it was shut down, or QEMU ends. Not sent for a semihosting exit or an abort.
    Shutdown(ShutdownEvent),
    /// `POWERDOWN`: the guest was asked to power down.
    Powerdown,
    /// `SUSPEND`: the guest suspended itself.
    Suspend,
    /// `WAKEUP`: and woke up.
    Wakeup,
    /// `WATCHDOG`: the watchdog's timer ran out.
    Watchdog(WatchdogEvent),
    /// `GUEST_PANICKED`: the guest says that it panicked.
    GuestPanicked(GuestPanickedEvent),
    /// `JOB_STATUS_CHANGE`: a job is a step further. Whether it failed is in `query-jobs`.
    JobStatusChange(JobStatusChangeEvent),
    /// `BLOCK_IO_ERROR`: reading or writing an image failed.
    BlockIoError(BlockIoErrorEvent),
    /// Any other event; its data are in [`QmpEvent::data`].
    Other,
}

object! {
    /// The data of `SHUTDOWN` and `RESET`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ShutdownEvent {
        /// Whether the guest did it.
        #[serde(default)]
        pub guest: bool,
        /// What did it. `none` where the QEMU does not say.
        #[serde(default = "no_cause")]
        pub reason: ShutdownCause,
    }
}

fn no_cause() -> ShutdownCause {
    ShutdownCause::None
}

named! {
    /// What ended or reset a machine (`ShutdownCause`).
    pub enum ShutdownCause {
        /// Nothing asked for it.
        None = "none",
        /// An error of the host.
        HostError = "host-error",
        /// The command `quit`.
        HostQmpQuit = "host-qmp-quit",
        /// The command `system_reset`.
        HostQmpSystemReset = "host-qmp-system-reset",
        /// A signal, SIGTERM for example.
        HostSignal = "host-signal",
        /// The user, in a window.
        HostUi = "host-ui",
        /// The guest shut itself down.
        GuestShutdown = "guest-shutdown",
        /// The guest reset itself.
        GuestReset = "guest-reset",
        /// The guest panicked.
        GuestPanic = "guest-panic",
        /// A part of the machine was reset.
        SubsystemReset = "subsystem-reset",
        /// A snapshot was loaded.
        SnapshotLoad = "snapshot-load",
    }
}

object! {
    /// The data of `WATCHDOG`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct WatchdogEvent {
        /// What QEMU does now, for example `reset`.
        pub action: String,
    }
}

object! {
    /// The data of `GUEST_PANICKED`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct GuestPanickedEvent {
        /// What QEMU does now, for example `pause`.
        pub action: String,
        /// What the guest said, by its kind.
        #[serde(default)]
        pub info: Option<RawJson>,
    }
}

object! {
    /// The data of `JOB_STATUS_CHANGE`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct JobStatusChangeEvent {
        /// The job.
        pub id: String,
        /// How far it is now.
        pub status: JobStatus,
    }
}

object! {
    /// The data of `BLOCK_IO_ERROR`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[serde(rename_all = "kebab-case")]
    pub struct BlockIoErrorEvent {
        /// The backend's name; may be empty.
        #[serde(default)]
        pub device: String,
        /// The node.
        #[serde(default)]
        pub node_name: Option<String>,
        /// `read` or `write`.
        pub operation: String,
        /// What QEMU does now, for example `stop`.
        pub action: String,
        /// Why, for people.
        #[serde(default)]
        pub reason: String,
        /// Whether the disk was full.
        #[serde(default)]
        pub nospace: bool,
    }
}

impl QmpEvent {
    /// Gives the event a type.
    ///
    /// # Errors
    /// [`ParseError`] where a known event's data are not what QEMU's reference says.
    pub fn typed(&self) -> Result<TypedEvent, ParseError> {
        Ok(match &*self.name {
            "STOP" => TypedEvent::Stop,
            "RESUME" => TypedEvent::Resume,
            "RESET" => TypedEvent::Reset(self.shutdown_data()?),
            "SHUTDOWN" => TypedEvent::Shutdown(self.shutdown_data()?),
            "POWERDOWN" => TypedEvent::Powerdown,
            "SUSPEND" => TypedEvent::Suspend,
            "WAKEUP" => TypedEvent::Wakeup,
            "WATCHDOG" => TypedEvent::Watchdog(self.parse_data()?),
            "GUEST_PANICKED" => TypedEvent::GuestPanicked(self.parse_data()?),
            "JOB_STATUS_CHANGE" => TypedEvent::JobStatusChange(self.parse_data()?),
            "BLOCK_IO_ERROR" => TypedEvent::BlockIoError(self.parse_data()?),
            _ => TypedEvent::Other,
        })
    }

    /// QEMU before 2.10 sent no data: it is as with none of the members.
    fn shutdown_data(&self) -> Result<ShutdownEvent, ParseError> {
        match &self.data {
            Some(data) => data.parse(),
            None => Ok(ShutdownEvent {
                guest: false,
                reason: no_cause(),
            }),
        }
    }
}
