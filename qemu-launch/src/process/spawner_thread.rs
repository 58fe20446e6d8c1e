//! Threads: those that last as long as this program and may start a QEMU, and how the short-lived
//! ones are made.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// Has a lasting thread run `work`, at the latest soon: this one if it is the main thread, else the
/// one kept for it.
///
/// `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends, not its process: QEMU
/// started by a worker of a runtime would die with that worker. Handing over takes 70 µs on an idle
/// machine and a time slice on a busy one, which the main thread can save.
///
/// # Errors
/// The thread can't be started; the work was not done.
pub(crate) fn run(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if is_main_thread() {
        work();
        return Ok(());
    }
    run_later(work)
}

/// Has the thread kept for it run `work`, and does not wait.
///
/// # Errors
/// The thread can't be started; the work was not done.
pub(crate) fn run_later(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    static LASTING: Mutex<Option<Sender<Work>>> = Mutex::new(None);

    let mut lasting = LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match &*lasting {
        Some(sender) => sender,
        None => lasting.insert(start()?),
    };
    // It never ends, so it always takes the work.
    let _ = sender.send(Box::new(work));
    Ok(())
}

fn start() -> io::Result<Sender<Work>> {
    let (sender, receiver) = channel::<Work>();
    spawn_thread("qemu-spawn", move || {
        for work in receiver {
            // A panic is caught, for the end of this thread would take every running QEMU with it.
            let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(work));
        }
    })?;
    Ok(sender)
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
pub(crate) fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 * 1024)
        .spawn(work)
        .map(drop)
}
