//! The byte stream to a monitor: a unix socket, a TCP connection, or anything else that reads and writes.

use std::io;
use std::pin::Pin;

use qemu_launch::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// What a session can speak QMP over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Transport for T {}

/// One owned stream, whichever kind it is; a virtual call per read and write is nothing beside the system
/// call.
pub(crate) type BoxTransport = Pin<Box<dyn Transport>>;

/// Connects to a monitor that QEMU listens for.
pub(crate) async fn connect(address: &Address) -> io::Result<BoxTransport> {
    Ok(match address {
        Address::Socket(path) => Box::pin(UnixStream::connect(path).await?),
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
