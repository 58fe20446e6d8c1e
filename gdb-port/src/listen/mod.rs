//! Looks that touch nothing: who listens on an endpoint, and is a client attached, from the
//! kernel's socket tables.
//!
//! Nothing is connected to the endpoint or sent there, so no guest can notice. Linux only;
//! elsewhere every look is
//! [`Look::Unknown`], and QEMU's `query-chardev` ([`Chardev`](crate::Chardev)) is the look that remains.

use std::fmt;

use crate::reachability::{Blind, Reachability};
use crate::stub_address::StubAddress;

#[cfg(target_os = "linux")]
mod diag;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(target_os = "linux")]
mod tcp;
#[cfg(target_os = "linux")]
mod unix;

/// What one look saw.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Look {
    /// Nobody listens.
    Absent,
    /// Somebody listens.
    Present(Listener),
    /// Somebody listens, but not the process that should.
    OtherProcess {
        /// Who listens, where that can be seen.
        pid: Option<u32>,
    },
    /// It cannot be seen from here.
    Unknown(Blind),
}

/// Who listens, and who is connected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Listener {
    /// Connections that the listener has accepted and whose client is there.
    pub attached: usize,
    /// Connections whose client has gone and that the listener has not closed yet: a moment's
    /// state.
    pub leaving: usize,
    /// Connections that wait to be accepted, those whose client has gone again among them. QEMU's
    /// stub accepts the next when its client leaves, and stops the guest then.
    pub queued: usize,
}

impl Look {
    /// The look as an answer. [`Reachability::Listens`] only when nobody is attached, leaving or
    /// queued.
    #[must_use]
    pub fn reachability(&self) -> Reachability {
        match self {
            Self::Absent => Reachability::NobodyListens,
            Self::Present(Listener {
                attached: 0,
                leaving: 0,
                queued: 0,
            }) => Reachability::Listens,
            Self::Present(_) => Reachability::HeldByAnotherClient,
            Self::OtherProcess { pid } => Reachability::OtherProcess { pid: *pid },
            Self::Unknown(blind) => Reachability::Unknown(blind.clone()),
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reachability().fmt(f)
    }
}

/// Looks at who listens on `endpoint`, touching nothing.
///
/// With `owner`, the process id that should be listening, another process's listener is
/// [`Look::OtherProcess`].
///
/// A look blocks for as long as the kernel takes: about 0.5 ms for a TCP address, 0.05 ms for a
/// unix socket. Where netlink is refused (some containers), the tables of `/proc` are read instead,
/// which takes 5 to 40 ms for a TCP address.
///
/// A listener in another network namespace (a container) is absent, which is right: nor could one
/// connect to it.
#[must_use]
pub fn look(endpoint: &StubAddress, owner: Option<u32>) -> Look {
    #[cfg(target_os = "linux")]
    let look = match endpoint {
        StubAddress::Tcp(address) => tcp::look(*address, owner),
        StubAddress::Unix(path) => unix::look(path, owner),
    };
    #[cfg(not(target_os = "linux"))]
    let look = {
        let _ = (endpoint, owner);
        Look::Unknown(Blind::NoSocketTables)
    };
    look
}

/// As [`look`], without looking for clients: to be asked again and again until it is there.
#[cfg(feature = "tokio")]
pub(crate) fn look_for_listener(endpoint: &StubAddress, owner: Option<u32>) -> Look {
    #[cfg(target_os = "linux")]
    if let StubAddress::Tcp(address) = endpoint {
        return tcp::look_for_listener(*address, owner);
    }
    look(endpoint, owner)
}

/// Whether the connection that was made from `local` to the TCP `remote` has been accepted; `None`
/// where that is not shown.
#[cfg(feature = "tokio")]
pub(crate) fn is_accepted(
    local: std::net::SocketAddr,
    remote: std::net::SocketAddr,
) -> Option<bool> {
    #[cfg(target_os = "linux")]
    let accepted = tcp::is_accepted(local, remote);
    #[cfg(not(target_os = "linux"))]
    let accepted = {
        let _ = (local, remote);
        None
    };
    accepted
}
