//! The child process itself: waiting for it, reaping it, and signals that can only ever reach it.

use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(unix)]
use rustix::io::retry_on_intr;

/// A child that runs, as the system knows it.
#[cfg(unix)]
type Running = rustix::process::Pid;
#[cfg(not(unix))]
type Running = std::process::Child;

/// A child that one thread waits for while others send it signals.
#[derive(Debug)]
pub(crate) struct Child {
    /// `None` once it is reaped: its id may be another process's then, and no signal is sent any
    /// more.
    unreaped: Mutex<Option<Running>>,
    #[cfg(unix)]
    pid: Running,
    #[cfg(not(unix))]
    id: u32,
}

impl Child {
    /// Blocks until the child has ended, kills what is left of its process group, and reaps it.
    pub(crate) fn wait(&self) -> io::Result<ExitStatus> {
        let is_ours = self.await_end();
        let mut unreaped = self.lock();
        match unreaped.take() {
            Some(child) if is_ours => {
                self.kill_group();
                reap(child)
            }
            // Its id may be that of another child by now, which is not ours to reap.
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.unreaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
impl Child {
    pub(crate) fn new(pid: Running) -> Self {
        Self {
            unreaped: Mutex::new(Some(pid)),
            pid,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(crate) fn terminate(&self) {
        use rustix::process::{Signal, kill_process};
        let unreaped = self.lock();
        if unreaped.is_some() {
            // The only error is that it is gone already, which is what was wanted.
            let _ = kill_process(self.pid, Signal::TERM);
            // A stopped process takes no signal but SIGKILL until it is continued.
            let _ = kill_process(self.pid, Signal::CONT);
        }
    }

    pub(crate) fn kill(&self) {
        let unreaped = self.lock();
        if unreaped.is_some() {
            self.kill_group();
        }
    }

    /// Only while it is not reaped: until then the group's id is reserved.
    fn kill_group(&self) {
        // The only error is that nobody is left in it.
        let _ = rustix::process::kill_process_group(self.pid, rustix::process::Signal::KILL);
    }

    /// Blocks until it has ended, without reaping it and without the lock, so that signals can be
    /// sent meanwhile. False where it is not there to be reaped: other code in this program waits
    /// for any child, or ignores SIGCHLD.
    fn await_end(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::Pid(self.pid), options)).is_ok()
    }
}

/// Takes the status of a child that has ended.
#[cfg(unix)]
fn reap(pid: Running) -> io::Result<ExitStatus> {
    use rustix::process::{WaitOptions, waitpid};
    use std::os::unix::process::ExitStatusExt;
    let ended = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    let (_, status) = ended.ok_or(io::ErrorKind::NotFound)?;
    Ok(ExitStatus::from_raw(status.as_raw()))
}

#[cfg(not(unix))]
impl Child {
    pub(crate) fn new(child: Running) -> Self {
        Self {
            id: child.id(),
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
            // The only error is that it is gone already.
            let _ = child.kill();
        }
    }

    fn kill_group(&self) {}

    /// Looks every 10 ms: `std` can't wait and kill at the same time here.
    fn await_end(&self) -> bool {
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
