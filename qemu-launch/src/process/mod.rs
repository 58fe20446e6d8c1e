//! The handle of a running QEMU: its channels, its output, how it ends.

pub(crate) mod channel;
pub(crate) mod child;
pub(crate) mod drain;
pub(crate) mod environment;
pub(crate) mod exec;
pub(crate) mod exit;
#[cfg(unix)]
mod exit_notice;
pub(crate) mod lockup;
pub(crate) mod output;
pub(crate) mod parent_guard;
pub(crate) mod registers;
pub(crate) mod ring;
pub(crate) mod set_once;
pub(crate) mod spawn;
pub(crate) mod stop_policy;
pub(crate) mod supervise;

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::argv::command_line::Argv;
use crate::spec::endpoint::Address;
use child::Child;
use exit::Exit;
use output::{Lines, Tail, TimedOut};
use ring::Ring;
use set_once::SetOnce;
use stop_policy::{StillRunning, StopPolicy, Terminated};

/// How long dropping a [`Process`] waits for the killed process to be gone; it takes a few
/// milliseconds.
const DROP_WAIT: Duration = Duration::from_millis(250);

/// A QEMU that this program started, and the owner of its life: **dropping it kills QEMU and reaps
/// it**, unless the machine is to [keep running](crate::MachineSpec::keep_running). The drop blocks
/// until QEMU is gone, which takes some milliseconds, and for 250 ms at most;
/// [`ProcessHandle::end`] spares async code even that.
///
/// Everything that needs no ownership is in [`ProcessHandle`], to which this dereferences, and
/// which can be cloned and outlive it.
#[derive(Debug)]
pub struct Process {
    handle: ProcessHandle,
    channels: Vec<Opened>,
    kept: bool,
}

/// A character device that can be reached, and this program's end where it is inherited.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) address: Address,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is never one"))]
    pub(crate) stream: Option<exec::Stream>,
}

/// What is known of a process, shared by its handles and the thread that serves it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pid: u32,
    pub(crate) argv: Argv,
    pub(crate) child: Child,
    pub(crate) stdout: Arc<Ring>,
    pub(crate) stderr: Arc<Ring>,
    pub(crate) exit: SetOnce<Exit>,
    /// A signal was sent to it from here.
    pub(crate) signalled: AtomicBool,
}

impl Process {
    pub(crate) fn new(shared: Arc<Shared>, channels: Vec<Opened>, kept: bool) -> Self {
        Self {
            handle: ProcessHandle { shared },
            channels,
            kept,
        }
    }

    /// The same process, which outlives this handle or does not.
    pub(crate) fn keep(mut self, kept: bool) -> Self {
        self.kept = kept;
        self
    }

    /// A handle that can be cloned freely and outlives this one.
    #[must_use]
    pub fn handle(&self) -> ProcessHandle {
        self.handle.clone()
    }

    /// Whether it outlives this handle and this program.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Where the QMP monitor is; `None` without one.
    #[must_use]
    pub fn qmp_address(&self) -> Option<&Address> {
        self.address("qmp")
    }

    /// Where the GDB stub is; `None` without one.
    #[must_use]
    pub fn gdb_address(&self) -> Option<&Address> {
        self.address("gdb")
    }

    /// Where the serial port of this number is; `None` without one, or when it goes to a file or
    /// nowhere.
    #[must_use]
    pub fn serial_address(&self, port: usize) -> Option<&Address> {
        self.address(&format!("serial{port}"))
    }

    /// Where the character device of this id is: `qmp`, `gdb`, `serial0`, `monitor0`, or one of
    /// your own.
    #[must_use]
    pub fn address(&self, id: &str) -> Option<&Address> {
        self.channels
            .iter()
            .find(|channel| channel.id == id)
            .map(|channel| &channel.address)
    }
}

/// This program's ends of inherited socket pairs. They block, as `std`'s do, and each is handed out
/// once.
#[cfg(unix)]
impl Process {
    /// The QMP monitor, the first time, where it is inherited.
    pub fn take_qmp(&mut self) -> Option<std::os::unix::net::UnixStream> {
        self.take("qmp")
    }

    /// The GDB stub, the first time, where it is inherited.
    pub fn take_gdb(&mut self) -> Option<std::os::unix::net::UnixStream> {
        self.take("gdb")
    }

    /// The serial port of this number, the first time, where it is inherited. Read it until the
    /// end: QEMU stalls after 278 unread bytes.
    pub fn take_serial(&mut self, port: usize) -> Option<std::os::unix::net::UnixStream> {
        self.take(&format!("serial{port}"))
    }

    /// The character device of this id, the first time, where it is inherited.
    pub fn take(&mut self, id: &str) -> Option<std::os::unix::net::UnixStream> {
        self.channels
            .iter_mut()
            .find(|channel| channel.id == id)?
            .stream
            .take()
    }
}

impl Deref for Process {
    type Target = ProcessHandle;

    fn deref(&self) -> &ProcessHandle {
        &self.handle
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept && self.handle.try_wait().is_none() {
            self.handle.kill();
            // So that a port or a file that QEMU held is free after the drop. If this time is too
            // short, the thread that serves the process reaps it all the same.
            let _ = self.handle.wait_blocking(Instant::now() + DROP_WAIT);
        }
    }
}

/// Observes QEMU while it runs, and can end it. Cheap to clone; keeps nothing alive.
#[derive(Debug, Clone)]
pub struct ProcessHandle {
    shared: Arc<Shared>,
}

impl ProcessHandle {
    /// The process id. It stays reserved until the process is reaped, so no signal of this crate
    /// reaches another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// The command line that it was started with.
    #[must_use]
    pub fn argv(&self) -> &Argv {
        &self.shared.argv
    }

    /// How it ended, or `None` while it runs. Never blocks.
    #[must_use]
    pub fn try_wait(&self) -> Option<Exit> {
        self.shared.exit.try_get()
    }

    /// Waits until it has ended and its output is drained. Needs no particular runtime; may be
    /// dropped at any point.
    pub fn wait(&self) -> impl Future<Output = Exit> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.exit.wait().await }
    }

    /// As [`wait`](Self::wait), blocking at most until the deadline.
    ///
    /// # Errors
    /// [`TimedOut`] when it still runs then; it goes on.
    pub fn wait_blocking(&self, deadline: Instant) -> Result<Exit, TimedOut> {
        self.shared
            .exit
            .wait_blocking(Some(deadline))
            .ok_or(TimedOut)
    }

    /// The end of what it has written on stderr so far: at most 64 KiB.
    #[must_use]
    pub fn stderr_tail(&self) -> Tail {
        Tail::of(&self.shared.stderr)
    }

    /// The end of what it has written on stdout so far: at most 64 KiB.
    #[must_use]
    pub fn stdout_tail(&self) -> Tail {
        Tail::of(&self.shared.stdout)
    }

    /// Follows stderr line by line, from the first one that is still kept.
    #[must_use]
    pub fn stderr_lines(&self) -> Lines {
        Lines::new(Arc::clone(&self.shared.stderr))
    }

    /// Follows stdout line by line, from the first one that is still kept.
    #[must_use]
    pub fn stdout_lines(&self) -> Lines {
        Lines::new(Arc::clone(&self.shared.stdout))
    }

    /// Asks it to end: SIGTERM to its process group, upon which QEMU sends SHUTDOWN (`host-signal`)
    /// and exits with status 0. In its first 50 ms or so QEMU has no handler for SIGTERM yet, and
    /// signal 15 ends it: then [`Exit::signal`] is 15 and there is no exit status. A process that
    /// was stopped (SIGSTOP) is continued, since it would not react otherwise. Does nothing once it
    /// has ended. On Windows the same as [`kill`](Self::kill).
    pub fn terminate(&self) {
        self.shared.signalled.store(true, Ordering::Relaxed);
        self.shared.child.terminate();
    }

    /// Kills it and everything in its process group, at once. Does nothing once it has ended.
    pub fn kill(&self) {
        self.shared.signalled.store(true, Ordering::Relaxed);
        self.shared.child.kill();
    }

    /// Whether [`terminate`](Self::terminate), [`kill`](Self::kill) or a step of [`end`](Self::end)
    /// sent it a signal: the one that ended it then came from here, not from outside.
    #[must_use]
    pub fn was_signalled(&self) -> bool {
        self.shared.signalled.load(Ordering::Relaxed)
    }

    /// Ends it, step by step, and returns which step it took. That begins with this call, whether
    /// or not the future is polled, and goes on if the future is dropped.
    pub fn end(
        &self,
        policy: StopPolicy,
    ) -> impl Future<Output = Result<Terminated, StillRunning>> + Send + use<> {
        let outcome = stop_policy::begin(self.clone(), policy);
        async move { outcome.wait().await }
    }

    /// As [`end`](Self::end), blocking: at most for the sum of the policy's steps.
    ///
    /// # Errors
    /// [`StillRunning`] when not even SIGKILL ended it in time.
    pub fn end_blocking(&self, policy: StopPolicy) -> Result<Terminated, StillRunning> {
        let outcome = stop_policy::begin(self.clone(), policy).wait_blocking(None);
        outcome.unwrap_or_else(|| Err(self.still_running(policy.kill)))
    }

    pub(crate) fn still_running(&self, after: Duration) -> StillRunning {
        StillRunning {
            pid: self.pid(),
            after,
            out_of_reach: self.shared.child.is_out_of_reach(),
        }
    }
}

/// A thread with a small stack: those of this crate do little but wait.
pub(crate) fn spawn_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 * 1024)
        .spawn(work)
}
