//! The thread that serves one process: it drains the output, waits for the exit, reaps, cleans up,
//! and publishes how the process ended.

use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use crate::argv::command_line::Argv;
use crate::process::Shared;
use crate::process::child::Child;
use crate::process::drain::Drain;
use crate::process::exec::Started;
use crate::process::exit::Exit;
use crate::process::output::Tail;
use crate::process::parent_guard::ParentGuard;
use crate::process::ring::Ring;
use crate::process::set_once::SetOnce;

/// A process that has just been started, with what it takes to serve it.
pub(crate) struct SpawnedProcess {
    shared: Arc<Shared>,
    drain: Drain,
    attached: Attached,
}

/// What lives as long as the process does.
pub(crate) struct Attached {
    pub(crate) folder: Option<TempDir>,
    /// Sockets outside the folder, at whose paths nothing was before.
    pub(crate) sockets: Vec<PathBuf>,
    pub(crate) guard: ParentGuard,
}

impl SpawnedProcess {
    /// Up to `kept` bytes of each output stream are kept.
    ///
    /// # Errors
    /// The exit can't be waited for; the process was killed and reaped.
    pub(crate) fn new(
        argv: Argv,
        started: Started,
        kept: usize,
        attached: Attached,
    ) -> io::Result<Self> {
        let Started {
            child,
            stdout,
            stderr,
        } = started;
        let [stdout_ring, stderr_ring] = [(); 2].map(|()| Arc::new(Ring::new(kept)));
        let streams: [(Option<PipeReader>, _); 2] =
            [(stdout, &stdout_ring), (Some(stderr), &stderr_ring)];
        let mut piped = Vec::new();
        for (pipe, ring) in streams {
            match pipe {
                Some(pipe) => piped.push((pipe, Arc::clone(ring))),
                None => ring.close(),
            }
        }
        let drain = exit_notice(&child).and_then(|notice| Drain::new(piped.into_iter(), notice));
        let drain = drain.inspect_err(|_| end_unserved(&child))?;
        let shared = Arc::new(Shared {
            pid: child.id(),
            argv,
            child,
            stdout: stdout_ring,
            stderr: stderr_ring,
            exit: SetOnce::new(),
            signalled: AtomicBool::new(false),
        });
        Ok(Self {
            shared,
            drain,
            attached,
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Drains, reaps and cleans up; returns when all of that is done.
    pub(crate) fn serve(self) {
        let Self {
            shared,
            mut drain,
            attached,
        } = self;
        drain.until_exit();
        let status = shared.child.wait().ok();
        drain.rest();
        // Before the exit is published, so that who waited for it finds folder and sockets gone.
        attached.clean_up();
        publish_exit(&shared, status);
    }
}

#[cfg(unix)]
fn exit_notice(child: &Child) -> io::Result<std::os::fd::OwnedFd> {
    crate::process::exit_notice::exit_notice(child.pid())
}

#[cfg(not(unix))]
fn exit_notice(_: &Child) -> io::Result<()> {
    Ok(())
}

/// Kills and reaps a child that no thread will serve.
pub(crate) fn end_unserved(child: &Child) {
    child.kill();
    // What can fail is that something else has reaped it.
    let _ = child.wait();
}

fn publish_exit(shared: &Shared, status: Option<std::process::ExitStatus>) {
    let program = shared.argv.program().file_name().unwrap_or_default();
    let stderr = Tail::of(&shared.stderr);
    let signalled = shared.signalled.load(Ordering::Relaxed);
    let exit = Exit::new(&program.to_string_lossy(), status, signalled, stderr);
    shared.exit.set(exit);
}

impl Attached {
    fn clean_up(self) {
        self.sockets
            .iter()
            .for_each(|path| remove_stale_socket(path));
        drop(self.folder);
        self.guard.release();
    }
}

/// A QEMU that was killed leaves its sockets. One that is listened on belongs to another process
/// by now, and stays.
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
