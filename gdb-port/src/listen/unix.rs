//! The kernel's table of unix sockets, `/proc/net/unix`.
//!
//! Read here and not by the crate procfs, whose reader (0.18) cuts a path at its first space, drops the mark that tells a
//! listener, and gives the whole table up where any path of any process is not UTF-8.
//!
//! An accepted connection bears its listener's path. One that waits to be accepted does too, and has no inode yet.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::owner::{self, Holds};
use super::{Listener, Look};
use crate::reachability::Blind;

const TABLE: &str = "/proc/net/unix";
/// `SO_ACCEPTCON` in the column of flags: this socket listens.
const ACCEPTS: u32 = 1 << 16;
const STREAM: u16 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry<'a> {
    flags: u32,
    kind: u16,
    inode: u64,
    path: &'a Path,
}

pub(super) fn look(path: &Path, owner: Option<u32>) -> Look {
    match std::fs::read(TABLE) {
        Ok(table) => look_in(&table, path, owner),
        Err(error) => Look::Unknown(Blind::Unreadable(format!("{TABLE}: {error}"))),
    }
}

fn look_in(table: &[u8], path: &Path, owner: Option<u32>) -> Look {
    if path.as_os_str().as_bytes().contains(&b'\n') {
        return Look::Unknown(Blind::Unreadable(format!(
            "{TABLE}: a path with a newline cannot be told there"
        )));
    }
    let entries: Vec<Entry<'_>> = table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .filter(|entry| entry.kind == STREAM)
        .collect();
    let wanted = resolve(path);
    let listeners: Vec<&Entry<'_>> = entries
        .iter()
        .filter(|entry| entry.flags & ACCEPTS != 0 && is_bound_to(entry, path, wanted.as_deref()))
        .collect();
    // A listener whose file was removed is still in the table, but nobody can connect to it.
    if listeners.is_empty() || !path.exists() {
        return Look::Absent;
    }
    let inodes: Vec<u64> = listeners.iter().map(|entry| entry.inode).collect();
    match owner.map(|pid| owner::holds(pid, &inodes)) {
        Some(Holds::No) => {
            return Look::OtherProcess {
                pid: owner::find(&inodes),
            };
        }
        Some(Holds::Hidden) => return Look::Unknown(Blind::OwnerHidden),
        None | Some(Holds::Yes) => {}
    }
    if listeners.len() > 1 {
        return Look::Unknown(Blind::SeveralListeners);
    }
    let (queued, attached): (Vec<_>, Vec<_>) = entries
        .iter()
        .filter(|entry| entry.flags & ACCEPTS == 0 && entry.path == listeners[0].path)
        .partition(|entry| entry.inode == 0);
    Look::Present(Listener {
        attached: attached.len(),
        leaving: 0,
        queued: queued.len(),
    })
}

/// The table has the path as it was bound: it may be relative to the folder its process was in.
fn is_bound_to(listener: &Entry<'_>, path: &Path, wanted: Option<&Path>) -> bool {
    if listener.path == path && path.is_absolute() {
        return true;
    }
    let Some(wanted) = wanted.filter(|wanted| wanted.file_name() == listener.path.file_name()) else {
        return false;
    };
    if listener.path.is_absolute() {
        return resolve(listener.path).as_deref() == Some(wanted);
    }
    let process = owner::find(&[listener.inode]);
    let folder = process.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok());
    folder
        .and_then(|folder| resolve(&folder.join(listener.path)))
        .as_deref()
        == Some(wanted)
}

/// The path with its folder's links followed.
fn resolve(path: &Path) -> Option<PathBuf> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Some(folder.canonicalize().ok()?.join(path.file_name()?))
}

/// One line: slot, reference count, protocol, flags, type, state, inode, and perhaps a path, which may hold spaces.
fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut rest = line;
    let mut column = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let length = rest[start..].iter().position(|byte| *byte == b' ')?;
        let (column, after) = rest[start..].split_at(length);
        rest = after;
        std::str::from_utf8(column).ok()
    };
    let (_slot, _references, _protocol) = (column()?, column()?, column()?);
    let flags = u32::from_str_radix(column()?, 16).ok()?;
    let kind = u16::from_str_radix(column()?, 16).ok()?;
    let _state = column()?;
    let inode = column()?.parse().ok()?;
    let path = Path::new(OsStr::from_bytes(rest.strip_prefix(b" ")?));
    Some(Entry {
        flags,
        kind,
        inode,
        path,
    })
}
