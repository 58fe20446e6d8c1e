//! The kernel's TCP sockets by `NETLINK_SOCK_DIAG`, as `ss` asks for them: one port's, in 0.05 ms
//! (listeners) to 1 ms (all).
//!
//! `/proc/net/tcp` says nearly the same and takes 5 to 40 ms, since the kernel writes a line for
//! every socket and walks its hash slowly for that (262144 buckets where this was measured).
//! Besides, only this tells a v6-only listener. `linux/sock_diag.h` and `linux/inet_diag.h` give
//! the messages' layout; integers in them are the host's, ports and addresses the network's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};

use super::tcp::{Entry, State, Wanted};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
const INET_DIAG_SKV6ONLY: u16 = 11;
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;

/// The sockets of both families whose local port is `port`.
///
/// # Errors
/// When the kernel refuses: without the module, or behind a filter of system calls.
pub(super) fn entries(port: u16, wanted: Wanted) -> io::Result<Vec<Entry>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    // The kernel answers at once; a kernel that is only imitated might not.
    sockopt::set_socket_timeout(
        &socket,
        sockopt::Timeout::Recv,
        Some(Duration::from_secs(1)),
    )?;
    let mut entries = Vec::new();
    for family in [AF_INET, AF_INET6] {
        send(&socket, &request(family, port, wanted), SendFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (_, count) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            if read_datagram(&buffer[..count.min(buffer.len())], &mut entries)? {
                break;
            }
        }
    }
    entries.retain(|entry| entry.local.port() == port);
    Ok(entries)
}

fn request(family: u8, port: u16, wanted: Wanted) -> Vec<u8> {
    let states: u32 = match wanted {
        #[cfg(feature = "tokio")]
        Wanted::Listeners => 1 << TCP_LISTEN,
        Wanted::Connections => 1 << TCP_LISTEN | 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT,
    };
    let length = (HEADER + REQUEST) as u32;
    let mut message = Vec::with_capacity(HEADER + REQUEST);
    message.extend(length.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, IPPROTO_TCP, 0, 0]);
    message.extend(states.to_ne_bytes());
    // The socket's id: its port; any other port, addresses, interface; and no cookie.
    message.extend(port.to_be_bytes());
    message.extend([0; 2 + 16 + 16 + 4]);
    message.extend([0xff; 8]);
    message
}

/// Reads one datagram's messages; true when it was the last.
fn read_datagram(mut datagram: &[u8], entries: &mut Vec<Entry>) -> io::Result<bool> {
    let malformed = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's answer is malformed",
        )
    };
    if datagram.is_empty() {
        return Err(malformed());
    }
    while !datagram.is_empty() {
        let length = read_u32(datagram, 0).ok_or_else(malformed)? as usize;
        let kind = read_u16(datagram, 4).ok_or_else(malformed)?;
        let body = datagram.get(HEADER..length).ok_or_else(malformed)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = read_u32(body, 0).ok_or_else(malformed)? as i32;
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => entries.extend(read_socket(body).ok_or_else(malformed)?),
            _ => {}
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

/// One `struct inet_diag_msg` and its attributes. `Some(None)` is a socket in a state that does not
/// matter.
fn read_socket(body: &[u8]) -> Option<Option<Entry>> {
    let message = body.get(..MESSAGE)?;
    let state = match message[1] {
        TCP_ESTABLISHED => State::Established,
        TCP_CLOSE_WAIT => State::CloseWait,
        TCP_LISTEN => State::Listen,
        _ => return Some(None),
    };
    let address = |port: usize, address: usize| {
        let port = u16::from_be_bytes([message[port], message[port + 1]]);
        let bytes: [u8; 16] = message[address..address + 16].try_into().ok()?;
        let ip = if message[0] == AF_INET {
            IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes))
        };
        Some(SocketAddr::new(ip, port))
    };
    Some(Some(Entry {
        local: address(4, 8)?,
        remote: address(6, 24)?,
        state,
        queue: read_u32(message, 56)?,
        inode: read_u32(message, 68)?.into(),
        v6_only: is_v6_only(&body[MESSAGE..]),
    }))
}

fn is_v6_only(mut attributes: &[u8]) -> bool {
    while let (Some(length), Some(kind)) = (read_u16(attributes, 0), read_u16(attributes, 2)) {
        if kind == INET_DIAG_SKV6ONLY {
            return attributes.get(4).is_some_and(|value| *value != 0);
        }
        let next = usize::from(length).max(4).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    false
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend_from_slice(body);
        message
    }

    #[test]
    fn answers_that_end_refuse_or_are_cut() {
        let mut entries = Vec::new();
        assert!(read_datagram(&message(NLMSG_DONE, &[0; 4]), &mut entries).unwrap());
        let refused = read_datagram(&message(NLMSG_ERROR, &(-2_i32).to_ne_bytes()), &mut entries);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!read_datagram(&message(99, b"unknown!"), &mut entries).unwrap());
        let whole = message(SOCK_DIAG_BY_FAMILY, &[0; MESSAGE]);
        assert!(!read_datagram(&whole, &mut entries).unwrap());
        assert!(
            entries.is_empty(),
            "a socket in a state that does not matter"
        );
        for cut in 0..whole.len() {
            let result = read_datagram(&whole[..cut], &mut entries);
            assert_eq!(
                result.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "cut at {cut}"
            );
        }
        // Lengths that lie.
        for length in [0_u32, 15, u32::MAX] {
            let lying = [&length.to_ne_bytes()[..], &[0; 12]].concat();
            assert!(read_datagram(&lying, &mut entries).is_err(), "{length}");
        }
    }

    #[test]
    fn attributes_are_searched_for_v6_only() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let other = attribute(8, &[7]);
        assert!(is_v6_only(
            &[other.clone(), attribute(INET_DIAG_SKV6ONLY, &[1])].concat()
        ));
        assert!(!is_v6_only(&attribute(INET_DIAG_SKV6ONLY, &[0])));
        assert!(!is_v6_only(&other));
        // A length of zero does not hold it up.
        assert!(!is_v6_only(&[0; 64]));
    }
}
