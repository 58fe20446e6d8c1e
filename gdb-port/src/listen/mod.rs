//! Looks that touch nothing: who listens on an endpoint, and is a client attached, from the
//! kernel's socket tables.
//!
//! Nothing is connected to the endpoint or sent there, so no guest can notice. Linux only;
//! elsewhere every look is [`ListenState::Unknown`], and QEMU's `query-chardev`
//! ([`Chardev`](crate::Chardev)) is the look that remains.

use std::net::SocketAddr;
#[cfg(all(unix, not(target_os = "linux")))]
use std::os::fd::AsFd;
use std::{fmt, io};

use crate::address::StubAddress;
use crate::reachability::{Reachability, UnknownReason};

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
pub use netlink::unread_by_peer;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(target_os = "linux")]
mod tcp;
#[cfg(target_os = "linux")]
mod unix;

/// Only Linux tells it without `unsafe`.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn unread_by_peer(_: &impl AsFd) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What one look saw.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenState {
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
    Unknown(UnknownReason),
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

impl ListenState {
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
            Self::Unknown(reason) => Reachability::Unknown(reason.clone()),
        }
    }
}

impl fmt::Display for ListenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reachability().fmt(f)
    }
}

/// Looks at who listens on `endpoint`, touching nothing.
///
/// With `owner`, the process id that should be listening, another process's listener is
/// [`ListenState::OtherProcess`].
///
/// A look blocks for as long as the kernel takes: about 0.5 ms for a TCP address, 0.05 ms for a
/// unix socket. It asks by netlink (`sock_diag`, as `ss` does); where that is refused, as in some
/// containers, the answer is [`ListenState::Unknown`].
///
/// A listener in another network namespace (a container) is absent, which is right: nor could one
/// connect to it.
#[must_use]
pub fn inspect(endpoint: &StubAddress, owner: Option<u32>) -> ListenState {
    #[cfg(target_os = "linux")]
    let state = match endpoint {
        StubAddress::Tcp(address) => tcp::inspect(*address, owner, netlink::Wanted::Connections),
        StubAddress::Unix(path) => unix::inspect(path, owner),
    };
    #[cfg(not(target_os = "linux"))]
    let state = {
        let _ = (endpoint, owner);
        ListenState::Unknown(UnknownReason::NoSocketTables)
    };
    state
}

/// As [`inspect`], without looking for clients: to be asked again and again until it is there.
pub(crate) fn inspect_listener(endpoint: &StubAddress, owner: Option<u32>) -> ListenState {
    #[cfg(target_os = "linux")]
    if let StubAddress::Tcp(address) = endpoint {
        return tcp::inspect(*address, owner, netlink::Wanted::Listeners);
    }
    inspect(endpoint, owner)
}

/// Who is at the other end of a loopback connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// The user's number.
    pub user: u32,
    /// The process, where this user may see it.
    pub pid: Option<u32>,
}

/// Who connected from `from`, the peer's address, to `to`, an address of ours on this host; `None`
/// when it has hung up. It blocks for some milliseconds.
///
/// # Errors
/// Where the system does not tell: behind a filter of system calls, as in some containers, and
/// anywhere but on Linux.
pub fn caller(from: SocketAddr, to: SocketAddr) -> io::Result<Option<Caller>> {
    #[cfg(target_os = "linux")]
    let caller = tcp::caller(from, to);
    #[cfg(not(target_os = "linux"))]
    let caller = {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    };
    caller
}

/// Whether the connection that was made from `local` to the TCP `remote` has been accepted; `None`
/// where that is not shown.
pub(crate) fn is_accepted(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    #[cfg(target_os = "linux")]
    let accepted = tcp::is_accepted(local, remote);
    #[cfg(not(target_os = "linux"))]
    let accepted = {
        let _ = (local, remote);
        None
    };
    accepted
}

/// What a listener with these sockets is, if it is not `owner`'s as it should be.
#[cfg(target_os = "linux")]
fn not_the_owners(owner: Option<u32>, inodes: &[u64]) -> Option<ListenState> {
    match owner::holds(owner?, inodes) {
        owner::Holds::Yes => None,
        owner::Holds::No => Some(ListenState::OtherProcess {
            pid: owner::find(inodes),
        }),
        owner::Holds::Hidden => Some(ListenState::Unknown(UnknownReason::OwnerHidden)),
    }
}
