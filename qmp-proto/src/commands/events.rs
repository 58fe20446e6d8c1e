//! Event data by type, for the events that a session meets.

use alloc::string::String;

use crate::{commands::JobStatus, error::ParseError, message::QmpEvent, raw::RawJson};

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
    /// `DEVICE_DELETED`: a device is gone.
    DeviceDeleted(DeviceDeletedEvent),
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

impl ShutdownEvent {
    /// The one form that QEMU writes without `pretty=on`. A guest that resets in a loop sends
    /// little else.
    fn read_usual(json: &str) -> Option<Self> {
        let rest = json.strip_prefix("{\"guest\": ")?;
        let (guest, rest) = match rest.strip_prefix("true") {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix("false")?),
        };
        let reason = rest.strip_prefix(", \"reason\": \"")?.strip_suffix("\"}")?;
        let is_plain = reason
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        is_plain.then(|| Self {
            guest,
            reason: reason.into(),
        })
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

object! {
    /// The data of `DEVICE_DELETED`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct DeviceDeletedEvent {
        /// Its id, if it had one.
        #[serde(default)]
        pub device: Option<String>,
        /// Its path in the object model.
        pub path: String,
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
            "DEVICE_DELETED" => TypedEvent::DeviceDeleted(self.parse_data()?),
            _ => TypedEvent::Other,
        })
    }

    /// Without data it is as with none of the members: QEMU before 2.10 sent it so.
    fn shutdown_data(&self) -> Result<ShutdownEvent, ParseError> {
        match &self.data {
            Some(data) => {
                ShutdownEvent::read_usual(data.as_str()).map_or_else(|| self.parse_data(), Ok)
            }
            None => Ok(ShutdownEvent {
                guest: false,
                reason: no_cause(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ShutdownEvent;

    #[test]
    fn the_usual_form_of_a_shutdown_is_read_as_any_other() {
        let usual = [
            r#"{"guest": true, "reason": "guest-reset"}"#,
            r#"{"guest": false, "reason": "host-qmp-quit"}"#,
            r#"{"guest": true, "reason": "a-later-qemus"}"#,
            r#"{"guest": false, "reason": ""}"#,
        ];
        for json in usual {
            assert_eq!(
                ShutdownEvent::read_usual(json),
                Some(serde_json::from_str(json).unwrap()),
                "{json}"
            );
        }
        let others = [
            r#"{"guest": true}"#,
            r#"{"guest":true,"reason":"guest-reset"}"#,
            r#"{"guest": truer, "reason": "guest-reset"}"#,
            r#"{"guest": true, "reason": "guest\u002dreset"}"#,
            r#"{"guest": true, "reason": "guest-reset", "more": "x"}"#,
            r#"{"guest": true, "reason": "guest-reset" }"#,
        ];
        for json in others {
            assert_eq!(ShutdownEvent::read_usual(json), None, "{json}");
        }
    }
}
