//! Passing a descriptor to QEMU over the monitor's unix socket, for its command `getfd`.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::client::State;

/// A QEMU that has ended is an error, and no signal to this program.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// There only the program can ignore the signal, as Rust's do.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

impl State {
    /// Sends a descriptor with a space, which means nothing between two commands; QEMU keeps it
    /// until `getfd` takes it. `None` where the monitor's stream takes no descriptor.
    ///
    /// # Errors
    /// The system's; `WouldBlock` while a command is written by half.
    pub(crate) fn send_descriptor(&self, descriptor: BorrowedFd<'_>) -> Option<io::Result<()>> {
        let socket = self.transport.as_ref()?.unix_socket()?;
        if !self.connection.output().is_empty() {
            return Some(Err(io::ErrorKind::WouldBlock.into()));
        }
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(socket, &[IoSlice::new(b" ")], &mut control, NO_SIGNAL);
        Some(sent.map(drop).map_err(io::Error::from))
    }
}
