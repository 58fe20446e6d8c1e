//! The kernel's TCP tables: `/proc/net/tcp` and `/proc/net/tcp6`, read by the crate procfs.
//!
//! A connection that the listener has not accepted has no inode yet: that is how the queue is told from the attached.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use procfs::net::{TcpNetEntry, TcpState};

use super::owner::{self, Holds};
use super::{Listener, Look};
use crate::reachability::Blind;

pub(super) fn look(address: SocketAddr, owner: Option<u32>) -> Look {
    match read_tables() {
        Ok(table) => look_in(&table, address, owner),
        Err(blind) => Look::Unknown(blind),
    }
}

fn look_in(table: &[TcpNetEntry], address: SocketAddr, owner: Option<u32>) -> Look {
    let listeners = listeners(table, address);
    if listeners.is_empty() {
        return if is_of_this_host(address) {
            Look::Absent
        } else {
            Look::Unknown(Blind::NotThisHost)
        };
    }
    if !is_of_this_host(address) {
        // A wildcard listener of ours has the port, but the address is another host's.
        return Look::Unknown(Blind::NotThisHost);
    }
    let inodes: Vec<u64> = listeners.iter().map(|entry| entry.inode).collect();
    match owner.map(|pid| owner::holds(pid, &inodes)) {
        None | Some(Holds::Yes) => Look::Present(clients(table, address, &listeners)),
        Some(Holds::No) => Look::OtherProcess {
            pid: owner::find(&inodes),
        },
        Some(Holds::Hidden) => Look::Unknown(Blind::OwnerHidden),
    }
}

/// The sockets that would get a connection to `address`: those of the most specific address among the listeners.
fn listeners(table: &[TcpNetEntry], address: SocketAddr) -> Vec<&TcpNetEntry> {
    let rank = |entry: &&TcpNetEntry| serves(entry.local_address, address).unwrap_or(u8::MAX);
    let listening = || table.iter().filter(|entry| entry.state == TcpState::Listen);
    let best = listening().map(|entry| rank(&entry)).min().unwrap_or(u8::MAX);
    listening()
        .filter(|entry| best != u8::MAX && rank(entry) == best)
        .collect()
}

/// Whether a socket bound to `local` gets what is sent to `address`, and how specific it is: 0 is its very address.
fn serves(local: SocketAddr, address: SocketAddr) -> Option<u8> {
    if local.port() != address.port() {
        return None;
    }
    let wanted = address.ip().to_canonical();
    match local.ip() {
        ip if ip.to_canonical() == wanted => Some(0),
        IpAddr::V4(ip) if ip.is_unspecified() && wanted.is_ipv4() => Some(1),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(2),
        _ => None,
    }
}

fn clients(table: &[TcpNetEntry], address: SocketAddr, listeners: &[&TcpNetEntry]) -> Listener {
    let mut seen = Listener::default();
    let wanted = address.ip().to_canonical();
    // A connection to a wildcard listener bears the address that its client connected to, which may be another of ours.
    let wildcard = listeners
        .iter()
        .any(|listener| listener.local_address.ip().is_unspecified());
    let accepted = table.iter().filter(|entry| {
        entry.inode != 0
            && entry.local_address.port() == address.port()
            && (wildcard || entry.local_address.ip().to_canonical() == wanted)
    });
    for entry in accepted {
        match entry.state {
            TcpState::Established => seen.attached += 1,
            TcpState::CloseWait => seen.leaving += 1,
            _ => {}
        }
    }
    // Of a listening socket, the kernel shows the length of its queue here. It counts connections that were reset, too,
    // which have no line of their own.
    seen.queued = listeners.iter().map(|entry| entry.rx_queue as usize).sum();
    seen
}

#[cfg(feature = "tokio")]
pub(super) fn is_accepted(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    let table = read_tables().ok()?;
    let same = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
    };
    // The listener's end of our connection: its local address is our remote one.
    let entry = table
        .iter()
        .find(|e| same(e.local_address, remote) && same(e.remote_address, local))?;
    Some(entry.inode != 0)
}

fn read_tables() -> Result<Vec<TcpNetEntry>, Blind> {
    let unreadable = |error: procfs::ProcError| Blind::Unreadable(error.to_string());
    let mut table = procfs::net::tcp().map_err(unreadable)?;
    match procfs::net::tcp6() {
        Ok(v6) => table.extend(v6),
        // A kernel without IPv6 has no such table.
        Err(procfs::ProcError::NotFound(_)) => {}
        Err(error) => return Err(unreadable(error)),
    }
    Ok(table)
}

/// Whether the address is one of this host's. Only such an address can be bound; a datagram socket takes nobody's TCP port.
fn is_of_this_host(mut address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.set_port(0);
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind(address).is_ok()
}
