//! Who listens on a TCP address, and who is connected to it.
//!
//! Asked of the kernel by netlink; where that is refused, read from `/proc/net/tcp` and
//! `/proc/net/tcp6` by the crate procfs. A connection that the listener has not accepted has no
//! inode yet: that is how the queue is told from the attached.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use procfs::net::{TcpNetEntry, TcpState};

use super::owner::{self, Holds};
use super::{Listener, Look, diag};
use crate::reachability::Blind;

/// One socket of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    /// Of a listener: how many connections wait to be accepted. It counts those that were reset,
    /// too, which have no entry.
    pub(super) queue: u32,
    pub(super) inode: u64,
    pub(super) v6_only: bool,
}

/// The states that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Listen,
    Established,
    CloseWait,
}

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Listeners alone.
    #[cfg(feature = "tokio")]
    Listeners,
    /// Listeners and what is connected to them.
    Connections,
}

fn entries(port: u16, wanted: Wanted) -> Result<Vec<Entry>, Blind> {
    diag::entries(port, wanted).or_else(|_| entries_of_procfs(port))
}

fn entries_of_procfs(port: u16) -> Result<Vec<Entry>, Blind> {
    let unreadable = |error: procfs::ProcError| Blind::Unreadable(error.to_string());
    let mut table = procfs::net::tcp().map_err(unreadable)?;
    match procfs::net::tcp6() {
        Ok(v6) => table.extend(v6),
        // A kernel without IPv6 has no such table.
        Err(procfs::ProcError::NotFound(_)) => {}
        Err(error) => return Err(unreadable(error)),
    }
    let of_port = table
        .iter()
        .filter(|entry| entry.local_address.port() == port);
    Ok(of_port.filter_map(entry_of_procfs).collect())
}

fn entry_of_procfs(entry: &TcpNetEntry) -> Option<Entry> {
    let state = match entry.state {
        TcpState::Listen => State::Listen,
        TcpState::Established => State::Established,
        TcpState::CloseWait => State::CloseWait,
        _ => return None,
    };
    Some(Entry {
        local: entry.local_address,
        remote: entry.remote_address,
        state,
        queue: entry.rx_queue,
        inode: entry.inode,
        // Not shown there; it is the exception.
        v6_only: false,
    })
}

pub(super) fn look(address: SocketAddr, owner: Option<u32>) -> Look {
    match entries(address.port(), Wanted::Connections) {
        Ok(entries) => look_in(&entries, address, owner),
        Err(blind) => Look::Unknown(blind),
    }
}

/// As [`look`], without the clients: cheap enough to be asked again and again.
#[cfg(feature = "tokio")]
pub(super) fn look_for_listener(address: SocketAddr, owner: Option<u32>) -> Look {
    match entries(address.port(), Wanted::Listeners) {
        Ok(entries) => look_in(&entries, address, owner),
        Err(blind) => Look::Unknown(blind),
    }
}

fn look_in(entries: &[Entry], address: SocketAddr, owner: Option<u32>) -> Look {
    if !is_of_this_host(address) {
        // Perhaps a wildcard listener of ours has the port, but the address is another host's.
        return Look::Unknown(Blind::NotThisHost);
    }
    let listeners = serving(entries, address);
    if listeners.is_empty() {
        return Look::Absent;
    }
    let inodes: Vec<u64> = listeners.iter().map(|entry| entry.inode).collect();
    match owner.map(|pid| owner::holds(pid, &inodes)) {
        None | Some(Holds::Yes) => Look::Present(clients(entries, address, &listeners)),
        Some(Holds::No) => Look::OtherProcess {
            pid: owner::find(&inodes),
        },
        Some(Holds::Hidden) => Look::Unknown(Blind::OwnerHidden),
    }
}

/// The listeners that get a connection to `address`: those of the most specific address.
fn serving(entries: &[Entry], address: SocketAddr) -> Vec<Entry> {
    let ranked = || {
        let listeners = entries.iter().filter(|entry| entry.state == State::Listen);
        listeners.filter_map(|entry| Some((serves(entry, address)?, *entry)))
    };
    let best = ranked().map(|(rank, _)| rank).min();
    ranked()
        .filter(|(rank, _)| Some(*rank) == best)
        .map(|(_, entry)| entry)
        .collect()
}

/// Whether a listener gets what is sent to `address`, and how specific it is: 0 is its very
/// address.
fn serves(listener: &Entry, address: SocketAddr) -> Option<u8> {
    if listener.local.port() != address.port() {
        return None;
    }
    let wanted = address.ip().to_canonical();
    match listener.local.ip() {
        IpAddr::V4(ip) if wanted == ip => Some(0),
        IpAddr::V6(ip) if wanted == ip => Some(0),
        // `::ffff:127.0.0.1`: a v6 socket that serves one v4 address.
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some_and(|ip| wanted == ip) => Some(1),
        IpAddr::V4(ip) if ip.is_unspecified() && wanted.is_ipv4() => Some(2),
        IpAddr::V6(ip) if ip.is_unspecified() && !(listener.v6_only && wanted.is_ipv4()) => Some(3),
        _ => None,
    }
}

fn clients(entries: &[Entry], address: SocketAddr, listeners: &[Entry]) -> Listener {
    let wanted = address.ip().to_canonical();
    // A connection to a wildcard listener bears the address that its client connected to, which may
    // be another of ours.
    let wildcard = listeners
        .iter()
        .any(|listener| listener.local.ip().is_unspecified());
    let accepted = |state: State| {
        let to_it = |entry: &&Entry| wildcard || entry.local.ip().to_canonical() == wanted;
        entries
            .iter()
            .filter(to_it)
            .filter(|entry| entry.state == state && entry.inode != 0)
            .count()
    };
    Listener {
        attached: accepted(State::Established),
        leaving: accepted(State::CloseWait),
        queued: listeners
            .iter()
            .map(|listener| listener.queue as usize)
            .sum(),
    }
}

/// Whether the connection from `local` to `remote` has been accepted, by the listener's end of it.
#[cfg(feature = "tokio")]
pub(super) fn is_accepted(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    let same = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
    };
    let entries = entries(remote.port(), Wanted::Connections).ok()?;
    let entry = entries
        .iter()
        .find(|entry| same(entry.local, remote) && same(entry.remote, local))?;
    Some(entry.inode != 0)
}

/// Whether the address is one of this host's. Only such an address can be bound; a datagram socket
/// takes nobody's TCP port.
fn is_of_this_host(mut address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.set_port(0);
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn listener(local: &str, v6_only: bool) -> Entry {
        let (local, remote) = (local.parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        Entry {
            local,
            remote,
            state: State::Listen,
            queue: 0,
            inode: 1,
            v6_only,
        }
    }

    #[test]
    fn the_most_specific_listener_serves() {
        let rank =
            |local: &str, address: &str| serves(&listener(local, false), address.parse().unwrap());
        assert_eq!(rank("127.0.0.1:5", "127.0.0.1:5"), Some(0));
        assert_eq!(rank("[::1]:5", "[::1]:5"), Some(0));
        assert_eq!(rank("127.0.0.1:5", "[::ffff:127.0.0.1]:5"), Some(0));
        assert_eq!(rank("[::ffff:127.0.0.1]:5", "127.0.0.1:5"), Some(1));
        assert_eq!(rank("0.0.0.0:5", "127.0.0.1:5"), Some(2));
        assert_eq!(rank("[::]:5", "127.0.0.1:5"), Some(3));
        assert_eq!(rank("[::]:5", "[::1]:5"), Some(3));
        for (local, address) in [
            ("127.0.0.1:5", "127.0.0.1:6"),
            ("127.0.0.2:5", "127.0.0.1:5"),
            ("0.0.0.0:5", "[::1]:5"),
        ] {
            assert_eq!(rank(local, address), None, "{local} {address}");
        }
        assert_eq!(
            serves(&listener("[::]:5", true), "127.0.0.1:5".parse().unwrap()),
            None
        );
        let both = [listener("[::]:5", false), listener("127.0.0.1:5", false)];
        assert_eq!(serving(&both, "127.0.0.1:5".parse().unwrap()), [both[1]]);
        assert_eq!(serving(&both, "127.0.0.2:5".parse().unwrap()), [both[0]]);
    }

    /// Netlink and procfs agree in every state that a connection goes through.
    #[test]
    fn the_real_tables_tell_absent_free_queued_attached_and_gone() {
        for bound in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let mut address = listener.local_addr().unwrap();
            let loopback = if address.is_ipv4() {
                "127.0.0.1"
            } else {
                "::1"
            };
            address.set_ip(loopback.parse().unwrap());
            let seen = || {
                let by_netlink = diag::entries(address.port(), Wanted::Connections).unwrap();
                let by_procfs = entries_of_procfs(address.port()).unwrap();
                let seen = [by_netlink, by_procfs].map(|entries| {
                    match look_in(&entries, address, Some(std::process::id())) {
                        Look::Present(seen) => (seen.attached, seen.leaving, seen.queued),
                        other => panic!("{bound}: {other:?}"),
                    }
                });
                assert_eq!(seen[0], seen[1], "{bound}");
                seen[0]
            };
            assert_eq!(seen(), (0, 0, 0));
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(seen(), (0, 0, 1));
            #[cfg(feature = "tokio")]
            assert_eq!(
                is_accepted(client.local_addr().unwrap(), address),
                Some(false)
            );
            let accepted = listener.accept().unwrap();
            assert_eq!(seen(), (1, 0, 0));
            #[cfg(feature = "tokio")]
            assert_eq!(
                is_accepted(client.local_addr().unwrap(), address),
                Some(true)
            );
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(seen(), (0, 1, 0));
            drop((client, accepted, listener));
            assert_eq!(look(address, None), Look::Absent);
        }
    }

    #[test]
    fn a_v6_wildcard_serves_v4_as_well_unless_it_is_v6_only() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = look(
            SocketAddr::from(([127, 0, 0, 1], port)),
            Some(std::process::id()),
        );
        assert_eq!(seen, Look::Present(Listener::default()));
    }

    #[test]
    fn another_hosts_address_cannot_be_seen() {
        // TEST-NET-1: nobody has it.
        assert_eq!(
            look("192.0.2.1:9".parse().unwrap(), None),
            Look::Unknown(Blind::NotThisHost)
        );
    }
}
