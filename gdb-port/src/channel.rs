//! The connection to a stub: TCP or unix, whether it has been accepted, and a last word if it is dropped in the middle.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::connect::{Clock, Ending, Watch, converse, part};
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::listen::{Listener, Look, is_accepted, look};
use crate::probe::{Outcome, Probe, ProbeOptions};

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

/// A connection and the probe that speaks over it. Dropped before it has left in order, it says the parting word.
pub(crate) struct Channel {
    stream: Stream,
    endpoint: Endpoint,
    probe: Probe,
    left: bool,
}

impl Channel {
    pub(crate) async fn connect(endpoint: &Endpoint, options: &ProbeOptions) -> Result<Self, ConnectError> {
        let failed = |source: io::Error| ConnectError::Connect {
            endpoint: endpoint.to_string(),
            source,
        };
        let stream = match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                // Small packets both ways: Nagle's algorithm would hold each for a delayed acknowledgment, 40 ms.
                stream.set_nodelay(true).map_err(failed)?;
                Stream::Tcp(stream)
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path).await.map_err(failed)?),
            #[cfg(not(unix))]
            Endpoint::Unix(path) => return Err(ConnectError::UnixSocketsUnsupported { path: path.clone() }),
        };
        Ok(Self {
            stream,
            endpoint: endpoint.clone(),
            probe: Probe::new(options),
            left: false,
        })
    }

    /// Lets the probe speak. With `give_way`, returns at once when another client turns out to be in front.
    pub(crate) async fn converse(&mut self, clock: &Clock, give_way: bool) -> Ending {
        let endpoint = self.endpoint.clone();
        let local = self.local_address();
        let queue = move || queue(&endpoint, local);
        let watch = Some(Watch {
            queue: &queue,
            give_way,
        });
        match &mut self.stream {
            Stream::Tcp(stream) => converse(stream, &mut self.probe, clock, watch).await,
            #[cfg(unix)]
            Stream::Unix(stream) => converse(stream, &mut self.probe, clock, watch).await,
        }
    }

    /// Closes, and waits up to `within` until the other side has closed too.
    pub(crate) async fn leave(mut self, within: Duration) -> Outcome {
        match &mut self.stream {
            Stream::Tcp(stream) => part(stream, within).await,
            #[cfg(unix)]
            Stream::Unix(stream) => part(stream, within).await,
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
            Stream::Tcp(stream) => stream.local_addr().ok(),
            #[cfg(unix)]
            Stream::Unix(_) => None,
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // What is half written must be ended first: inside a packet, QEMU takes a `$` for an ordinary byte.
        let mut bytes = self.probe.output().to_vec();
        bytes.extend(self.probe.parting());
        // The socket's buffer has room for these few bytes unless the other side hangs, and then nothing helps.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.try_write(&bytes),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.try_write(&bytes),
        };
    }
}

fn queue(endpoint: &Endpoint, local: Option<SocketAddr>) -> Queue {
    let Look::Present(Listener { attached, queued, .. }) = look(endpoint, None) else {
        return Queue::NotShown;
    };
    if let (Endpoint::Tcp(remote), Some(local)) = (endpoint, local) {
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
