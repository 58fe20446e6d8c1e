//! The socket pairs between this program and QEMU.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// QEMU's end of a socket pair.
pub(crate) type Descriptor = OwnedFd;
/// This program's end of it.
pub(crate) type Stream = UnixStream;

/// Socket pairs: QEMU's ends and ours.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    theirs: Vec<Descriptor>,
    ours: Vec<Stream>,
}

impl Inherited {
    pub(crate) fn pairs(count: usize) -> io::Result<Self> {
        let mut pairs = Self::default();
        for _ in 0..count {
            let (theirs, ours) = UnixStream::pair()?;
            pairs.theirs.push(above_standard(theirs.into())?);
            pairs.ours.push(ours);
        }
        Ok(pairs)
    }

    /// The numbers under which QEMU will have its ends: those that they have here. Numbers of our
    /// choice could be those of descriptors that are still needed on the way to `exec`.
    pub(crate) fn numbers(&self) -> Vec<i32> {
        self.theirs.iter().map(AsRawFd::as_raw_fd).collect()
    }

    pub(crate) fn split(self) -> (Vec<Descriptor>, Vec<Stream>) {
        (self.theirs, self.ours)
    }
}

/// The same for one more process.
pub(crate) fn duplicate(descriptor: &Descriptor) -> io::Result<Descriptor> {
    descriptor.try_clone()
}

/// A program that has closed its standard streams gets their numbers again, and in the child they
/// are taken.
pub(super) fn above_standard(descriptor: Descriptor) -> io::Result<Descriptor> {
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 3)?)
}
