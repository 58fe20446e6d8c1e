//! QEMU's log through a pipe with a name: read as it grows, and never on a disk.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(not(target_vendor = "apple"))]
use rustix::fs::{CWD, FileType};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;
use tokio::net::unix::pipe::Receiver;

use super::executed::{ExecutedCode, LogParser};

/// How much one read takes: as much as the pipe holds.
const CHUNK: usize = 64 * 1024;

/// What is there is read at once, and no more than a pipe can hold (`/proc/sys/fs/pipe-max-size`):
/// a guest may make up code for ever.
const MOST_AT_ONCE: usize = 1024 * 1024;

/// A pipe for QEMU to write its log to.
#[derive(Debug)]
pub(crate) struct LogPipe {
    /// The pipe's name is in here; gone once QEMU has opened it.
    folder: TempDir,
    reading: OwnedFd,
    /// So that the log does not end before QEMU has opened it.
    writing: OwnedFd,
}

/// The log of a QEMU that has opened it.
#[derive(Debug, Clone)]
pub(crate) struct CodeLog(Arc<Log>);

#[derive(Debug)]
struct Log {
    pipe: Receiver,
    parser: Mutex<LogParser>,
}

#[cfg(not(target_vendor = "apple"))]
fn make_fifo(path: &Path) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).map_err(io::Error::from)
}

/// It has no such call, and coverage is not tested there.
#[cfg(target_vendor = "apple")]
fn make_fifo(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl LogPipe {
    pub(crate) fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("qemu-controller-")
            .tempdir()?;
        let path = folder.path().join("log");
        make_fifo(&path)?;
        let open = |flags| {
            rustix::fs::open(
                &path,
                flags | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let reading = open(OFlags::RDONLY)?;
        let writing = open(OFlags::WRONLY)?;
        Ok(Self {
            folder,
            reading,
            writing,
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Reads it on this runtime until QEMU has closed it. QEMU has it open by now.
    pub(crate) fn read(self) -> io::Result<CodeLog> {
        drop(self.writing);
        let log = Arc::new(Log {
            pipe: Receiver::from_owned_fd(self.reading)?,
            parser: Mutex::default(),
        });
        let task = Arc::clone(&log);
        tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK];
            while task.pipe.readable().await.is_ok() && task.read(&mut chunk) {
                // A guest may make up code for ever, and others are to have their turn.
                tokio::task::yield_now().await;
            }
        });
        Ok(CodeLog(log))
    }
}

impl Log {
    /// Reads once; false at the end. Under the lock, so that what is read is parsed in its order.
    fn read(&self, chunk: &mut [u8]) -> bool {
        let mut parser = self.parser();
        match self.pipe.try_read(chunk) {
            Ok(0) => false,
            Ok(length) => {
                parser.push(&chunk[..length]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn parser(&self) -> MutexGuard<'_, LogParser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CodeLog {
    /// What ran until now: QEMU writes a block's lines before it runs the block.
    pub(crate) fn executed(&self) -> ExecutedCode {
        self.up_to_now(|parser| parser.executed().clone())
    }

    /// The same, which is then forgotten.
    pub(crate) fn take(&self) -> ExecutedCode {
        self.up_to_now(LogParser::take)
    }

    fn up_to_now<T>(&self, ask: impl FnOnce(&mut LogParser) -> T) -> T {
        let mut parser = self.0.parser();
        let mut chunk = vec![0; CHUNK];
        let mut read = 0;
        // Not by the runtime, which may not know yet that there is something. An end the task sees.
        while read < MOST_AT_ONCE {
            match rustix::io::read(&self.0.pipe, &mut chunk) {
                Ok(length @ 1..) => {
                    parser.push(&chunk[..length]);
                    read += length;
                }
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => break,
            }
        }
        ask(&mut parser)
    }
}
