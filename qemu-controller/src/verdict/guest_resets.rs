//! How often a guest has reset itself, and what else that may have been.

use std::fmt;

use super::triple_fault;
use crate::session::Session;

/// The resets that a guest asked for. Its `Display` begins with "it": `it reset itself twice`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestResets {
    /// How many.
    pub count: u64,
    /// It is an x86 guest, whose triple faults QEMU reports as resets.
    pub may_be_triple_faults: bool,
}

impl fmt::Display for GuestResets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => f.write_str("it did not reset itself"),
            1 => f.write_str("it reset itself once"),
            count => write!(f, "it reset itself {count} times"),
        }?;
        match self.may_be_triple_faults && self.count > 0 {
            true => write!(f, ", or took a triple fault: {}", triple_fault::ALIKE),
            false => Ok(()),
        }
    }
}

impl Session {
    /// How often the guest has reset itself since the session began. Those of a QEMU that this
    /// session is attached to are never said to be triple faults: its target is not known.
    #[must_use]
    pub fn guest_resets(&self) -> GuestResets {
        let process = self.process();
        GuestResets {
            count: self.inner.shared.state().history.guest_resets,
            may_be_triple_faults: process
                .is_some_and(|process| triple_fault::is_x86(process.argv())),
        }
    }
}
