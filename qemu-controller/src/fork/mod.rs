//! A machine's state outside of it: saved once, and any number of machines continue from it.
//!
//! ```text
//!   save:  look ─▶ make an image ─▶ SD card out ─▶ snapshot-save ─▶ SD card in ─▶ take the state out of the image
//!   start: spawn -incoming ─▶ handshake ─▶ does it fit? ─▶ migrate-incoming, and feed it ─▶ the saved run state
//! ```

mod error;
mod file;
mod load;
mod runstate;
mod save;
mod start;
mod vmstate;

use std::fmt;
use std::fs::File;
use std::sync::Arc;

pub use error::StateError;
pub(crate) use load::{LoadError, load};

use crate::snapshot::identity::Identity;

/// The whole state of a machine, memory and devices, at one moment: what
/// [`Session::start_from`](crate::Session::start_from) continues from, any number of times.
///
/// It is in a file without a name in the folder for temporary files, which is gone with the last
/// clone however this program ends; [`keep`](Self::keep) copies it to one that stays. It has no
/// disk's contents.
#[derive(Clone)]
pub struct MachineState {
    inner: Arc<Kept>,
}

struct Kept {
    file: File,
    /// Where in the file it begins.
    start: u64,
    bytes: u64,
    running: bool,
    taken_with: Identity,
}

impl MachineState {
    fn new(kept: Kept) -> Self {
        Self {
            inner: Arc::new(kept),
        }
    }

    /// What it was taken with. It fits where all of this is the same.
    #[must_use]
    pub fn taken_with(&self) -> &Identity {
        &self.inner.taken_with
    }

    /// Whether the guest ran; then it runs on in what is started from it.
    #[must_use]
    pub fn was_running(&self) -> bool {
        self.inner.running
    }

    /// How many bytes it has. Memory that is all zero takes hardly any.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }
}

impl fmt::Debug for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineState")
            .field("taken_with", &self.inner.taken_with)
            .field("was_running", &self.inner.running)
            .field("bytes", &self.inner.bytes)
            .finish_non_exhaustive()
    }
}
