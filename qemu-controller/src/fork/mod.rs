//! A machine's state as a value: saved once, and any number of machines continue from it.
//!
//! ```text
//!   save:  check ─▶ make an image ─▶ SD card out ─▶ snapshot-save ─▶ SD card in ─▶ take the state out of the image
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

use crate::snapshot::{LostDevice, MachineFingerprint};

/// The whole state of a machine, memory and devices, at one moment: what
/// [`Session::start_from`](crate::Session::start_from) continues from, any number of times.
///
/// It is in a file without a name in the folder for temporary files, which is gone with the last
/// clone however this program ends; [`persist`](Self::persist) copies it to a file that stays. It
/// has no disk's contents.
#[derive(Clone)]
pub struct MachineState {
    inner: Arc<StateFile>,
}

struct StateFile {
    file: File,
    /// The offset in the file at which the state begins.
    start: u64,
    bytes: u64,
    running: bool,
    /// Of the devices that QEMU does not save whole.
    registers: Vec<u64>,
    /// Those that are not as they were in what continues from this.
    lost_devices: Vec<LostDevice>,
    taken_with: MachineFingerprint,
}

impl MachineState {
    fn new(file: StateFile) -> Self {
        let inner = Arc::new(file);
        Self { inner }
    }

    /// The machine that it was taken of. It fits where all of this is the same.
    #[must_use]
    pub fn taken_with(&self) -> &MachineFingerprint {
        &self.inner.taken_with
    }

    /// Whether the guest ran; then the guest of what is started from it runs on.
    #[must_use]
    pub fn was_running(&self) -> bool {
        self.inner.running
    }

    /// The devices that are not as they were in a machine that continues from this.
    #[must_use]
    pub fn lost_devices(&self) -> &[LostDevice] {
        &self.inner.lost_devices
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
