//! A session with a QEMU that somebody else has started.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use qemu_launch::Address;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::config::Deadlines;
use crate::error::{AttachError, StartPhase};
use crate::memory::Firmware;
use crate::session::{Inner, Session};
use crate::start::{Failed, handshake};
use crate::transport::{BoxTransport, connect};

impl Session {
    /// Joins a QEMU that runs already, at the unix socket or TCP address of its QMP monitor. That QEMU is not
    /// this session's: dropping the last handle closes the connection and leaves it running, and
    /// [`stop`](Self::stop) can only ask.
    ///
    /// # Errors
    /// [`AttachError`], after `deadline` at the latest. A monitor serves one client at a time: another one's
    /// makes this one hear nothing, and nothing was sent then that could run later.
    pub async fn attach(address: Address, deadline: Duration) -> Result<Self, AttachError> {
        let name = address.to_string();
        ready(connect(&address), name, deadline).await
    }

    /// As [`attach`](Self::attach), over a stream to the monitor that is open already: a relay, a tunnel, or
    /// a scripted peer in a test.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        deadline: Duration,
    ) -> Result<Self, AttachError> {
        let stream: BoxTransport = Box::pin(stream);
        ready(async { Ok(stream) }, "the other end of the stream".to_owned(), deadline).await
    }
}

async fn ready(
    transport: impl Future<Output = io::Result<BoxTransport>>,
    address: String,
    deadline: Duration,
) -> Result<Session, AttachError> {
    let mut phase = StartPhase::Connecting;
    let begun =
        timeout(deadline, async { handshake(transport.await?, None, None, deadline, &mut phase).await });
    let failed = match begun.await {
        Ok(Ok((shared, greeting))) => {
            let inner = Inner {
                shared,
                process: None,
                greeting,
                gdb: None,
                deadlines: Deadlines::default(),
                serials: Vec::new(),
                semihosting: None,
                firmware: Firmware::default(),
                snapshots: Arc::default(),
                stopped: OnceCell::new(),
            };
            return Ok(Session::new(inner));
        }
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Deadline,
    };
    Err(match failed {
        Failed::Ended(source) => AttachError::Ended { address, phase, source },
        Failed::Command(source) => AttachError::Refused { phase, source },
        Failed::Connect(source) => AttachError::Connect { address, source },
        _ => AttachError::Deadline { address, phase, deadline },
    })
}
