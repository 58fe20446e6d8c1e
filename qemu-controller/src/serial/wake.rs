//! Waking a QEMU that does not look for the input of a port.
//!
//! QEMU reads a port's socket while its UART takes bytes. Where the firmware enables the UART after
//! the bytes have come, several UARTs (that of the mps2 boards among them) do not tell QEMU's main
//! loop, which then looks at the socket again only when something else wakes it: measured with 7.2
//! and 10.0, the input is never delivered to an otherwise idle guest. Any QMP command wakes it.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use qmp_proto::commands::RunState;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};
use tokio::time::sleep;

use super::Port;
use crate::client::command::call;
use crate::client::{Band, Shared};

/// The pauses between two looks at the socket grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// … to this, while nothing is read.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How often QEMU is woken for one write where the kernel does not tell what is unread.
const BLIND_WAKES: usize = 12;

/// How long QEMU may take to answer the command that wakes it: longer where it is held up, and then
/// it is awake.
const WAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Wakes QEMU while the guest runs and bytes of the port are unread, until the session ends.
pub(super) async fn wake_while_unread(port: Weak<Port>, shared: Arc<Shared>) {
    let Some(written) = port.upgrade().map(|port| Arc::clone(&port.written)) else {
        return;
    };
    let waking = async {
        loop {
            written.notified().await;
            let Some(port) = port.upgrade() else { return };
            if deliver(&port, &shared).await.is_none() {
                return;
            }
        }
    };
    tokio::select! {
        () = waking => {}
        _ = shared.end() => {}
    }
}

/// Wakes QEMU until it has read what was written; `None` when the session has ended.
async fn deliver(port: &Port, shared: &Shared) -> Option<()> {
    let mut run_state = shared.run_state();
    let (mut pause, mut before, mut blind) = (FIRST_PAUSE, None, 0);
    loop {
        sleep(pause).await;
        let unread = unread(&port.sockets[0]).ok();
        match unread {
            Some(0) => return Some(()),
            None if blind == BLIND_WAKES => return Some(()),
            None => blind += 1,
            Some(_) => {}
        }
        // A guest that is stopped reads nothing. What lets it run wakes QEMU.
        run_state
            .wait_for(|state| *state == RunState::Running)
            .await
            .ok()?;
        pause = if unread == before {
            (pause * 2).min(LONGEST_PAUSE)
        } else {
            FIRST_PAUSE
        };
        before = unread;
        // Its answer tells nothing: it was awake to give it.
        let _ = call(
            shared,
            "query-name",
            Band::In,
            WAKE_DEADLINE,
            |connection| connection.execute("query-name", &()),
        )
        .await;
    }
}

const AF_UNIX: u8 = 1;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// `UDIAG_SHOW_RQLEN`.
const SHOW_QUEUES: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct unix_diag_msg`.
const MESSAGE: usize = 16;

/// How much memory the kernel holds for bytes that the other end of a unix socket has not read:
/// zero if it has read them all. By `NETLINK_SOCK_DIAG` (`linux/unix_diag.h`), since the `ioctl`
/// that tells it cannot be had without `unsafe`.
fn unread(socket: &impl AsFd) -> io::Result<u32> {
    let inode = rustix::fs::fstat(socket)?.st_ino as u32;
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    // The kernel answers at once; a kernel that is only imitated might not.
    sockopt::set_socket_timeout(
        &kernel,
        sockopt::Timeout::Recv,
        Some(Duration::from_millis(100)),
    )?;
    let mut body = vec![AF_UNIX, 0, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(inode.to_ne_bytes());
    body.extend(SHOW_QUEUES.to_ne_bytes());
    body.extend([0xff; 8]);
    let mut request = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    send(&kernel, &request, SendFlags::empty())?;
    let mut answer = vec![0; 4096];
    let (_, length) = recv(&kernel, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    written_queue(answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The second number of the attribute `UNIX_DIAG_RQLEN`.
fn written_queue(answer: &[u8]) -> Option<u32> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if u16_at(4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut at = HEADER + MESSAGE;
    loop {
        let length = usize::from(u16_at(at)?);
        if u16_at(at + 2)? == UNIX_DIAG_RQLEN {
            return Some(u32::from_ne_bytes(
                answer.get(at + 8..at + 12)?.try_into().ok()?,
            ));
        }
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_tells_what_is_unread() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
        ours.write_all(b"x").unwrap();
        assert!(unread(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
        drop(theirs);
        // Whatever it says then, it says it at once.
        let _ = unread(&ours);
        assert_eq!(written_queue(&[]), None);
        assert_eq!(written_queue(&[0; 40]), None);
    }
}
