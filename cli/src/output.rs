//! What the firmware prints: to stdout and the log as it comes, and to whoever expects something of
//! it.
//!
//! ```text
//!   serial port ──┐
//!   semihosting ──┼─▶ one pipe ─▶ log, --expect, --send-after ─▶ stdout
//!   :tt (stdout) ─┘
//! ```
//!
//! All of it comes through one pipe, so that it has one order: the first serial port and the
//! semihosting console log to QEMU's stdout, where the file `:tt` is written anyway. While stdout
//! takes nothing, the pipe is not read, and the firmware waits.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::expectation::Expectation;
use crate::report::Failure;
use crate::writer::Writer;
use crate::written;

/// How much one read takes.
const CHUNK_BYTES: usize = 16 * 1024;

/// So much may wait for stdout when the firmware is not held up any more.
const LEFT_BYTES: usize = 1024 * 1024;

/// How far the run is, for who reads the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// The firmware waits for stdout.
    Running,
    /// The run is to end: nothing waits for stdout, or QEMU could not be asked where the firmware
    /// is.
    Ending,
    /// QEMU is gone, and what it has written is all there will be.
    Ended,
}

/// Why nothing more is printed, before the firmware has come to its end.
#[derive(Debug)]
pub(crate) enum Cut {
    /// What was expected has come.
    Met,
    /// Nobody reads stdout any more.
    StdoutClosed,
    /// It can't be written.
    Failed(Failure),
}

pub(crate) struct Output {
    pipe: pipe::Receiver,
    stdout: Writer,
    taps: Mutex<Taps>,
    /// Whether the text for `--send-after` has come.
    go: watch::Sender<bool>,
}

/// Who sees what the firmware prints, beside stdout and stderr.
struct Taps {
    log: Option<(PathBuf, File)>,
    /// One for each stream: a match has no bytes of the other in it.
    expected: [Option<Expectation>; 2],
    send_after: [Option<Expectation>; 2],
    /// How many bytes stdout was not asked to take.
    dropped: usize,
}

/// Where the firmware printed it.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    /// Makes the log, and replaces one that is there. Also returned: QEMU's end of the pipe.
    pub(crate) fn new(
        log: Option<&Path>,
        firmware: &Path,
        expected: Option<Expectation>,
        send_after: Option<Expectation>,
    ) -> Result<(Self, OwnedFd), Failure> {
        let log = log.map(|log| create_log(log, firmware)).transpose()?;
        let (ours, qemus) = pipe().map_err(Failure::system("make a pipe"))?;
        let output = Self {
            pipe: ours,
            stdout: Writer::stdout().map_err(Failure::system("start a thread for stdout"))?,
            go: watch::Sender::new(send_after.is_none()),
            taps: Mutex::new(Taps {
                log,
                expected: [expected.clone(), expected],
                send_after: [send_after.clone(), send_after],
                dropped: 0,
            }),
        };
        Ok((output, qemus))
    }

    /// Becomes true when input may be sent.
    pub(crate) fn go(&self) -> watch::Receiver<bool> {
        self.go.subscribe()
    }

    /// Prints what comes, until QEMU is gone.
    pub(crate) async fn print(&self, mut phase: watch::Receiver<Phase>) -> Result<(), Cut> {
        tokio::select! {
            printed = self.copy(&mut phase) => printed,
            error = self.stdout.failed() => Err(cut(error)),
        }
    }

    async fn copy(&self, phase: &mut watch::Receiver<Phase>) -> Result<(), Cut> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            tokio::select! {
                () = self.stdout.room() => {}
                _ = phase.wait_for(|&phase| phase != Phase::Running) => {}
            }
            let ended = *phase.borrow_and_update() == Phase::Ended;
            let read = if ended {
                // Not by the runtime, which may not know yet that there is something.
                rustix::io::read(&self.pipe, &mut chunk).map_err(io::Error::from)
            } else {
                self.pipe.try_read(&mut chunk)
            };
            match read {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.print_bytes(&chunk[..length])?;
                    tokio::task::coop::consume_budget().await;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ended {
                        return Ok(());
                    }
                    tokio::select! {
                        _ = self.pipe.readable() => {}
                        _ = phase.changed() => {}
                    }
                }
                Err(source) => return Err(Cut::Failed(Failure::system("read a pipe")(source))),
            }
        }
    }

    fn print_bytes(&self, bytes: &[u8]) -> Result<(), Cut> {
        let met = self.tap(Stream::Stdout, bytes);
        if self.stdout.backlog() < LEFT_BYTES {
            self.stdout.send(bytes);
        } else {
            self.taps().dropped += bytes.len();
        }
        met
    }

    /// Shows bytes that the firmware printed to who else wants them.
    pub(crate) fn tap(&self, stream: Stream, bytes: &[u8]) -> Result<(), Cut> {
        let mut taps = self.taps();
        if let Some((path, log)) = &mut taps.log {
            log.write_all(bytes).map_err(|source| {
                let path = path.clone();
                Cut::Failed(Failure::Log { path, source })
            })?;
        }
        let number = stream as usize;
        if met(&mut taps.send_after[number], bytes) {
            self.go.send_replace(true);
        }
        match met(&mut taps.expected[number], bytes) {
            true => Err(Cut::Met),
            false => Ok(()),
        }
    }

    /// Waits until stdout has taken the rest, or takes nothing for so long; how many bytes it has
    /// not taken.
    pub(crate) async fn finish(&self, patience: Option<Duration>) -> Result<usize, Cut> {
        self.stdout.flush(patience).await;
        match self.stdout.error() {
            Some(error) => Err(cut(error)),
            None => Ok(self.stdout.backlog() + self.taps().dropped),
        }
    }

    fn taps(&self) -> std::sync::MutexGuard<'_, Taps> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why stdout cannot be written.
fn cut(error: io::Error) -> Cut {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Cut::StdoutClosed,
        _ => Cut::Failed(Failure::Stdout(error)),
    }
}

fn met(wanted: &mut Option<Expectation>, bytes: &[u8]) -> bool {
    wanted.as_mut().is_some_and(|wanted| wanted.met_by(bytes))
}

fn create_log(path: &Path, firmware: &Path) -> Result<(PathBuf, File), Failure> {
    match written::create(path, firmware) {
        Ok(file) => Ok((path.to_owned(), file)),
        Err(source) => Err(Failure::Log {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A pipe: our end for this runtime, and QEMU's, which blocks.
fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, qemus) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(ours.into())?, qemus.into()))
}
