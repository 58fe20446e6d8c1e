//! Capabilities negotiation: `qmp_capabilities`.

use serde::Serialize;

use crate::{
    command::{Command, Empty},
    greeting::Capability,
};

/// `qmp_capabilities`: ends the negotiation.
/// [`Connection::negotiate`](crate::Connection::negotiate) sends it.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct QmpCapabilities<'a> {
    /// What to enable of what the greeting offered.
    pub enable: &'a [Capability],
}

impl<'a> QmpCapabilities<'a> {
    /// The command that enables these.
    pub fn new(enable: &'a [Capability]) -> Self {
        Self { enable }
    }
}

impl Command for QmpCapabilities<'_> {
    const NAME: &'static str = "qmp_capabilities";
    type Return = Empty;
}
