//! Names for the block nodes and jobs that a session makes in QEMU.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// What each name begins with.
const PREFIX: &str = "snap";

/// Hexadecimal digits that tell sessions apart where QEMU may have other clients. They are few
/// because QEMU takes 4 µs for each byte of a command, and a load has four such names in it.
const DIGITS: usize = 6;

/// Gives out names that no other client of the same QEMU has.
pub(crate) struct Ids {
    prefix: String,
    next: AtomicU64,
}

impl Ids {
    /// For a QEMU that this session has started: no other client is expected to use our prefix.
    pub(crate) fn for_own_qemu() -> Self {
        Self::with_prefix(format!("{PREFIX}."))
    }

    fn with_prefix(prefix: String) -> Self {
        let next = AtomicU64::new(0);
        Self { prefix, next }
    }

    pub(crate) fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}{number}", self.prefix)
    }
}

/// For a QEMU that other sessions may use too.
impl Default for Ids {
    fn default() -> Self {
        let random = RandomState::new().hash_one(0_u8) & 0xff_ffff;
        Self::with_prefix(format!("{PREFIX}{random:0DIGITS$x}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let sessions = [Ids::for_own_qemu(), Ids::default(), Ids::default()];
        let mut names: Vec<_> = sessions
            .iter()
            .flat_map(|ids| [ids.next(), ids.next()])
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 6, "{names:?}");
    }
}
