//! The task that reads a port from its first byte to its last.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Port;

/// How much one read takes: QEMU writes a UART's bytes one by one or a few at a time.
const CHUNK: usize = 4096;

/// Reads the port's socket of this number until QEMU closes it. `socket` is the same one, to close
/// it by.
pub(super) async fn drain(port: Arc<Port>, number: usize, socket: std::os::unix::net::UnixStream) {
    let draining = Draining { port, socket };
    let port = &draining.port;
    let mut chunk = vec![0; CHUNK];
    while port.sockets[number].readable().await.is_ok() {
        let read = {
            // From the read on: `take_written` reads too.
            let mut buffer = port.buffer();
            let read = port.sockets[number].try_read(&mut chunk);
            if let Ok(length) = read {
                buffer.push(&chunk[..length]);
            }
            read
        };
        match read {
            Ok(1..) => port.changed.notify_waiters(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        // A flood must not keep the runtime's other tasks from their turn: a ready socket costs no
        // wait.
        tokio::task::coop::consume_budget().await;
    }
}

/// The end of draining, also when its runtime is shut down: the socket is closed then, because one
/// that is open and unread stalls QEMU.
struct Draining {
    port: Arc<Port>,
    socket: std::os::unix::net::UnixStream,
}

impl Drop for Draining {
    fn drop(&mut self) {
        // It can only fail if the other end is gone.
        let _ = self.socket.shutdown(Shutdown::Both);
        if self.port.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.port.buffer().end();
        }
        self.port.changed.notify_waiters();
    }
}
