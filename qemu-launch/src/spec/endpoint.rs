//! Where QEMU's monitor, GDB stub, serial ports and other character devices are reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where a channel is wanted. Nothing here but [`Exposed`](Endpoint::Exposed) can be reached from
/// another machine.
///
/// Whoever reaches a monitor or a GDB stub can run commands as QEMU's owner (the stub's `qRcmd`
/// reaches the monitor, and the monitor reaches files and programs). So the default is
/// [`Inherited`](Endpoint::Inherited).
///
/// A QMP client that connects to a monitor which QEMU listens for, while QEMU still starts, hangs
/// QEMU once in some thousand times: QEMU greets, and then waits in `accept` for another client.
/// One more connection, closed at once, frees it, as a session of `qemu-controller` does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Endpoint {
    /// One end of a socket pair that QEMU inherits: no name, no port, no race, and nobody else can
    /// ever connect. Unix only. The other end is taken from the [`Process`](crate::Process).
    #[default]
    Inherited,
    /// A unix socket that QEMU listens on, in a folder of mode 0700 that goes away with the
    /// process. It stays when this program is killed or ends by `process::exit` before QEMU has
    /// ended.
    PrivateSocket,
    /// A unix socket that QEMU listens on, at this path. QEMU removes whatever is at the path, so a
    /// path that exists is refused. The folder's mode decides who may connect. Once the process has
    /// ended the socket is removed, unless another process listens there by then.
    Socket(PathBuf),
    /// TCP on 127.0.0.1, which every local user can connect to. Port 0 takes a free port, which
    /// QMP's `query-chardev` tells.
    Loopback {
        /// The port, 0 for a free one.
        port: u16,
    },
    /// TCP on any address: **whoever can reach it can run commands on this machine.** The explicit
    /// word that an address which is not loopback needs.
    Exposed(SocketAddr),
}

impl Endpoint {
    /// Loopback TCP on a port that QEMU chooses among the free ones.
    #[must_use]
    pub fn free_port() -> Self {
        Self::Loopback { port: 0 }
    }

    /// Loopback TCP on the port given.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self::Loopback { port }
    }
}

/// Where a channel of a process is: its [`Endpoint`], with path or port filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// QEMU holds one end of a socket pair as this descriptor; the other end is taken from the
    /// process handle.
    Inherited {
        /// The descriptor's number in QEMU.
        fd: i32,
    },
    /// QEMU listens on this unix socket.
    Socket(PathBuf),
    /// QEMU listens on this TCP address; port 0 means a free port, which QMP's `query-chardev`
    /// tells.
    Tcp(SocketAddr),
}

impl Address {
    pub(crate) fn tcp(endpoint: &Endpoint) -> Option<SocketAddr> {
        match endpoint {
            Endpoint::Loopback { port } => {
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port))
            }
            Endpoint::Exposed(address) => Some(*address),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherited { fd } => write!(f, "inherited descriptor {fd}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}
