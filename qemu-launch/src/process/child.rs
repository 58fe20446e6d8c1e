//! The child process: signals that can only ever reach it, waiting for its exit, and reaping it.

use std::io;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(unix)]
use rustix::io::{Errno, retry_on_intr};
#[cfg(unix)]
use rustix::process::Signal;

/// A child that runs, as the system knows it.
#[cfg(unix)]
type Running = rustix::process::Pid;
#[cfg(not(unix))]
type Running = std::process::Child;

/// A child that one thread waits for while others send it signals.
#[derive(Debug)]
pub(crate) struct Child {
    /// `None` once it is reaped: its id may be another process's then, so no signal is sent.
    unreaped: Mutex<Option<Running>>,
    /// The system has refused to let us signal it.
    refused: AtomicBool,
    #[cfg(unix)]
    pid: Running,
    #[cfg(not(unix))]
    id: u32,
}

impl Child {
    /// Blocks until the child has exited, kills what is left of its process group, and reaps it.
    ///
    /// # Errors
    /// It is not there to be reaped: other code in this program waits for any child, or ignores
    /// SIGCHLD.
    pub(crate) fn wait(&self) -> io::Result<ExitStatus> {
        let is_ours = self.await_exit();
        let mut unreaped = self.lock();
        match unreaped.take() {
            Some(child) if is_ours => {
                self.signal_group_kill();
                reap(child)
            }
            // Its id may be that of another child by now, which is not ours to reap.
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether it belongs to another user, so that no signal of ours reaches it.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.unreaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signals go to the process group: a wrapper that runs QEMU as its child has it in the same group.
#[cfg(unix)]
impl Child {
    pub(crate) fn new(pid: Running) -> Self {
        Self {
            unreaped: Mutex::new(Some(pid)),
            refused: AtomicBool::new(false),
            pid,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(crate) fn pid(&self) -> Running {
        self.pid
    }

    pub(crate) fn terminate(&self) {
        let unreaped = self.lock();
        if unreaped.is_some() {
            self.signal_group(Signal::TERM);
            // A stopped process takes no signal but SIGKILL until it is continued.
            self.signal_group(Signal::CONT);
        }
    }

    pub(crate) fn kill(&self) {
        let unreaped = self.lock();
        if unreaped.is_some() {
            self.signal_group_kill();
        }
    }

    fn signal_group_kill(&self) {
        self.signal_group(Signal::KILL);
    }

    /// Only while the child is not reaped: until then the group's id is reserved.
    fn signal_group(&self, signal: Signal) {
        // That nobody is left in it is no error.
        if rustix::process::kill_process_group(self.pid, signal) == Err(Errno::PERM) {
            self.refused.store(true, Ordering::Relaxed);
        }
    }

    fn await_exit(&self) -> bool {
        await_exit(self.pid)
    }
}

/// Blocks until the child has exited, without reaping it, so that its id stays reserved. False
/// where it is not there to be reaped.
#[cfg(unix)]
pub(crate) fn await_exit(pid: Running) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    retry_on_intr(|| waitid(WaitId::Pid(pid), options)).is_ok()
}

/// Takes the status of a child that has exited.
#[cfg(unix)]
fn reap(pid: Running) -> io::Result<ExitStatus> {
    use rustix::process::{WaitOptions, waitpid};
    use std::os::unix::process::ExitStatusExt;
    let reaped = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    let (_, status) = reaped.ok_or(io::ErrorKind::NotFound)?;
    Ok(ExitStatus::from_raw(status.as_raw()))
}

#[cfg(not(unix))]
impl Child {
    pub(crate) fn new(child: Running) -> Self {
        Self {
            id: child.id(),
            refused: AtomicBool::new(false),
            unreaped: Mutex::new(Some(child)),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// There is no SIGTERM: the same as [`kill`](Self::kill).
    pub(crate) fn terminate(&self) {
        self.kill();
    }

    pub(crate) fn kill(&self) {
        if let Some(child) = &mut *self.lock() {
            // That it is gone already is no error.
            let _ = child.kill();
        }
    }

    fn signal_group_kill(&self) {}

    /// Looks every 10 ms: `std` can't wait and kill at the same time here.
    fn await_exit(&self) -> bool {
        let runs = || {
            self.lock()
                .as_mut()
                .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
        };
        while runs() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        true
    }
}

#[cfg(not(unix))]
fn reap(mut child: Running) -> io::Result<ExitStatus> {
    child.wait()
}
