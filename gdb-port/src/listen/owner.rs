//! Which process a socket belongs to, by the inodes among its open files.

use procfs::process::{FDTarget, Process, all_processes};

/// Whether one process has a socket open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// The process's files are hidden from this user.
    Hidden,
}

/// Whether process `pid` has any of the sockets `inodes` open. A process that does not exist has
/// none.
pub(super) fn holds(pid: u32, inodes: &[u64]) -> Holds {
    let Ok(pid) = i32::try_from(pid) else {
        return Holds::No;
    };
    match Process::new(pid).and_then(|process| process_holds(&process, inodes)) {
        Ok(true) => Holds::Yes,
        Ok(false) | Err(procfs::ProcError::NotFound(_)) => Holds::No,
        Err(_) => Holds::Hidden,
    }
}

/// The process that has one of the sockets open, as far as this user may see. Looks through every
/// process: only for the report of something that went wrong.
pub(super) fn find(inodes: &[u64]) -> Option<u32> {
    all_processes()
        .ok()?
        .filter_map(Result::ok)
        .find(|process| process_holds(process, inodes).unwrap_or(false))
        .and_then(|process| u32::try_from(process.pid()).ok())
}

fn process_holds(process: &Process, inodes: &[u64]) -> procfs::ProcResult<bool> {
    // A file that closes while the folder is read is no error.
    let mut files = process.fd()?.filter_map(Result::ok);
    Ok(files.any(|file| matches!(file.target, FDTarget::Socket(inode) if inodes.contains(&inode))))
}
