//! A port of the guest, a UART or the semihosting console: read from its first byte, whether or not
//! anybody listens, and kept in a bounded buffer.
//!
//! ```text
//!   QEMU ──socket pair──▶ drain task ──▶ log, if wanted
//!                              └───────▶ buffer (1 MiB, the oldest dropped and counted) ──▶ expect, line, take, stream
//! ```
//!
//! A UART that nobody reads stalls QEMU whole after 278 bytes, its monitor included. So one task
//! drains it.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

mod buffer;
mod drain;
mod error;
mod log;
mod pattern;
mod stream;
mod wake;

pub use buffer::SERIAL_BUFFER_BYTES;
pub use error::SerialError;
pub use pattern::Pattern;
pub use stream::SerialStream;

use crate::client::Shared;
use buffer::Buffer;
pub(crate) use log::{Log, Logs, PortName};

/// One of the guest's ports: a serial port, or the semihosting console. Clones share the port and
/// its buffer: what one reads, the others do not.
///
/// Bytes are kept as they are; nothing is taken for text unless it is asked for as text. An idle
/// port takes a few KiB of memory, a full one [`SERIAL_BUFFER_BYTES`].
#[derive(Clone)]
pub struct Serial {
    port: Arc<Port>,
    /// How long a wait takes where nothing else is said.
    deadline: Duration,
}

struct Port {
    buffer: Mutex<Buffer>,
    /// Something came, or the end did.
    changed: Arc<Notify>,
    /// The first is the one to write to. The semihosting console has a second one, QEMU's stdout.
    sockets: Vec<UnixStream>,
    /// How many of them are open.
    open: AtomicUsize,
    /// Something was written.
    written: Arc<Notify>,
    /// Held by who writes, so that nothing comes in between.
    writing: tokio::sync::Mutex<()>,
}

/// What [`Serial::expect`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expected {
    /// All that came before the match and was not read yet.
    pub before: Vec<u8>,
    /// What matched.
    pub matched: Vec<u8>,
}

impl Serial {
    /// Starts to drain a port on this runtime.
    pub(crate) fn drain(
        streams: Vec<std::os::unix::net::UnixStream>,
        log: Option<Log>,
        deadline: Duration,
    ) -> io::Result<Self> {
        let ends = streams
            .iter()
            .map(|stream| stream.try_clone())
            .collect::<io::Result<Vec<_>>>()?;
        let socket = |stream: std::os::unix::net::UnixStream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        };
        let port = Arc::new(Port {
            buffer: Mutex::new(Buffer::new(log)),
            changed: Arc::default(),
            open: AtomicUsize::new(streams.len()),
            sockets: streams.into_iter().map(socket).collect::<io::Result<_>>()?,
            written: Arc::default(),
            writing: tokio::sync::Mutex::default(),
        });
        for (number, end) in ends.into_iter().enumerate() {
            tokio::spawn(drain::drain(Arc::clone(&port), number, end));
        }
        Ok(Self { port, deadline })
    }

    /// How many bytes nobody has read yet.
    #[cfg(feature = "rtt")]
    pub(crate) fn unread(&self) -> usize {
        self.port.buffer().unread().0.len()
    }

    /// Adds what has come by another way than the port's socket.
    #[cfg(feature = "rtt")]
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.port.buffer().push(bytes);
        self.port.changed.notify_waiters();
    }

    /// Makes QEMU look for what is written to this port, from now until the session ends.
    pub(crate) fn wake_qemu(&self, shared: Arc<Shared>) {
        tokio::spawn(wake::wake_while_unread(Arc::downgrade(&self.port), shared));
    }

    /// Waits until the guest has printed what is wanted, a text or (feature `regex`) a regular
    /// expression over bytes, and returns it with all that came before; both are then read. It
    /// waits for the session's [command deadline](crate::QemuConfig::command_deadline), by default
    /// 5 s; [`expect_within`](Self::expect_within) has its own.
    ///
    /// The first match counts, as soon as there is one: of a number that may come in two parts say
    /// where it ends, as in `(\d+)\n`.
    ///
    /// # Errors
    /// [`SerialError`], with the last lines that came. Nothing was taken from the buffer.
    pub async fn expect(&self, wanted: impl Pattern) -> Result<Expected, SerialError> {
        self.expect_within(wanted, self.deadline).await
    }

    /// As [`expect`](Self::expect), with a deadline.
    ///
    /// # Errors
    /// As there.
    pub async fn expect_within(
        &self,
        wanted: impl Pattern,
        deadline: Duration,
    ) -> Result<Expected, SerialError> {
        let find = |unread: &[u8], seen| wanted.find(unread, seen);
        let (mut before, matched) = self.until(|| wanted.describe(), deadline, find).await?;
        let matched = before.split_off(matched);
        Ok(Expected { before, matched })
    }

    /// The next line without its end (LF, CR LF or LF CR), as text; bytes that are not UTF-8 become
    /// U+FFFD. It waits as long as [`expect`](Self::expect) does.
    ///
    /// # Errors
    /// [`SerialError`]; the beginning of a line stays in the buffer.
    pub async fn line(&self) -> Result<String, SerialError> {
        self.line_within(self.deadline).await
    }

    /// As [`line`](Self::line), with a deadline.
    ///
    /// # Errors
    /// As there.
    pub async fn line_within(&self, deadline: Duration) -> Result<String, SerialError> {
        let end = || "the end of a line".to_owned();
        let (mut line, end) = self
            .until(end, deadline, |unread, seen| {
                pattern::find(b"\n", unread, seen)
            })
            .await?;
        line.truncate(end);
        Ok(String::from_utf8_lossy(&line).trim_matches('\r').to_owned())
    }

    /// Takes all that has come and was not read.
    pub fn take(&self) -> Vec<u8> {
        self.port.buffer().take(usize::MAX)
    }

    /// As [`take`](Self::take), with what QEMU has written and the runtime has not noticed yet: of
    /// a guest that is stopped all that it has printed.
    #[cfg(feature = "tests")]
    pub(crate) fn take_written(&self) -> Vec<u8> {
        let mut buffer = self.port.buffer();
        let mut chunk = [0; 4096];
        for socket in &self.port.sockets {
            while let Ok(length @ 1..) = rustix::io::read(socket, &mut chunk) {
                buffer.push(&chunk[..length]);
            }
        }
        buffer.take(usize::MAX)
    }

    /// The last lines that came, read or not, to be shown.
    pub(crate) fn last_lines(&self) -> String {
        self.port.buffer().last_lines()
    }

    /// Sends to the guest. A guest that does not read its UART takes a few bytes and then no more:
    /// put a deadline around it. Dropped, it has sent the beginning. What comes before the firmware
    /// has enabled its UART waits for that.
    ///
    /// # Errors
    /// The socket's own, after QEMU has ended.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let _writing = self.port.writing.lock().await;
        while !bytes.is_empty() {
            self.port.sockets[0].writable().await?;
            match self.port.sockets[0].try_write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.port.written.notify_one();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a line of text and LF to the guest, as [`write`](Self::write) does.
    ///
    /// # Errors
    /// As there.
    pub async fn write_line(&self, line: &str) -> io::Result<()> {
        self.write(format!("{line}\n").as_bytes()).await
    }

    /// The port as a stream: [`AsyncRead`](tokio::io::AsyncRead) from the same buffer, and
    /// [`AsyncWrite`](tokio::io::AsyncWrite). With [`BufReader`](tokio::io::BufReader) it gives
    /// lines.
    #[must_use]
    pub fn stream(&self) -> SerialStream {
        SerialStream::new(Arc::clone(&self.port))
    }

    /// Waits until QEMU has closed the port: all that the guest will ever print is in the buffer
    /// then.
    pub async fn closed(&self) {
        loop {
            // Listens before it looks, so that nothing comes between.
            let changed = self.port.changed.notified();
            if self.port.buffer().ended() {
                return;
            }
            changed.await;
        }
    }

    /// How many bytes were dropped because nobody read them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.port.buffer().dropped()
    }

    /// Waits until `find` sees a match in the unread bytes, given how many it has seen before;
    /// takes up to the match's end, and returns that with the place of the match's start.
    async fn until(
        &self,
        wanted: impl Fn() -> String,
        deadline: Duration,
        find: impl Fn(&[u8], usize) -> Option<(usize, usize)>,
    ) -> Result<(Vec<u8>, usize), SerialError> {
        let port = &self.port;
        // Counted from the first byte ever, so that a read or a drop by others does not shift it.
        let mut seen = 0;
        let found = timeout(deadline, async {
            loop {
                // Listens before it looks, so that nothing comes between.
                let changed = port.changed.notified();
                {
                    let mut buffer = port.buffer();
                    let (unread, start) = buffer.unread();
                    let before = usize::try_from(seen.max(start) - start).unwrap_or(usize::MAX);
                    if let Some((start, end)) = find(unread, before) {
                        return Some((buffer.take(end), start));
                    }
                    seen = start + unread.len() as u64;
                    if buffer.ended() {
                        return None;
                    }
                }
                changed.await;
            }
        });
        let found = found.await;
        let last = || port.buffer().last_lines();
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(SerialError::Closed {
                wanted: wanted(),
                last: last(),
            }),
            Err(_) => Err(SerialError::Deadline {
                wanted: wanted(),
                deadline,
                last: last(),
            }),
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = self.port.buffer();
        f.debug_struct("Serial")
            .field("unread", &buffer.unread().0.len())
            .field("dropped", &buffer.dropped())
            .field("ended", &buffer.ended())
            .finish_non_exhaustive()
    }
}

impl Port {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
