//! Threads: those that live as long as this program and may start a QEMU, and how the short-lived
//! ones are made.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

type Work = Box<dyn FnOnce() + Send>;

/// After this long in the queue, work gets a further thread: the system can be held up while it
/// executes a program, for example from a network file system that does not answer.
const HELD_UP: Duration = Duration::from_millis(500);

static QUEUE: Queue = Queue::new();

/// Runs `work` on a thread that outlives the child, and returns its result; `None` where it
/// panicked. That is this thread if it is the main one, else one that is kept for it.
///
/// `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends, not its process: QEMU
/// started by a worker of a runtime would die with that worker. Handing over takes 70 µs on an idle
/// machine and a time slice on a busy one, which the main thread can save.
///
/// # Errors
/// The thread can't be started; the work was not done.
pub(crate) fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    if is_main_thread() {
        return Ok(Some(work()));
    }
    QUEUE.run(work)
}

/// Work for any number of threads that never end.
struct Queue {
    state: Mutex<State>,
    pushed: Condvar,
}

struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Queue {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                threads: 0,
                idle: 0,
            }),
            pushed: Condvar::new(),
        }
    }

    fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Option<T>> {
        let (answer, answered) = channel();
        if self.lock().threads == 0 {
            self.start_thread()?;
        }
        self.lock().waiting.push_back(Box::new(move || {
            // The one who asked waits for it below.
            let _ = answer.send(work());
        }));
        self.pushed.notify_one();
        loop {
            match answered.recv_timeout(HELD_UP) {
                Ok(done) => return Ok(Some(done)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                // Without a further thread there is still the one that is held up.
                Err(RecvTimeoutError::Timeout) => drop(self.start_thread_if_held_up()),
            }
        }
    }

    fn start_thread_if_held_up(&'static self) -> io::Result<()> {
        let state = self.lock();
        if state.waiting.is_empty() || state.idle > 0 {
            return Ok(());
        }
        drop(state);
        self.start_thread()
    }

    fn start_thread(&'static self) -> io::Result<()> {
        spawn_thread("qemu-spawn", || self.work_for_ever())?;
        self.lock().threads += 1;
        Ok(())
    }

    fn work_for_ever(&self) {
        loop {
            let work = self.next();
            // A panic is caught: the end of this thread would kill every QEMU that it started.
            let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(work));
        }
    }

    fn next(&self) -> Work {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                return work;
            }
            state.idle += 1;
            state = (self.pushed.wait(state)).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rust's main thread ends with the process.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_main_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Nothing depends on the thread elsewhere.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_main_thread() -> bool {
    true
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::Queue;

    #[test]
    fn work_that_hangs_holds_up_no_other() {
        static QUEUE: Queue = Queue::new();
        let (let_go, held) = channel::<()>();
        let (began, begun) = channel();
        let hanging = std::thread::spawn(move || {
            QUEUE.run(move || {
                began.send(()).unwrap();
                held.recv().unwrap();
                1
            })
        });
        begun.recv().unwrap();
        assert_eq!(QUEUE.run(|| 2).unwrap(), Some(2));
        // More than one further thread on a machine that is slow to run the first of them.
        assert!(QUEUE.lock().threads >= 2);
        let_go.send(()).unwrap();
        assert_eq!(hanging.join().unwrap().unwrap(), Some(1));
    }

    #[test]
    fn a_panic_ends_no_thread() {
        static QUEUE: Queue = Queue::new();
        assert_eq!(
            QUEUE.run(|| assert!(QUEUE.lock().threads > 9)).unwrap(),
            None
        );
        assert_eq!(QUEUE.run(|| 1).unwrap(), Some(1));
        assert_eq!(QUEUE.lock().threads, 1);
    }
}
