//! A port as a stream of bytes, for whatever reads and writes through tokio's traits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Port;

type Waiting<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A port as [`AsyncRead`] and [`AsyncWrite`]; by [`Serial::stream`](super::Serial::stream).
///
/// It reads from the port's one buffer: what it reads, [`expect`](super::Serial::expect) does not
/// see. It ends when QEMU has closed the port and all is read. Shutting it down closes nothing,
/// since the guest may have more to print.
pub struct SerialStream {
    port: Arc<Port>,
    /// For more to read.
    reading: Waiting<()>,
    /// For room to write.
    writing: Waiting<io::Result<()>>,
}

impl SerialStream {
    pub(super) fn new(port: Arc<Port>) -> Self {
        Self {
            port,
            reading: None,
            writing: None,
        }
    }
}

impl AsyncRead for SerialStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // Listens before it looks, so that nothing comes between.
            let changed = Arc::clone(&self.port.changed);
            let mut waiting = self
                .reading
                .take()
                .unwrap_or_else(|| Box::pin(changed.notified_owned()));
            let notified = waiting.as_mut().poll(cx).is_ready();
            {
                let mut buffer = self.port.buffer();
                let taken = buffer.take(buf.remaining());
                if !taken.is_empty() || buffer.ended() || buf.remaining() == 0 {
                    buf.put_slice(&taken);
                    return Poll::Ready(Ok(()));
                }
            }
            if !notified {
                self.reading = Some(waiting);
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for SerialStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.port.sockets[0].try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.port.written.notify_one();
                    return Poll::Ready(written);
                }
            }
            let port = Arc::clone(&self.port);
            let writing = self
                .writing
                .get_or_insert_with(|| Box::pin(async move { port.sockets[0].writable().await }));
            let writable = ready!(writing.as_mut().poll(cx));
            self.writing = None;
            writable?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for SerialStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialStream").finish_non_exhaustive()
    }
}
