//! Typed commands and event data, by the chapters of QEMU's own QMP reference. They are those that
//! steering a machine needs; [`Connection::execute`](crate::Connection::execute) runs any other,
//! and the crate `qapi-qmp` has a type for each.
//!
//! Fields that a QEMU version adds are ignored, and fields that some version lacks are an `Option`.
//! A name that this crate does not know is kept as text. Where QEMU's reference has an object
//! nothing else is taken.

/// Commands without arguments.
macro_rules! command {
    ($($(#[$doc:meta])* $name:ident = $wire:literal -> $return:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        pub struct $name;

        impl $crate::command::Command for $name {
            const NAME: &'static str = $wire;
            type Return = $return;
        }
    )+};
}

/// Commands with borrowed arguments, named as on the wire but for `_` in place of `-`. `new` takes
/// those that QEMU requires; one after a `;` is optional, and has a setter of its name.
macro_rules! command_with_arguments {
    ($($(#[$doc:meta])* $name:ident = $wire:literal -> $return:ty {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)+
        $(; $(#[$optional_doc:meta])* $optional:ident: $optional_type:ty,)?
    })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: $type,)+
            $(
                $(#[$optional_doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $optional: Option<$optional_type>,
            )?
        }

        impl<'a> $name<'a> {
            /// The command with these arguments, in the order of its fields.
            pub fn new($($field: $type),+) -> Self {
                Self { $($field,)+ $($optional: None)? }
            }

            $(
                $(#[$optional_doc])*
                #[must_use]
                pub fn $optional(self, $optional: $optional_type) -> Self {
                    Self { $optional: Some($optional), ..self }
                }
            )?
        }

        impl $crate::command::Command for $name<'_> {
            const NAME: &'static str = $wire;
            type Return = $return;
        }
    )+};
}

/// A struct that is read from a JSON object. The derived reader alone would take an array of the
/// right values too.
macro_rules! object {
    (
        $(#[doc = $doc:literal])*
        #[derive($($derive:ident),+)]
        $(#[serde($($serde:tt)+)])*
        pub struct $name:ident {
            $($(#[doc = $field_doc:literal])* $(#[serde($($field_serde:tt)+)])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive($($derive),+)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                $(#[serde($($serde)+)])*
                struct Wire {
                    $($(#[serde($($field_serde)+)])* $field: $type,)*
                }
                let $crate::object::Object(Wire { $($field),* }) = serde::Deserialize::deserialize(deserializer)?;
                Ok(Self { $($field),* })
            }
        }
    };
}

/// An enum of names on the wire, with `Other` for those that a later QEMU may bring.
macro_rules! named {
    ($(#[$doc:meta])* pub enum $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $wire:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $enum {
            $($(#[$variant_doc])* $variant,)+
            /// One that this crate does not know.
            Other(alloc::string::String),
        }

        impl $enum {
            /// Its name on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $wire,)+
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for $enum {
            fn from(name: &str) -> Self {
                match name {
                    $($wire => Self::$variant,)+
                    _ => Self::Other(name.into()),
                }
            }
        }

        impl core::fmt::Display for $enum {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $enum {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = alloc::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Ok(Self::from(&*name))
            }
        }

        impl serde::Serialize for $enum {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

mod block;
mod capabilities;
mod events;
mod job;
mod machine;
mod migration;
mod qom;
mod snapshot;
mod status;

pub use block::{
    BlockDeviceInfo, BlockInfo, BlockdevAdd, BlockdevDel, ImageInfo, QueryBlock, SnapshotInfo,
};
pub use capabilities::QmpCapabilities;
pub use events::{
    BlockIoErrorEvent, GuestPanickedEvent, JobStatusChangeEvent, ShutdownCause, ShutdownEvent,
    TypedEvent, WatchdogEvent,
};
pub use job::{JobDismiss, JobInfo, JobStatus, QueryJobs};
pub use machine::{
    ChardevInfo, CommandInfo, CpuInfoFast, HumanMonitorCommand, QueryChardev, QueryCommands,
    QueryCpusFast, QueryQmpSchema,
};
pub use migration::{MigrateIncoming, MigrationInfo, MigrationStatus, QueryMigrate};
pub use qom::{ObjectPropertyInfo, QomGet, QomList, QomSet};
pub use snapshot::{SnapshotDelete, SnapshotLoad, SnapshotSave};
pub use status::{
    Cont, QueryStatus, Quit, RunState, StatusInfo, Stop, SystemPowerdown, SystemReset,
};

/// Reads a value as each type of this module, and as a schema; all that is asked is that nothing
/// panics.
#[cfg(any(test, feature = "_testing"))]
pub(crate) fn parse_as_everything(raw: &crate::RawJson) {
    use alloc::vec::Vec;
    let _ = raw.parse::<StatusInfo>();
    let _ = raw.parse::<crate::Version>();
    let _ = raw.parse::<Vec<CpuInfoFast>>();
    let _ = raw.parse::<Vec<ChardevInfo>>();
    let _ = raw.parse::<Vec<JobInfo>>();
    let _ = raw.parse::<Vec<BlockInfo>>();
    let _ = raw.parse::<MigrationInfo>();
    let _ = raw.parse::<Vec<ObjectPropertyInfo>>();
    for name in [
        "SHUTDOWN",
        "WATCHDOG",
        "GUEST_PANICKED",
        "JOB_STATUS_CHANGE",
        "BLOCK_IO_ERROR",
    ] {
        let event = crate::QmpEvent::new(name, Some(raw.clone()));
        let _ = event.typed();
    }
    if let Ok(schema) = crate::Schema::read(raw) {
        for command in schema.commands() {
            for path in ["", "a", "a/b/c/d", "0/0/0/0/0/0/0/0"] {
                schema.has_argument(command, path);
                schema.has_returned_field(command, path);
                schema.argument_values(command, path);
            }
        }
        for event in schema.events() {
            schema.has_event_field(event, "a/b");
        }
    }
}
