//! The threads that serve one process: two drain its output, one waits for its end and tells
//! everybody.

use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::argv::command_line::Argv;
use crate::process::Shared;
use crate::process::exec::Started;
use crate::process::exit::Exit;
use crate::process::output::{self, Tail};
use crate::process::parent_guard::Guard;
use crate::process::ring::Ring;
use crate::process::set_once::Once;
use crate::process::spawner_thread::{self, spawn_thread};

/// For how long nothing may come any more once the process is reaped, and how long something may:
/// only a program that left its group can hold the output open. The one who reads it may have to
/// wait for its turn on a busy machine.
const DRAIN_QUIET: Duration = Duration::from_millis(500);
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// A process that has just been started, with what it takes to serve it.
pub(crate) struct Newborn {
    shared: Arc<Shared>,
    stdout: Option<PipeReader>,
    stderr: PipeReader,
    attached: Attached,
}

/// What is there for as long as the process is.
pub(crate) struct Attached {
    pub(crate) folder: Option<TempDir>,
    /// Sockets outside the folder, at which nothing stood before.
    pub(crate) sockets: Vec<PathBuf>,
    pub(crate) guard: Guard,
}

impl Newborn {
    /// Output is kept up to `kept` bytes a stream.
    pub(crate) fn new(argv: Argv, started: Started, kept: usize, attached: Attached) -> Self {
        let Started {
            child,
            stdout,
            stderr,
        } = started;
        let shared = Arc::new(Shared {
            pid: child.id(),
            argv,
            child,
            stdout: Arc::new(Ring::new(kept)),
            stderr: Arc::new(Ring::new(kept)),
            exit: Once::new(),
            signalled: AtomicBool::new(false),
        });
        Self {
            shared,
            stdout,
            stderr,
            attached,
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Makes the threads, later and elsewhere, so that they cost the caller no time. Without them
    /// the process would wedge on its output and never be reaped, so a system that has no thread to
    /// spare costs it its life, and whoever waits is told.
    pub(crate) fn serve_later(self) {
        let shared = self.shared();
        if spawner_thread::run_later(move || self.serve()).is_err() {
            end_unserved(&shared);
        }
    }

    fn serve(self) {
        let Self {
            shared,
            stdout,
            stderr,
            attached,
        } = self;
        let served = drain_on_thread("qemu-stdout", stdout, &shared.stdout)
            .and_then(|()| drain_on_thread("qemu-stderr", Some(stderr), &shared.stderr))
            .and_then(|()| {
                let shared = Arc::clone(&shared);
                spawn_thread("qemu-wait", move || await_end(&shared, Some(attached)))
            });
        if served.is_err() {
            end_unserved(&shared);
        }
    }
}

fn end_unserved(shared: &Shared) {
    shared.child.kill();
    shared.stdout.close();
    shared.stderr.close();
    await_end(shared, None);
}

fn drain_on_thread(name: &str, pipe: Option<PipeReader>, ring: &Arc<Ring>) -> io::Result<()> {
    let Some(pipe) = pipe else {
        ring.close();
        return Ok(());
    };
    let ring = Arc::clone(ring);
    spawn_thread(name, move || output::drain(pipe, &ring))
}

fn await_end(shared: &Shared, attached: Option<Attached>) {
    let status = shared.child.wait().ok();
    let deadline = Instant::now() + DRAIN_WAIT;
    shared.stdout.wait_closed(DRAIN_QUIET, deadline);
    shared.stderr.wait_closed(DRAIN_QUIET, deadline);
    // Before anybody is told, so that whoever waited finds it gone.
    if let Some(Attached {
        folder,
        sockets,
        guard,
    }) = attached
    {
        sockets.iter().for_each(|path| remove_stale_socket(path));
        drop(folder);
        guard.release();
    }
    let name = shared
        .argv
        .program()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    shared
        .exit
        .set(Exit::new(&name, status, Tail::of(&shared.stderr)));
}

/// A QEMU that is killed leaves its sockets. One that is listened on is somebody else's by now, and
/// stays.
#[cfg(unix)]
fn remove_stale_socket(path: &Path) {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused =
        || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && refused() {
        // What can't be removed is named by the next start at this path.
        let _ = std::fs::remove_file(path);
    }
}

/// There is never one.
#[cfg(not(unix))]
fn remove_stale_socket(_: &Path) {}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::remove_stale_socket;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("socket"), folder.path().join("file"));
        std::fs::write(&file, "precious").unwrap();
        remove_stale_socket(&file);
        assert!(file.exists());
        let listener = UnixListener::bind(&socket).unwrap();
        remove_stale_socket(&socket);
        assert!(socket.exists(), "somebody listens");
        drop(listener);
        remove_stale_socket(&socket);
        assert!(!socket.exists());
        remove_stale_socket(&socket);
    }
}
