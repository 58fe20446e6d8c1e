//! The kernel's sockets by `NETLINK_SOCK_DIAG`, as `ss` asks for them: one TCP port's in 0.05 ms
//! (listeners) to 1 ms (all), every unix socket in 0.1 ms.
//!
//! `/proc/net/tcp` says nearly the same and takes 5 to 40 ms, since the kernel writes a line for
//! every socket and walks its hash slowly for that (262144 buckets where this was measured).
//! Besides, only this tells a v6-only listener. `linux/sock_diag.h`, `linux/inet_diag.h` and
//! `linux/unix_diag.h` give the messages' layout; integers in them are the host's, ports and
//! addresses the network's.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const SOCK_STREAM: u8 = 1;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const INET_MESSAGE: usize = 72;
/// `struct unix_diag_msg`.
const UNIX_MESSAGE: usize = 16;
const INET_DIAG_SKV6ONLY: u16 = 11;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_RQLEN: u16 = 4;
const UDIAG_SHOW_NAME: u32 = 0x01;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;

/// One TCP socket of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TcpSocket {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    /// Of a listener: how many connections wait to be accepted. It counts those that were reset,
    /// too, which have no entry.
    pub(super) queue: u32,
    /// The user whose it is.
    pub(super) user: u32,
    /// 0 of a connection that was not accepted.
    pub(super) inode: u64,
    pub(super) v6_only: bool,
}

/// One unix stream socket that is bound to a path, or was accepted by one that is. Those that wait
/// to be accepted are not listed, but counted by their listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnixSocket {
    pub(super) path: PathBuf,
    pub(super) listens: bool,
    /// Of a listener: how many connections wait to be accepted.
    pub(super) queue: u32,
    pub(super) inode: u64,
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
    Listeners,
    /// Listeners and what is connected to them.
    Connections,
}

/// The TCP sockets of both families whose local port is `port`.
///
/// # Errors
/// When the kernel refuses: without the module, or behind a filter of system calls.
pub(super) fn tcp_sockets(port: u16, wanted: Wanted) -> io::Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump(&inet_request(family, port, wanted), &mut |body| {
            sockets.extend(read_tcp(body)?);
            Some(())
        })?;
    }
    sockets.retain(|socket| socket.local.port() == port);
    Ok(sockets)
}

/// Every unix stream socket with a path.
///
/// # Errors
/// When the kernel refuses: without the module, or behind a filter of system calls.
pub(super) fn unix_sockets() -> io::Result<Vec<UnixSocket>> {
    let states = 1 << TCP_LISTEN | 1 << TCP_ESTABLISHED;
    let request = unix_request(states, 0, UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN);
    let mut sockets = Vec::new();
    dump(&request, &mut |body| {
        sockets.extend(read_unix(body)?);
        Some(())
    })?;
    Ok(sockets)
}

/// How much memory the kernel holds for bytes that the other end of a connected unix socket has not
/// read: zero if it has read them all. The `ioctl` that tells it cannot be had without `unsafe`.
///
/// # Errors
/// When the kernel refuses: without the module, or behind a filter of system calls.
pub fn unread_by_peer(socket: &impl AsFd) -> io::Result<u32> {
    // `ino_t` is wider than the field of `struct unix_diag_req`, and so than any socket's inode.
    let inode = rustix::fs::fstat(socket)?.st_ino as u32;
    let kernel = ask(
        NLM_F_REQUEST,
        &unix_request(u32::MAX, inode, UDIAG_SHOW_RQLEN),
    )?;
    let mut written = None;
    receive(&kernel, &mut vec![0; 4096], &mut |body| {
        let lengths = attribute(body.get(UNIX_MESSAGE..)?, UNIX_DIAG_RQLEN)?;
        written = Some(read_u32(lengths, 4)?);
        Some(())
    })?;
    written.ok_or_else(malformed)
}

/// Sends one request and reads every message of its answer; `read` says `None` to what is
/// malformed.
fn dump(request: &[u8], read: &mut dyn FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
    let socket = ask(NLM_F_REQUEST | NLM_F_DUMP, request)?;
    let mut buffer = vec![0; 32 * 1024];
    while !receive(&socket, &mut buffer, read)? {}
    Ok(())
}

/// Receives one datagram; true when it was the last.
fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
    read: &mut dyn FnMut(&[u8]) -> Option<()>,
) -> io::Result<bool> {
    let (_, count) = recv(socket, &mut *buffer, RecvFlags::empty())?;
    read_datagram(&buffer[..count.min(buffer.len())], read)
}

/// A socket on which the answer to this request comes.
fn ask(flags: u16, request: &[u8]) -> io::Result<OwnedFd> {
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
    let mut message = ((HEADER + request.len()) as u32).to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(request);
    send(&socket, &message, SendFlags::empty())?;
    Ok(socket)
}

/// `struct unix_diag_req`: all sockets in these states, or the one of an inode.
fn unix_request(states: u32, inode: u32, show: u32) -> Vec<u8> {
    let mut request = vec![AF_UNIX, 0, 0, 0];
    for field in [states, inode, show] {
        request.extend(field.to_ne_bytes());
    }
    // No cookie.
    request.extend([0xff; 8]);
    request
}

/// `struct inet_diag_req_v2`.
fn inet_request(family: u8, port: u16, wanted: Wanted) -> Vec<u8> {
    let states: u32 = match wanted {
        Wanted::Listeners => 1 << TCP_LISTEN,
        Wanted::Connections => 1 << TCP_LISTEN | 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT,
    };
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(states.to_ne_bytes());
    // The socket's id: its port; any other port, addresses, interface; and no cookie.
    request.extend(port.to_be_bytes());
    request.extend([0; 2 + 16 + 16 + 4]);
    request.extend([0xff; 8]);
    request
}

/// Reads one datagram's messages; true when it was the last.
fn read_datagram(
    mut datagram: &[u8],
    read: &mut dyn FnMut(&[u8]) -> Option<()>,
) -> io::Result<bool> {
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
            SOCK_DIAG_BY_FAMILY => read(body).ok_or_else(malformed)?,
            _ => {}
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer is malformed",
    )
}

/// One `struct inet_diag_msg` and its attributes. `Some(None)` is a socket in a state that does not
/// matter.
fn read_tcp(body: &[u8]) -> Option<Option<TcpSocket>> {
    let message = body.get(..INET_MESSAGE)?;
    let state = match message[1] {
        TCP_ESTABLISHED => State::Established,
        TCP_CLOSE_WAIT => State::CloseWait,
        TCP_LISTEN => State::Listen,
        _ => return Some(None),
    };
    let v6_only = attribute(&body[INET_MESSAGE..], INET_DIAG_SKV6ONLY);
    Some(Some(TcpSocket {
        local: read_address(message, 4, 8)?,
        remote: read_address(message, 6, 24)?,
        state,
        queue: read_u32(message, 56)?,
        user: read_u32(message, 64)?,
        inode: read_u32(message, 68)?.into(),
        v6_only: v6_only.is_some_and(|value| value.first().is_some_and(|flag| *flag != 0)),
    }))
}

fn read_address(message: &[u8], port: usize, address: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([message[port], message[port + 1]]);
    let bytes: [u8; 16] = message[address..address + 16].try_into().ok()?;
    let ip = if message[0] == AF_INET {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    Some(SocketAddr::new(ip, port))
}

/// One `struct unix_diag_msg` and its attributes. `Some(None)` is no stream socket, or has no path.
fn read_unix(body: &[u8]) -> Option<Option<UnixSocket>> {
    let message = body.get(..UNIX_MESSAGE)?;
    let attributes = &body[UNIX_MESSAGE..];
    let name = attribute(attributes, UNIX_DIAG_NAME).unwrap_or_default();
    // A name in the abstract namespace begins with NUL; a path may end with one.
    let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if message[1] != SOCK_STREAM || path.is_empty() {
        return Some(None);
    }
    let queue = attribute(attributes, UNIX_DIAG_RQLEN).and_then(|lengths| read_u32(lengths, 0));
    Some(Some(UnixSocket {
        path: PathBuf::from(OsStr::from_bytes(path)),
        listens: message[2] == TCP_LISTEN,
        queue: queue.unwrap_or(0),
        inode: read_u32(message, 4)?.into(),
    }))
}

/// The value of the first attribute of this kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(length), Some(kind)) = (read_u16(attributes, 0), read_u16(attributes, 2)) {
        let length = usize::from(length);
        if kind == wanted {
            return attributes.get(4..length);
        }
        let next = length.max(4).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    None
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_tells_what_is_unread() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        ours.write_all(b"x").unwrap();
        assert!(unread_by_peer(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        drop(theirs);
        // Whatever it says then, it says it at once.
        let _ = unread_by_peer(&ours);
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend_from_slice(body);
        message
    }

    fn read_all(datagram: &[u8]) -> io::Result<(bool, Vec<TcpSocket>)> {
        let mut sockets = Vec::new();
        let last = read_datagram(datagram, &mut |body| {
            sockets.extend(read_tcp(body)?);
            Some(())
        })?;
        Ok((last, sockets))
    }

    #[test]
    fn answers_that_end_refuse_or_are_cut() {
        assert!(read_all(&message(NLMSG_DONE, &[0; 4])).unwrap().0);
        let refused = read_all(&message(NLMSG_ERROR, &(-2_i32).to_ne_bytes()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!read_all(&message(99, b"unknown!")).unwrap().0);
        let whole = message(SOCK_DIAG_BY_FAMILY, &[0; INET_MESSAGE]);
        // A socket in a state that does not matter.
        assert_eq!(read_all(&whole).unwrap(), (false, vec![]));
        for cut in 0..whole.len() {
            let error = read_all(&whole[..cut]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "cut at {cut}");
        }
        // Lengths that lie.
        for length in [0_u32, 15, u32::MAX] {
            let lying = [&length.to_ne_bytes()[..], &[0; 12]].concat();
            assert!(read_all(&lying).is_err(), "{length}");
        }
    }

    fn encode_attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn attributes_are_searched_by_kind() {
        let both = [encode_attribute(8, &[7]), encode_attribute(11, &[1])].concat();
        assert_eq!(attribute(&both, 11), Some(&[1][..]));
        assert_eq!(attribute(&both, 9), None);
        // A length of zero does not hold it up.
        assert_eq!(attribute(&[0; 64], 9), None);
        assert_eq!(attribute(&[0; 64], 0), None);
    }

    #[test]
    fn a_unix_socket_has_a_path_of_any_bytes() {
        let socket = |kind: u8, name: &[u8]| {
            let mut body = vec![AF_UNIX, kind, TCP_LISTEN, 0, 42, 0, 0, 0];
            body.extend([0; 8]);
            body.extend(encode_attribute(UNIX_DIAG_NAME, name));
            body.extend(encode_attribute(UNIX_DIAG_RQLEN, &[3, 0, 0, 0, 5, 0, 0, 0]));
            read_unix(&body).unwrap()
        };
        let read = socket(SOCK_STREAM, b"/tmp/a  b\xff\n.sock\0").unwrap();
        assert_eq!(read.path.as_os_str().as_bytes(), b"/tmp/a  b\xff\n.sock");
        assert_eq!((read.listens, read.queue, read.inode), (true, 3, 42));
        assert_eq!(socket(SOCK_STREAM, b"\0abstract"), None);
        assert_eq!(socket(2, b"/tmp/datagram.sock"), None);
        assert_eq!(read_unix(&[0; UNIX_MESSAGE - 1]), None);
    }
}
