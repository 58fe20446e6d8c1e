//! A session with a QEMU that somebody else has started.

use std::cell::Cell;
use std::io;

use qemu_launch::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::Deadlines;
use crate::error::{AttachError, StartPhase};
use crate::session::{Inner, Session};
use crate::start::{Failed, handshake};
use crate::transport::BoxTransport;

impl Session {
    /// Joins a QEMU that runs already, at the unix socket or TCP address of its QMP monitor. That QEMU is not this session's: dropping the last
    /// handle closes the connection and leaves it running, and [`stop`](Self::stop) can only ask.
    ///
    /// # Errors
    /// [`AttachError`], within 10 s; nothing of this session's runs in that QEMU later.
    pub async fn attach(address: Address) -> Result<Self, AttachError> {
        let name = address.to_string();
        ready(connect(address), name).await
    }

    /// As [`attach`](Self::attach), over a stream to the monitor that is open already: a relay, a tunnel, or a scripted peer in a test.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Self, AttachError> {
        let stream: BoxTransport = Box::pin(stream);
        ready(async { Ok(stream) }, "the other end of the stream".to_owned()).await
    }
}

async fn connect(address: Address) -> io::Result<BoxTransport> {
    Ok(match address {
        Address::Socket(path) => Box::pin(UnixStream::connect(path).await?),
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            // Without it each command may wait 40 ms for an acknowledgment.
            stream.set_nodelay(true)?;
            Box::pin(stream)
        }
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only a unix socket or a TCP address can be joined",
            ));
        }
    })
}

async fn ready(
    transport: impl Future<Output = io::Result<BoxTransport>>,
    address: String,
) -> Result<Session, AttachError> {
    let deadlines = Deadlines::default();
    let deadline = deadlines.start;
    let phase = Cell::new(StartPhase::Connecting);
    let begun = timeout(deadline, async {
        handshake(transport.await?, None, deadline, &phase).await
    });
    let failed = match begun.await {
        Ok(Ok((shared, greeting))) => {
            let inner = Inner {
                shared,
                process: None,
                greeting,
                gdb: None,
                deadlines,
                serials: Vec::new(),
            };
            return Ok(Session::new(inner));
        }
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Deadline,
    };
    let phase = phase.get();
    Err(match failed {
        Failed::Ended(source) => AttachError::Ended {
            address,
            phase,
            source,
        },
        Failed::Command(source) => AttachError::Refused { phase, source },
        Failed::Connect(source) => AttachError::Connect { address, source },
        Failed::Deadline | Failed::NoMonitor | Failed::UnknownPort => AttachError::Deadline {
            address,
            phase,
            deadline,
        },
    })
}
