//! Who listens on a TCP address, and who is connected to it.
//!
//! A connection that the listener has not accepted has no inode yet: that distinguishes the queued
//! from the attached.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::netlink::{State, TcpSocket, Wanted, tcp_sockets};
use super::{Caller, ListenState, Listener, not_the_owners, owner};
use crate::reachability::UnknownReason;

pub(super) fn inspect(address: SocketAddr, owner: Option<u32>, wanted: Wanted) -> ListenState {
    let sockets = match tcp_sockets(address.port(), wanted) {
        Ok(sockets) => sockets,
        Err(error) => return ListenState::Unknown(UnknownReason::Unreadable(error.to_string())),
    };
    if !is_of_this_host(address) {
        // Perhaps a wildcard listener of ours has the port, but the address is another host's.
        return ListenState::Unknown(UnknownReason::NotThisHost);
    }
    let listeners = serving(&sockets, address);
    if listeners.is_empty() {
        return ListenState::Absent;
    }
    let inodes: Vec<u64> = listeners.iter().map(|entry| entry.inode).collect();
    not_the_owners(owner, &inodes)
        .unwrap_or_else(|| ListenState::Present(clients(&sockets, address, &listeners)))
}

/// The listeners that get a connection to `address`: those of the most specific address.
fn serving(entries: &[TcpSocket], address: SocketAddr) -> Vec<TcpSocket> {
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
fn serves(listener: &TcpSocket, address: SocketAddr) -> Option<u8> {
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

fn clients(entries: &[TcpSocket], address: SocketAddr, listeners: &[TcpSocket]) -> Listener {
    let wanted = address.ip().to_canonical();
    // A connection to a wildcard listener bears the address that its client connected to, which may
    // be another of ours.
    let wildcard = listeners
        .iter()
        .any(|listener| listener.local.ip().is_unspecified());
    let accepted = |state: State| {
        let to_it = |entry: &&TcpSocket| wildcard || entry.local.ip().to_canonical() == wanted;
        let in_state = |entry: &&TcpSocket| entry.state == state && entry.inode != 0;
        entries.iter().filter(to_it).filter(in_state).count()
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
pub(super) fn is_accepted(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    let ours = connection(remote, local).ok()??;
    Some(ours.inode != 0)
}

/// Who has the end at `from` of the connection to `to`.
pub(super) fn caller(from: SocketAddr, to: SocketAddr) -> io::Result<Option<Caller>> {
    let theirs = connection(from, to)?;
    Ok(theirs.map(|socket| Caller {
        user: socket.user,
        pid: owner::find(&[socket.inode]),
    }))
}

/// The end at `local` of a connection to `remote`.
fn connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<TcpSocket>> {
    let sockets = tcp_sockets(local.port(), Wanted::Connections)?;
    let is_it = |socket: &TcpSocket| is_same(socket.local, local) && is_same(socket.remote, remote);
    Ok(sockets.into_iter().find(is_it))
}

fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
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

    fn listener(local: &str, v6_only: bool) -> TcpSocket {
        let (local, remote) = (local.parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        TcpSocket {
            local,
            remote,
            state: State::Listen,
            queue: 0,
            user: 0,
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

    fn counts(address: SocketAddr) -> (usize, usize, usize) {
        match inspect(address, Some(std::process::id()), Wanted::Connections) {
            ListenState::Present(seen) => (seen.attached, seen.leaving, seen.queued),
            other => panic!("{address}: {other:?}"),
        }
    }

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
            assert_eq!(counts(address), (0, 0, 0));
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(counts(address), (0, 0, 1));
            let local = client.local_addr().unwrap();
            assert_eq!(is_accepted(local, address), Some(false));
            let accepted = listener.accept().unwrap();
            assert_eq!(counts(address), (1, 0, 0));
            assert_eq!(is_accepted(local, address), Some(true));
            let of_ours = Caller {
                user: rustix::process::getuid().as_raw(),
                pid: Some(std::process::id()),
            };
            assert_eq!(caller(local, address).unwrap(), Some(of_ours));
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(counts(address), (0, 1, 0));
            drop((client, accepted, listener));
            let state = inspect(address, None, Wanted::Connections);
            assert_eq!(state, ListenState::Absent);
            assert_eq!(caller(local, address).unwrap(), None);
        }
    }

    #[test]
    fn a_v6_wildcard_serves_v4_as_well_unless_it_is_v6_only() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(counts(SocketAddr::from(([127, 0, 0, 1], port))), (0, 0, 0));
    }

    #[test]
    fn another_hosts_address_cannot_be_seen() {
        // TEST-NET-1: nobody has it.
        assert_eq!(
            inspect("192.0.2.1:9".parse().unwrap(), None, Wanted::Listeners),
            ListenState::Unknown(UnknownReason::NotThisHost)
        );
    }
}
