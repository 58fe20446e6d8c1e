//! stdout, stderr and the files that are written, each by a thread of its own: nothing can
//! interrupt a write, and neither a signal nor a deadline must wait for one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::timeout;

/// So much is written at once: a pipe takes all of it or nothing.
const WRITE_BYTES: usize = 4096;

/// What is still to be written, and how that goes.
#[derive(Default)]
struct WriterState {
    backlog: AtomicUsize,
    /// Why nothing more is written.
    error: OnceLock<io::Error>,
    changed: Notify,
}

/// One of them.
pub(crate) struct Writer {
    chunks: Sender<Vec<u8>>,
    state: Arc<WriterState>,
}

impl Writer {
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::new("stdout", io::stdout())
    }

    pub(crate) fn stderr() -> io::Result<Self> {
        Self::new("stderr", io::stderr())
    }

    /// A file. What is still to be written when the program ends is lost: see [`flush`](Self::flush).
    pub(crate) fn file(name: &str, file: File) -> io::Result<Self> {
        Self::new(name, file)
    }

    fn new(name: &str, stream: impl AsFd + Send + 'static) -> io::Result<Self> {
        let (sender, chunks) = channel();
        let state = Arc::<WriterState>::default();
        let shared = Arc::clone(&state);
        // A signal is for the thread that listens to them, also before it does.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write(&stream, &chunks, &shared));
        mask.thread_set_mask()?;
        spawned?;
        Ok(Self {
            chunks: sender,
            state,
        })
    }

    /// Hands bytes over, however many wait already.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.state.backlog.fetch_add(bytes.len(), Ordering::AcqRel);
        // The thread ends with an error alone, and that is what `failed` waits for.
        let _ = self.chunks.send(bytes.to_vec());
    }

    /// How many bytes wait.
    pub(crate) fn backlog(&self) -> usize {
        self.state.backlog.load(Ordering::Acquire)
    }

    /// Waits until fewer bytes than that wait.
    pub(crate) async fn below(&self, bytes: usize) {
        self.until(|state| state.backlog.load(Ordering::Acquire) < bytes)
            .await;
    }

    /// Waits until nothing can be written any more, and returns why.
    pub(crate) async fn failed(&self) -> io::Error {
        loop {
            self.until(|state| state.error.get().is_some()).await;
            if let Some(error) = self.error() {
                return error;
            }
        }
    }

    /// Why nothing more is written, where that is so.
    pub(crate) fn error(&self) -> Option<io::Error> {
        self.state.error.get().map(copy)
    }

    /// As [`flush`](Self::flush), where no runtime is.
    pub(crate) fn flush_blocking(&self, patience: Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        if let Ok(runtime) = runtime {
            runtime.block_on(self.flush(Some(patience)));
        }
    }

    /// Waits until all is written, but gives up when nothing was for so long (`None`: never).
    pub(crate) async fn flush(&self, patience: Option<Duration>) {
        loop {
            let before = self.backlog();
            if before == 0 || self.state.error.get().is_some() {
                return;
            }
            let progress = self.until(|state| {
                state.backlog.load(Ordering::Acquire) < before || state.error.get().is_some()
            });
            match patience {
                None => progress.await,
                Some(patience) => {
                    if timeout(patience, progress).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn until(&self, is_so: impl Fn(&WriterState) -> bool) {
        loop {
            // Listens before it looks, so that nothing comes between.
            let changed = self.state.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so(&self.state) {
                return;
            }
            changed.await;
        }
    }
}

/// The error for another who asks.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

/// Writes what comes, until nothing can be written any more.
fn write(stream: &impl AsFd, chunks: &Receiver<Vec<u8>>, state: &WriterState) {
    for chunk in chunks {
        for mut part in chunk.chunks(WRITE_BYTES) {
            while !part.is_empty() {
                match write_some(stream, part) {
                    Ok(written) => {
                        part = &part[written..];
                        state.backlog.fetch_sub(written, Ordering::AcqRel);
                        state.changed.notify_waiters();
                    }
                    Err(error) => {
                        // There is one thread, so nothing is set yet.
                        let _ = state.error.set(error);
                        state.changed.notify_waiters();
                        return;
                    }
                }
            }
        }
    }
}

/// Writes what the stream takes. One that somebody else has made non-blocking is waited for.
fn write_some(stream: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(stream, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut wanted = [PollFd::new(stream, PollFlags::OUT)];
                match poll(&mut wanted, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            written => return Ok(written?),
        }
    }
}
