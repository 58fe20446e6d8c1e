//! The byte stream to a monitor: a unix socket, a TCP connection, or anything else that reads and
//! writes.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use qemu_launch::Address;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// What a session can speak QMP over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + 'static {
    /// The unix socket below, which can take a descriptor.
    #[cfg(feature = "debugger")]
    fn unix_socket(&self) -> Option<&UnixStream>;
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Transport for T {
    #[cfg(feature = "debugger")]
    fn unix_socket(&self) -> Option<&UnixStream> {
        let monitor = (self as &dyn std::any::Any).downcast_ref::<UnixSocket>()?;
        Some(monitor.get_ref())
    }
}

/// One owned stream, whichever kind it is; a virtual call per read and write is nothing beside the
/// system call.
pub(crate) type BoxTransport = Pin<Box<dyn Transport>>;

/// Connects to a monitor that QEMU listens for.
pub(crate) async fn connect(address: &Address) -> io::Result<BoxTransport> {
    Ok(match address {
        Address::Socket(path) => {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Box::pin(UnixSocket::new(stream.into_std()?)?)
        }
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            // Without it each command may wait 40 ms for an acknowledgment.
            stream.set_nodelay(true)?;
            Box::pin(stream)
        }
        _ => {
            let reason = "only a unix socket or a TCP address can be joined";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
    })
}

/// A stream that QEMU inherited the other end of, for tokio.
pub(crate) fn tokio_stream(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// A unix socket that wakes its reader only when there is something to read.
///
/// Linux tells of room in such a socket whenever the other end has read something, which is after
/// every command and every question to a GDB stub: tokio's own stream is woken by that, nearly once
/// a command, for nothing. Here room is waited for only once a write has found none.
pub(crate) struct UnixSocket {
    socket: AsyncFd<UnixStream>,
    /// The same socket, registered for room alone; there only while there is none.
    full: Option<AsyncFd<UnixStream>>,
    /// Of the driver: a submit may come from outside any runtime.
    runtime: Handle,
}

impl UnixSocket {
    /// In the runtime that the driver will have.
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: register(socket, Interest::READABLE)?,
            full: None,
            runtime: Handle::current(),
        })
    }

    /// The system's socket.
    #[cfg(feature = "debugger")]
    pub(crate) fn get_ref(&self) -> &UnixStream {
        self.socket.get_ref()
    }
}

#[expect(
    deprecated,
    reason = "the newer one is unsafe, for types whose descriptor changes; this one's never does"
)]
fn register(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

/// How many bytes one read takes at most: a whole schema reply takes some twenty reads, an ordinary
/// reply one.
pub(crate) const READ_CHUNK: usize = 16 * 1024;

impl AsyncRead for UnixSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut readable = ready!(self.socket.poll_read_ready(cx))?;
            let mut chunk = [MaybeUninit::uninit(); READ_CHUNK];
            let wanted = buffer.remaining().min(READ_CHUNK);
            let read = readable.try_io(|socket| {
                let (read, _) = rustix::io::read(socket, &mut chunk[..wanted])?;
                buffer.put_slice(read);
                Ok(read.len())
            });
            match read {
                Ok(Ok(read)) => {
                    // It is empty now; to ask again would be a system call for nothing.
                    if 0 < read && read < wanted {
                        readable.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for UnixSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            socket,
            full,
            runtime,
        } = &mut *self;
        loop {
            match socket.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => {
                    *full = None;
                    return Poll::Ready(written);
                }
            }
            let room = match full {
                Some(room) => room,
                None => {
                    let _entered = runtime.enter();
                    full.insert(register(socket.get_ref().try_clone()?, Interest::WRITABLE)?)
                }
            };
            // The answer from before this write is out of date.
            ready!(room.poll_write_ready(cx))?.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;
    use std::thread;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_written_when_there_is_some_even_if_it_began_outside_a_runtime() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = UnixSocket::new(ours).unwrap();
        let (mut ours, written) = thread::spawn(move || {
            let mut written = 0;
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(more) = Pin::new(&mut ours).poll_write(&mut context, &[7; 4096]) {
                written += more.unwrap();
            }
            (ours, written)
        })
        .join()
        .unwrap();
        let rest = 3_000_000;
        let reader = thread::spawn(move || {
            let mut all = vec![0; written + rest];
            theirs.read_exact(&mut all).unwrap();
            theirs.write_all(b"done").unwrap();
            all.iter().all(|&byte| byte == 7)
        });
        ours.write_all(&vec![7; rest]).await.unwrap();
        assert!(
            ours.full.is_none(),
            "it is registered for room no longer than needed"
        );
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"done");
        assert!(reader.join().unwrap());
    }
}
