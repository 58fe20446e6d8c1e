//! Why a call was not answered, in words and as a kind that a program can act on.

use std::fmt;

use qemu_controller::debug::DebugError;
use qemu_controller::{CommandError, MemoryError, SnapshotError, StateError};
use serde::{Deserialize, Serialize};

use crate::failure::chain;

/// What to do about it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallErrorKind {
    /// Say it otherwise.
    Invalid,
    /// Pause the guest first.
    Running,
    /// There is no such machine.
    NoMachine,
    /// The machine has ended; `status` says how.
    Ended,
    /// It was not done in time. The guest's state is not known.
    Deadline,
    /// It could not be done.
    Failed,
}

/// Why a call was not answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CallError {
    pub(crate) kind: CallErrorKind,
    pub(crate) message: String,
}

impl CallError {
    pub(crate) fn new(kind: CallErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    /// What was asked for cannot be.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(CallErrorKind::Invalid, message)
    }

    /// It could not be done.
    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        Self::of(CallErrorKind::Failed, error)
    }

    fn of(kind: CallErrorKind, error: &dyn std::error::Error) -> Self {
        Self::new(kind, chain(error))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

fn kind_of(error: &CommandError) -> CallErrorKind {
    match error {
        _ if error.ended().is_some() => CallErrorKind::Ended,
        CommandError::Deadline { .. } | CommandError::NoEvent { .. } => CallErrorKind::Deadline,
        _ => CallErrorKind::Failed,
    }
}

impl From<CommandError> for CallError {
    fn from(error: CommandError) -> Self {
        Self::of(kind_of(&error), &error)
    }
}

impl From<MemoryError> for CallError {
    fn from(error: MemoryError) -> Self {
        Self::of(kind_of_memory(&error), &error)
    }
}

fn kind_of_memory(error: &MemoryError) -> CallErrorKind {
    match error {
        MemoryError::Command(error) => kind_of(error),
        MemoryError::Name(_) => CallErrorKind::Invalid,
        _ => CallErrorKind::Failed,
    }
}

impl From<DebugError> for CallError {
    fn from(error: DebugError) -> Self {
        let kind = match &error {
            DebugError::Running => CallErrorKind::Running,
            DebugError::Deadline { .. } => CallErrorKind::Deadline,
            DebugError::Command(error) => kind_of(error),
            DebugError::Place(error) => kind_of_memory(error),
            DebugError::NoRegister { .. } | DebugError::TooWide { .. } => CallErrorKind::Invalid,
            _ => CallErrorKind::Failed,
        };
        Self::of(kind, &error)
    }
}

impl From<SnapshotError> for CallError {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::Command(error) => kind_of(error),
            SnapshotError::Name(_)
            | SnapshotError::Exists { .. }
            | SnapshotError::Missing { .. } => CallErrorKind::Invalid,
            _ if error.ended().is_some() => CallErrorKind::Ended,
            _ => CallErrorKind::Failed,
        };
        Self::of(kind, &error)
    }
}

impl From<StateError> for CallError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Save(error) => error.into(),
            error => Self::of(CallErrorKind::Failed, &error),
        }
    }
}
