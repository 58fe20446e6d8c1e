//! Which process a socket belongs to, by the links in `/proc/PID/fd`.

use std::fs::{read_dir, read_link};
use std::io;
use std::os::unix::ffi::OsStrExt;

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
    match process_holds(pid, inodes) {
        Ok(true) => Holds::Yes,
        Ok(false) => Holds::No,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Holds::No,
        Err(_) => Holds::Hidden,
    }
}

/// The process that has one of the sockets open, as far as this user may see. Looks through every
/// process: only for the report of something that went wrong.
pub(super) fn find(inodes: &[u64]) -> Option<u32> {
    read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| process_holds(*pid, inodes).unwrap_or(false))
}

fn process_holds(pid: u32, inodes: &[u64]) -> io::Result<bool> {
    let wanted: Vec<_> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for entry in read_dir(format!("/proc/{pid}/fd"))? {
        // A file that closes while the folder is read is no error.
        let target = entry.and_then(|entry| read_link(entry.path()));
        let target = target.as_ref().map(|target| target.as_os_str().as_bytes());
        if wanted
            .iter()
            .any(|wanted| target.is_ok_and(|target| target == wanted.as_bytes()))
        {
            return Ok(true);
        }
    }
    Ok(false)
}
