//! A serial port of the guest: read from its first byte, whether or not anybody listens, and kept in a
//! bounded buffer.
//!
//! A UART that nobody reads stalls QEMU whole after 278 bytes, its monitor included. So one task drains it,
//! and what the buffer cannot hold is dropped, oldest first, and counted.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes that a port keeps for its reader: 1 MiB, a minute and a half of a UART at 115,200 baud.
pub const SERIAL_BUFFER_BYTES: usize = 1024 * 1024;

/// How many bytes of unread output an error shows.
const SHOWN_BYTES: usize = 400;

/// One of the guest's serial ports. Clones share the port and its buffer: what one reads, the others do not.
#[derive(Clone)]
pub struct Serial {
    shared: Arc<Port>,
}

struct Port {
    received: Mutex<Received>,
    changed: Notify,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
}

/// The end of draining, also when its runtime is shut down: the socket is closed then, because one that is
/// open and unread stalls QEMU.
struct Draining {
    port: Arc<Port>,
    socket: std::os::unix::net::UnixStream,
}

impl Drop for Draining {
    fn drop(&mut self) {
        // It can only fail if the other end is gone.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.port.received().ended = true;
        self.port.changed.notify_waiters();
    }
}

#[derive(Default)]
struct Received {
    bytes: VecDeque<u8>,
    /// How many bytes came before those in `bytes`.
    start: u64,
    dropped: u64,
    ended: bool,
}

/// Why what was waited for did not come. Nothing was taken from the buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SerialError {
    /// Not in time.
    #[error("{wanted} did not come over the serial port within {deadline:?}; unread: {unread}")]
    Deadline {
        /// What was waited for.
        wanted: String,
        /// The deadline that was set.
        deadline: Duration,
        /// The end of what has come and was not read.
        unread: String,
    },
    /// QEMU closed the port.
    #[error("the serial port closed before {wanted} came; unread: {unread}")]
    Closed {
        /// What was waited for.
        wanted: String,
        /// The end of what has come and was not read.
        unread: String,
    },
}

impl Serial {
    /// Starts to drain a port on this runtime.
    pub(crate) fn drain(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let socket = stream.try_clone()?;
        let (mut reader, writer) = UnixStream::from_std(stream)?.into_split();
        let shared = Arc::new(Port {
            received: Mutex::default(),
            changed: Notify::new(),
            writer: tokio::sync::Mutex::new(writer),
        });
        let draining = Draining { port: Arc::clone(&shared), socket };
        tokio::spawn(async move {
            let mut chunk = vec![0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk).await {
                draining.port.received().push(&chunk[..length]);
                draining.port.changed.notify_waiters();
            }
        });
        Ok(Self { shared })
    }

    /// Waits until the guest has printed `text`, and returns all that stood before it. Both are then read.
    ///
    /// # Errors
    /// [`SerialError`], with the end of what the guest did print.
    pub async fn expect(&self, text: impl AsRef<[u8]>, deadline: Duration) -> Result<Vec<u8>, SerialError> {
        let text = text.as_ref();
        self.until(&format!("'{}'", text.escape_ascii()), deadline, |unread, seen| {
            // What was searched before can only end in the beginning of a match.
            let from = seen.saturating_sub(text.len().saturating_sub(1));
            let at = unread[from..].windows(text.len().max(1)).position(|window| window.starts_with(text));
            at.map(|at| (from + at, from + at + text.len()))
        })
        .await
    }

    /// The next line without its end (LF, CR LF or LF CR), as text; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`SerialError`]; the beginning of a line stays in the buffer.
    pub async fn line(&self, deadline: Duration) -> Result<String, SerialError> {
        let line = self
            .until("the end of a line", deadline, |unread, seen| {
                unread[seen..].iter().position(|&byte| byte == b'\n').map(|at| (seen + at, seen + at + 1))
            })
            .await?;
        Ok(String::from_utf8_lossy(&line).trim_matches('\r').to_owned())
    }

    /// Takes all that has come and was not read.
    pub fn take(&self) -> Vec<u8> {
        let mut received = self.shared.received();
        received.start += received.bytes.len() as u64;
        std::mem::take(&mut received.bytes).into()
    }

    /// Sends to the guest. A guest that does not read its UART takes a few bytes and then no more: put a
    /// deadline around it.
    ///
    /// # Errors
    /// The socket's own, after QEMU has ended.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.shared.writer.lock().await.write_all(bytes).await
    }

    /// Waits until QEMU has closed the port: all that the guest will ever print is in the buffer then.
    pub async fn closed(&self) {
        loop {
            // Listens before it looks, so that nothing comes between.
            let changed = self.shared.changed.notified();
            if self.shared.received().ended {
                return;
            }
            changed.await;
        }
    }

    /// How many bytes were dropped because nobody read them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.received().dropped
    }

    /// Waits until `find` sees a match in the unread bytes, given how many it has seen before; takes up to
    /// the match's end, returns up to its start.
    async fn until(
        &self,
        wanted: &str,
        deadline: Duration,
        mut find: impl FnMut(&[u8], usize) -> Option<(usize, usize)>,
    ) -> Result<Vec<u8>, SerialError> {
        let port = &self.shared;
        // Counted from the first byte ever, so that a read or a drop by others does not shift it.
        let mut seen = 0;
        let found = timeout(deadline, async {
            loop {
                // Listens before it looks, so that nothing comes between.
                let changed = port.changed.notified();
                {
                    let mut received = port.received();
                    let from = seen.max(received.start) - received.start;
                    let unread = received.bytes.make_contiguous();
                    if let Some((start, end)) = find(unread, from as usize) {
                        let before = unread[..start].to_vec();
                        received.discard(end);
                        return Ok(before);
                    }
                    if received.ended {
                        return Err(SerialError::Closed {
                            wanted: wanted.to_owned(),
                            unread: received.tail(),
                        });
                    }
                    seen = received.start + received.bytes.len() as u64;
                }
                changed.await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => Err(SerialError::Deadline {
                wanted: wanted.to_owned(),
                deadline,
                unread: port.received().tail(),
            }),
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.shared.received();
        f.debug_struct("Serial")
            .field("unread", &received.bytes.len())
            .field("dropped", &received.dropped)
            .field("ended", &received.ended)
            .finish_non_exhaustive()
    }
}

impl Port {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Received {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(SERIAL_BUFFER_BYTES);
        self.discard(excess);
        self.dropped += excess as u64;
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.start += count as u64;
    }

    /// The end of what is unread, to be shown in an error.
    fn tail(&mut self) -> String {
        let unread = self.bytes.make_contiguous();
        if unread.is_empty() {
            return "nothing".to_owned();
        }
        let tail = &unread[unread.len().saturating_sub(SHOWN_BYTES)..];
        format!("'{}'", tail.escape_ascii())
    }
}
