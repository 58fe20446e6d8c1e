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
//! semihosting console log to QEMU's stdout, where the file `:tt` is written anyway. While stdout,
//! the log or a slow search takes nothing, the pipe is not read, and the firmware waits.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qemu_controller::defmt::without_colours;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::calls::Printed;
use crate::expectation::Expectation;
use crate::failure::Failure;
use crate::logs::{Channel, Printer};
use crate::outcome::Outcome;
use crate::reporter::Reporter;
use crate::writer::Writer;
use crate::written;

/// How much one read takes.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long a search may go on once the run is to end: until then QEMU may wait for the output.
const SEARCH: Duration = Duration::from_millis(500);

/// So much waits for stdout or the log before the firmware does.
const BACKLOG_BYTES: usize = 64 * 1024;

/// So much may wait for stdout or the log when the firmware is not held up any more.
const LEFT_BYTES: usize = 1024 * 1024;

/// How far the run is, for who reads the output.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
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

impl Cut {
    /// How the run ended with that.
    pub(crate) fn outcome(self) -> Result<Outcome, Failure> {
        match self {
            Self::Met => Ok(Outcome::Met),
            Self::StdoutClosed => Ok(Outcome::StdoutClosed),
            Self::Failed(failure) => Err(failure),
        }
    }
}

pub(crate) struct Output {
    pipe: pipe::Receiver,
    stdout: Writer,
    log: Option<Log>,
    phase: watch::Sender<Phase>,
    /// One for each stream: a match has no bytes of the other in it.
    expected: [Mutex<Option<Expectation>>; STREAMS],
    send_after: [Mutex<Option<Expectation>>; STREAMS],
    /// Decodes what comes through the pipe, where that is frames.
    console: tokio::sync::Mutex<Option<Printer>>,
    /// How many bytes stdout was not asked to take.
    dropped: AtomicUsize,
    /// What a bundle has of it.
    kept: Option<Printed>,
    /// The last byte on stdout ended no line.
    in_a_line: Arc<AtomicBool>,
    /// Whether the text for `--send-after` has come.
    go: watch::Sender<bool>,
}

/// `--log`: all that the firmware prints, in a file.
struct Log {
    path: PathBuf,
    file: File,
    writer: Writer,
    dropped: AtomicUsize,
}

impl Log {
    fn open(path: &Path, others: &[(&Path, &str)]) -> Result<Self, Failure> {
        let opened = written::open(path, others).and_then(|file| {
            let writer = Writer::file("log", file.try_clone()?)?;
            Ok((file, writer))
        });
        let path = path.to_owned();
        match opened {
            Ok((file, writer)) => Ok(Self {
                path,
                file,
                writer,
                dropped: AtomicUsize::new(0),
            }),
            Err(source) => Err(Failure::Log { path, source }),
        }
    }

    fn failure(&self, source: io::Error) -> Failure {
        let path = self.path.clone();
        Failure::Log { path, source }
    }
}

/// Where the firmware printed it.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    /// An RTT channel by its number modulo `STREAMS - 3`, which itself is the serial port.
    Channel(usize),
}

/// How many streams are told apart, so that a match has no bytes of another in it.
const STREAMS: usize = 10;

impl Stream {
    /// Where a channel's lines are looked for what is expected.
    pub(crate) fn of(channel: &Channel) -> Self {
        match channel {
            Channel::Rtt { number, .. } => Self::Channel(*number as usize % (STREAMS - 3)),
            Channel::Serial => Self::Channel(STREAMS - 3),
            Channel::Semihosting => Self::Stdout,
        }
    }

    fn number(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Channel(number) => 2 + number,
        }
    }
}

impl Output {
    /// Opens the log, which must be none of the `others`. Also returned: QEMU's end of the pipe.
    pub(crate) fn new(
        log: Option<&Path>,
        others: &[(&Path, &str)],
        expected: Option<Expectation>,
        send_after: Option<Expectation>,
        in_a_line: Arc<AtomicBool>,
        console: Option<Printer>,
        kept: Option<Printed>,
    ) -> Result<(Self, OwnedFd), Failure> {
        let log = log.map(|log| Log::open(log, others)).transpose()?;
        let (ours, qemus) = pipe().map_err(Failure::system("make a pipe"))?;
        let output = Self {
            pipe: ours,
            stdout: Writer::stdout().map_err(Failure::system("start a thread for stdout"))?,
            log,
            phase: watch::Sender::new(Phase::Running),
            go: watch::Sender::new(send_after.is_none()),
            expected: std::array::from_fn(|_| Mutex::new(expected.clone())),
            send_after: std::array::from_fn(|_| Mutex::new(send_after.clone())),
            console: tokio::sync::Mutex::new(console),
            dropped: AtomicUsize::new(0),
            kept,
            in_a_line,
        };
        Ok((output, qemus))
    }

    /// The firmware is about to run: the log of the run before is not needed any more.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        let Some(log) = &self.log else { return Ok(()) };
        written::empty(&log.file).map_err(|error| log.failure(error))
    }

    /// Whether stdout or the log takes nothing just now, so that the firmware may wait for that.
    pub(crate) fn holds_up(&self) -> bool {
        let log = self.log.as_ref().map_or(0, |log| log.writer.backlog());
        self.stdout.backlog() + log > 0
    }

    /// How far the run is.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until the run is so far.
    pub(crate) async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.subscribe();
        // The sender is here, so that it cannot fail.
        let _ = phase.wait_for(|&phase| phase >= wanted).await;
    }

    /// Becomes true when input may be sent.
    pub(crate) fn go(&self) -> watch::Receiver<bool> {
        self.go.subscribe()
    }

    /// Prints what comes, until QEMU is gone.
    pub(crate) async fn print(&self, reporter: &Reporter) -> Result<(), Cut> {
        tokio::select! {
            printed = self.copy(reporter) => printed,
            error = self.stdout.failed() => Err(cut(error)),
            failure = self.log_failed() => Err(Cut::Failed(failure)),
        }
    }

    async fn log_failed(&self) -> Failure {
        match &self.log {
            Some(log) => log.failure(log.writer.failed().await),
            None => pending().await,
        }
    }

    /// Waits until stdout and the log take more.
    async fn room(&self) {
        self.stdout.below(BACKLOG_BYTES).await;
        if let Some(log) = &self.log {
            log.writer.below(BACKLOG_BYTES).await;
        }
    }

    async fn copy(&self, reporter: &Reporter) -> Result<(), Cut> {
        self.copy_all(reporter).await?;
        match &mut *self.console.lock().await {
            Some(console) => console.finish(self, reporter).await,
            None => Ok(()),
        }
    }

    async fn copy_all(&self, reporter: &Reporter) -> Result<(), Cut> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut phase = self.phase.subscribe();
        loop {
            self.until_ending(self.room()).await;
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
                    match &mut *self.console.lock().await {
                        Some(console) => console.print(&chunk[..length], self, reporter).await?,
                        None => self.print_bytes(Stream::Stdout, &chunk[..length]).await?,
                    }
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

    /// Prints a line that may have colours, which are for stdout alone.
    pub(crate) async fn print_coloured(&self, stream: Stream, text: &str) -> Result<(), Cut> {
        self.until_ending(self.room()).await;
        self.send(text.as_bytes());
        self.tap(stream, without_colours(text).as_bytes()).await
    }

    /// Prints what came by another way than the pipe.
    pub(crate) async fn print_bytes(&self, stream: Stream, bytes: &[u8]) -> Result<(), Cut> {
        self.until_ending(self.room()).await;
        self.send(bytes);
        self.tap(stream, bytes).await
    }

    /// Waits until there is room, or the run is to end.
    pub(crate) async fn until_ending(&self, room: impl Future<Output = ()>) {
        tokio::select! {
            () = room => {}
            () = self.reached(Phase::Ending) => {}
        }
    }

    fn send(&self, bytes: &[u8]) {
        if self.stdout.backlog() < LEFT_BYTES {
            self.stdout.send(bytes);
            self.in_a_line
                .store(!bytes.ends_with(b"\n"), Ordering::Relaxed);
        } else {
            self.dropped.fetch_add(bytes.len(), Ordering::Relaxed);
        }
    }

    /// Shows bytes that the firmware printed to who else wants them.
    pub(crate) async fn tap(&self, stream: Stream, bytes: &[u8]) -> Result<(), Cut> {
        if let Some(kept) = &self.kept {
            kept.add(bytes);
        }
        if let Some(log) = &self.log {
            if log.writer.backlog() < LEFT_BYTES {
                log.writer.send(bytes);
            } else {
                log.dropped.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        }
        let number = stream.number();
        if self.met(&self.send_after[number], bytes).await {
            self.go.send_replace(true);
        }
        match self.met(&self.expected[number], bytes).await {
            true => Err(Cut::Met),
            false => Ok(()),
        }
    }

    /// Whether it has come with these bytes. A regular expression may take its time, in which
    /// `--timeout` and signals count: so another thread searches, and is left alone where the run
    /// is to end and it has not ended soon.
    async fn met(&self, wanted: &Mutex<Option<Expectation>>, bytes: &[u8]) -> bool {
        let taken = wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut expectation) = taken else {
            return false;
        };
        let (met, expectation) = if expectation.is_fast() {
            (expectation.met_by(bytes), expectation)
        } else {
            let bytes = bytes.to_vec();
            let search = spawn_blocking(move || (expectation.met_by(&bytes), expectation));
            let too_long = async {
                self.reached(Phase::Ending).await;
                sleep(SEARCH).await;
            };
            tokio::select! {
                Ok(searched) = search => searched,
                () = too_long => return false,
            }
        };
        *wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(expectation);
        met
    }

    /// Waits until stdout and the log have taken the rest, or take nothing for so long; what has
    /// not taken how many bytes.
    pub(crate) async fn finish(
        &self,
        patience: Option<Duration>,
    ) -> Result<Vec<(&'static str, usize)>, Cut> {
        let streams = [("stdout", &self.stdout, &self.dropped)].into_iter();
        let log = self
            .log
            .iter()
            .map(|log| ("the log", &log.writer, &log.dropped));
        let mut lost = Vec::new();
        for (name, writer, dropped) in streams.chain(log) {
            writer.flush(patience).await;
            let left = writer.backlog() + dropped.load(Ordering::Relaxed);
            if left > 0 {
                lost.push((name, left));
            }
        }
        if let Some(error) = self.stdout.error() {
            return Err(cut(error));
        }
        match self
            .log
            .as_ref()
            .and_then(|log| Some((log, log.writer.error()?)))
        {
            Some((log, error)) => Err(Cut::Failed(log.failure(error))),
            None => Ok(lost),
        }
    }
}

/// Why stdout cannot be written.
fn cut(error: io::Error) -> Cut {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Cut::StdoutClosed,
        _ => Cut::Failed(Failure::Stdout(error)),
    }
}

/// A pipe: our end for this runtime, and QEMU's, which blocks.
fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, qemus) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(ours.into())?, qemus.into()))
}
