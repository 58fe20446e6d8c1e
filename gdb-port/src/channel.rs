//! The connection to a stub: TCP or unix, whether it has been accepted, and a last word if it is
//! dropped in the middle.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;
#[cfg(unix)]
use std::{os::fd::AsFd, path::Path};

use tokio::net::{TcpSocket, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixSocket, UnixStream};

use crate::connect::{Clock, Ending, Watch, converse, part};
use crate::error::ConnectError;
use crate::listen::{Listener, Look, is_accepted, look};
use crate::options::ProbeOptions;
use crate::probe::{Outcome, Probe};
use crate::stub_address::StubAddress;

/// Where our connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Accepted,
    /// Not accepted, and nobody is in front of it: the listener hangs, or is about to accept.
    Waits,
    /// Not accepted while another client is attached.
    WaitsBehindClient,
    /// Somebody is attached and somebody waits; which is ours is not shown (unix sockets).
    Unsure,
    /// The kernel's tables do not show it.
    NotShown,
}

impl Queue {
    pub(crate) fn is_accepted(self) -> Option<bool> {
        match self {
            Self::Accepted => Some(true),
            Self::Waits | Self::WaitsBehindClient => Some(false),
            Self::Unsure | Self::NotShown => None,
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A connection and the probe that speaks over it.
///
/// Dropped before it has left in order, also while it is still connecting, it says the parting
/// word: the socket is held a second time for that, since a connect future that is dropped takes
/// its socket with it.
pub(crate) struct Channel {
    /// `None` while connecting.
    stream: Option<Stream>,
    spare: Option<Spare>,
    endpoint: StubAddress,
    probe: Probe,
    left: bool,
}

impl Channel {
    pub(crate) async fn connect(
        endpoint: &StubAddress,
        options: &ProbeOptions,
    ) -> Result<Self, ConnectError> {
        let probe = Probe::new(options);
        let mut channel = Self {
            stream: None,
            spare: None,
            endpoint: endpoint.clone(),
            probe,
            left: false,
        };
        let connected = match endpoint {
            StubAddress::Tcp(address) => channel.connect_tcp(*address).await,
            #[cfg(unix)]
            StubAddress::Unix(path) => channel.connect_unix(path).await,
            #[cfg(not(unix))]
            StubAddress::Unix(path) => {
                return Err(ConnectError::UnixSocketsUnsupported { path: path.clone() });
            }
        };
        match connected {
            Ok(stream) => channel.stream = Some(stream),
            Err(source) => {
                channel.left = true;
                return Err(ConnectError::Connect {
                    endpoint: endpoint.to_string(),
                    source,
                });
            }
        }
        Ok(channel)
    }

    async fn connect_tcp(&mut self, address: SocketAddr) -> io::Result<Stream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // Small packets both ways: Nagle's algorithm would hold each for a delayed acknowledgment,
        // 40 ms.
        socket.set_nodelay(true)?;
        self.spare = Spare::of_tcp(&socket)?;
        Ok(Stream::Tcp(socket.connect(address).await?))
    }

    #[cfg(unix)]
    async fn connect_unix(&mut self, path: &Path) -> io::Result<Stream> {
        let socket = UnixSocket::new_stream()?;
        self.spare = Some(Spare::Unix(socket.as_fd().try_clone_to_owned()?.into()));
        Ok(Stream::Unix(socket.connect(path).await?))
    }

    /// Lets the probe speak. With `give_way`, returns at once when another client turns out to be
    /// in front.
    pub(crate) async fn converse(&mut self, clock: &Clock, give_way: bool) -> Ending {
        let endpoint = self.endpoint.clone();
        let local = self.local_address();
        let queue = move || queue(&endpoint, local);
        let watch = Some(Watch {
            queue: &queue,
            give_way,
        });
        match &mut self.stream {
            Some(Stream::Tcp(stream)) => converse(stream, &mut self.probe, clock, watch).await,
            #[cfg(unix)]
            Some(Stream::Unix(stream)) => converse(stream, &mut self.probe, clock, watch).await,
            None => Ending::Finished,
        }
    }

    /// Closes, and waits up to `within` until the other side has closed too.
    pub(crate) async fn leave(mut self, within: Duration) -> Outcome {
        match &mut self.stream {
            Some(Stream::Tcp(stream)) => part(stream, within).await,
            #[cfg(unix)]
            Some(Stream::Unix(stream)) => part(stream, within).await,
            None => {}
        }
        self.left = true;
        self.probe.outcome()
    }

    pub(crate) fn queue(&self) -> Queue {
        if self.probe.heard_anything() {
            return Queue::Accepted;
        }
        queue(&self.endpoint, self.local_address())
    }

    fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Some(Stream::Tcp(stream)) => stream.local_addr().ok(),
            _ => None,
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let Some(mut spare) = self.spare.take().filter(|_| !self.left) else {
            return;
        };
        // What the stub said meanwhile may tell that the guest ran.
        let mut buffer = [0; 4096];
        if let Ok(count) = spare.read(&mut buffer) {
            self.probe.handle_input(&buffer[..count]);
        }
        // What is half written must be ended first: inside a packet, QEMU takes a `$` for an
        // ordinary byte.
        let mut bytes = self.probe.output().to_vec();
        bytes.extend(self.probe.parting());
        // The socket's buffer has room for these few bytes unless the other side hangs, and then
        // nothing helps.
        let _ = spare.write(&bytes);
    }
}

/// The same socket a second time, without a runtime, and non-blocking as the first is.
enum Spare {
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "a socket is held twice on unix alone")
    )]
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

impl Spare {
    #[cfg(unix)]
    fn of_tcp(socket: &TcpSocket) -> io::Result<Option<Self>> {
        Ok(Some(Self::Tcp(socket.as_fd().try_clone_to_owned()?.into())))
    }

    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same shape as on unix, where it can fail"
    )]
    fn of_tcp(_socket: &TcpSocket) -> io::Result<Option<Self>> {
        Ok(None)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

fn queue(endpoint: &StubAddress, local: Option<SocketAddr>) -> Queue {
    let Look::Present(Listener {
        attached, queued, ..
    }) = look(endpoint, None)
    else {
        return Queue::NotShown;
    };
    if let (StubAddress::Tcp(remote), Some(local)) = (endpoint, local) {
        return match is_accepted(local, *remote) {
            Some(true) => Queue::Accepted,
            Some(false) if attached > 0 => Queue::WaitsBehindClient,
            Some(false) => Queue::Waits,
            None => Queue::NotShown,
        };
    }
    match (attached, queued) {
        (_, 0) => Queue::Accepted,
        (0, _) => Queue::Waits,
        _ => Queue::Unsure,
    }
}
