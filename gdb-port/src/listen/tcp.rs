//! The kernel's TCP tables: `/proc/net/tcp` and `/proc/net/tcp6`, read by the crate procfs.
//!
//! A table's lines begin with the listeners. What follows costs the kernel a walk through its whole hash of connections,
//! 5 ms for the 262144 buckets of a middling machine, so it is read only of the table that the listener is in, and only
//! when somebody listens. A connection that the listener has not accepted has no inode yet: that is how the queue is told
//! from the attached.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState};
use procfs::{FromBufReadSI, current_system_info};

use super::owner::{self, Holds};
use super::{Listener, Look};
use crate::reachability::Blind;

/// One of the two tables. A v4 connection to a v6 wildcard listener is in the v6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    V4,
    V6,
}

const TABLES: [Table; 2] = [Table::V4, Table::V6];

impl Table {
    fn path(self) -> &'static str {
        match self {
            Self::V4 => "/proc/net/tcp",
            Self::V6 => "/proc/net/tcp6",
        }
    }

    fn open(self) -> Result<Option<File>, Blind> {
        match File::open(self.path()) {
            Ok(file) => Ok(Some(file)),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self == Self::V6 => Ok(None),
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    fn unreadable(self, error: &dyn std::fmt::Display) -> Blind {
        Blind::Unreadable(format!("{}: {error}", self.path()))
    }

    /// Every line.
    fn entries(self) -> Result<Vec<TcpNetEntry>, Blind> {
        let Some(file) = self.open()? else {
            return Ok(Vec::new());
        };
        self.parse(BufReader::new(file))
    }

    /// The listeners alone. Read in pieces of a line or two: the kernel goes no further than it is asked.
    fn listeners(self) -> Result<Vec<TcpNetEntry>, Blind> {
        let Some(file) = self.open()? else {
            return Ok(Vec::new());
        };
        let lines =
            listening_lines(BufReader::with_capacity(256, file)).map_err(|error| self.unreadable(&error))?;
        self.parse(lines.as_slice())
    }

    fn parse(self, lines: impl BufRead) -> Result<Vec<TcpNetEntry>, Blind> {
        let parsed = TcpNetEntries::from_buf_read(lines, current_system_info());
        parsed
            .map(|entries| entries.0)
            .map_err(|error| self.unreadable(&error))
    }
}

/// The header and the lines up to the first that is no listener's.
fn listening_lines(mut table: impl BufRead) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    table.read_until(b'\n', &mut lines)?;
    loop {
        let end = lines.len();
        table.read_until(b'\n', &mut lines)?;
        let state = lines[end..]
            .split(|byte| *byte == b' ')
            .filter(|column| !column.is_empty())
            .nth(3);
        if state != Some(b"0A") {
            lines.truncate(end);
            return Ok(lines);
        }
    }
}

/// The listeners that get a connection to an address, and the table they are in.
struct Serving {
    table: Table,
    listeners: Vec<TcpNetEntry>,
}

pub(super) fn look(address: SocketAddr, owner: Option<u32>) -> Look {
    let serving = match listening(address, owner) {
        Ok(serving) => serving,
        Err(look) => return look,
    };
    match serving.table.entries() {
        Ok(table) => Look::Present(clients(&table, address, &serving.listeners)),
        Err(blind) => Look::Unknown(blind),
    }
}

/// As [`look`], without the clients: cheap enough to be asked again and again.
#[cfg(feature = "tokio")]
pub(super) fn look_for_listener(address: SocketAddr, owner: Option<u32>) -> Look {
    listening(address, owner).map_or_else(|look| look, |_| Look::Present(Listener::default()))
}

fn listening(address: SocketAddr, owner: Option<u32>) -> Result<Serving, Look> {
    let serving = serving(address).map_err(Look::Unknown)?;
    if !is_of_this_host(address) {
        // Perhaps a wildcard listener of ours has the port, but the address is another host's.
        return Err(Look::Unknown(Blind::NotThisHost));
    }
    let Some(serving) = serving else {
        return Err(Look::Absent);
    };
    let inodes: Vec<u64> = serving.listeners.iter().map(|entry| entry.inode).collect();
    match owner.map(|pid| owner::holds(pid, &inodes)) {
        None | Some(Holds::Yes) => Ok(serving),
        Some(Holds::No) => Err(Look::OtherProcess {
            pid: owner::find(&inodes),
        }),
        Some(Holds::Hidden) => Err(Look::Unknown(Blind::OwnerHidden)),
    }
}

/// The listeners of the most specific address that serves `address`.
fn serving(address: SocketAddr) -> Result<Option<Serving>, Blind> {
    let mut best: Option<(u8, Serving)> = None;
    for table in TABLES {
        for entry in table.listeners()? {
            let Some(rank) = serves(entry.local_address, address) else {
                continue;
            };
            match &mut best {
                Some((least, serving)) if *least == rank => serving.listeners.push(entry),
                Some((least, _)) if *least < rank => {}
                _ => {
                    best = Some((
                        rank,
                        Serving {
                            table,
                            listeners: vec![entry],
                        },
                    ))
                }
            }
        }
    }
    Ok(best.map(|(_, serving)| serving))
}

/// Whether a socket bound to `local` gets what is sent to `address`, and how specific it is: 0 is its very address.
fn serves(local: SocketAddr, address: SocketAddr) -> Option<u8> {
    if local.port() != address.port() {
        return None;
    }
    let wanted = address.ip().to_canonical();
    match local.ip() {
        IpAddr::V4(ip) if wanted == ip => Some(0),
        IpAddr::V6(ip) if wanted == ip => Some(0),
        // `::ffff:127.0.0.1`: a v6 socket that serves one v4 address.
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some_and(|ip| wanted == ip) => Some(1),
        IpAddr::V4(ip) if ip.is_unspecified() && wanted.is_ipv4() => Some(2),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(3),
        _ => None,
    }
}

fn clients(table: &[TcpNetEntry], address: SocketAddr, listeners: &[TcpNetEntry]) -> Listener {
    let mut seen = Listener::default();
    let wanted = address.ip().to_canonical();
    // A connection to a wildcard listener bears the address that its client connected to, which may be another of ours.
    let wildcard = listeners
        .iter()
        .any(|listener| listener.local_address.ip().is_unspecified());
    for entry in table
        .iter()
        .filter(|entry| entry.local_address.port() == address.port())
    {
        let to_it = wildcard || entry.local_address.ip().to_canonical() == wanted;
        match entry.state {
            TcpState::Established if to_it && entry.inode != 0 => seen.attached += 1,
            TcpState::CloseWait if to_it && entry.inode != 0 => seen.leaving += 1,
            // Of a listening socket, the kernel shows the length of its queue here. It counts connections that were reset,
            // too, which have no line of their own.
            TcpState::Listen if listeners.iter().any(|listener| listener.inode == entry.inode) => {
                seen.queued += entry.rx_queue as usize;
            }
            _ => {}
        }
    }
    seen
}

/// Whether the connection from `local` to `remote` has been accepted, by the listener's end of it.
#[cfg(feature = "tokio")]
pub(super) fn is_accepted(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    let same = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
    };
    let tables = if remote.ip().to_canonical().is_ipv4() {
        &TABLES[..]
    } else {
        &TABLES[1..]
    };
    tables.iter().find_map(|table| {
        let entries = table.entries().ok()?;
        let entry = entries
            .iter()
            .find(|e| same(e.local_address, remote) && same(e.remote_address, local))?;
        Some(entry.inode != 0)
    })
}

/// Whether the address is one of this host's. Only such an address can be bound; a datagram socket takes nobody's TCP port.
fn is_of_this_host(mut address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.set_port(0);
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// In order: most specific first; `None` comes last.
    #[test]
    fn the_most_specific_listener_serves() {
        let rank = |local: &str, address: &str| serves(local.parse().unwrap(), address.parse().unwrap());
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
    }

    #[test]
    fn only_the_listeners_are_read() {
        let line = |state: &str| {
            format!("   0: 0100007F:A2DB 00000000:0000 {state} 00000000:00000000 00:00000000\n")
        };
        let table = format!(
            "  sl  local_address\n{}{}{}{}",
            line("0A"),
            line("0A"),
            line("01"),
            line("0A")
        );
        let lines = listening_lines(table.as_bytes()).unwrap();
        assert_eq!(
            lines,
            format!("  sl  local_address\n{}{}", line("0A"), line("0A")).as_bytes()
        );
        assert_eq!(listening_lines(&b""[..]).unwrap(), b"");
        assert_eq!(listening_lines(&b"header\n"[..]).unwrap(), b"header\n");
    }

    #[test]
    fn the_real_tables_tell_absent_free_queued_attached_and_gone() {
        for bound in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let mut address = listener.local_addr().unwrap();
            let loopback = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
            address.set_ip(loopback.parse().unwrap());
            let seen = || match look(address, Some(std::process::id())) {
                Look::Present(seen) => (seen.attached, seen.leaving, seen.queued),
                other => panic!("{bound}: {other:?}"),
            };
            assert_eq!(seen(), (0, 0, 0));
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(seen(), (0, 0, 1));
            #[cfg(feature = "tokio")]
            assert_eq!(is_accepted(client.local_addr().unwrap(), address), Some(false));
            let accepted = listener.accept().unwrap();
            assert_eq!(seen(), (1, 0, 0));
            #[cfg(feature = "tokio")]
            assert_eq!(is_accepted(client.local_addr().unwrap(), address), Some(true));
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(seen(), (0, 1, 0));
            drop((client, accepted, listener));
            assert_eq!(look(address, None), Look::Absent);
        }
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
