//! The kernel's table of unix sockets, `/proc/net/unix`.
//!
//! Read here and not by the crate procfs, whose reader (0.18) cuts a path at its first space, drops
//! the mark that tells a listener, and gives the whole table up where any path of any process is
//! not UTF-8.
//!
//! An accepted connection bears its listener's path. One that waits to be accepted does too, and
//! has no inode yet.

use std::ffi::OsStr;
use std::io;
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
    let file_is_there = match is_there(path) {
        Ok(is_there) => is_there,
        Err(error) => {
            return Look::Unknown(Blind::Unreadable(format!("{}: {error}", path.display())));
        }
    };
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
    if listeners.is_empty() || !file_is_there {
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

/// A file that may not be seen is not called absent: what a link or a relative path leads to cannot
/// be told then, either.
fn is_there(path: &Path) -> io::Result<bool> {
    match path.try_exists() {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        known => known,
    }
}

/// The table has the path as it was bound: it may be relative to the folder its process was in.
fn is_bound_to(listener: &Entry<'_>, path: &Path, wanted: Option<&Path>) -> bool {
    if listener.path == path && path.is_absolute() {
        return true;
    }
    let Some(wanted) = wanted.filter(|wanted| wanted.file_name() == listener.path.file_name())
    else {
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

/// One line: slot, reference count, protocol, flags, type, state, inode, and perhaps a path, which
/// may hold spaces.
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_line_is_read_with_a_path_of_any_bytes() {
        let line = b"00000000bcc76b6a: 00000002 00000000 00010000 0001 01    42 /tmp/a  b\xff.sock";
        let entry = parse(line).unwrap();
        assert_eq!(
            (entry.flags, entry.kind, entry.inode),
            (ACCEPTS, STREAM, 42)
        );
        assert_eq!(entry.path.as_os_str().as_bytes(), b"/tmp/a  b\xff.sock");
        for bad in [
            &b""[..],
            b"Num       RefCount Protocol Flags    Type St Inode Path",
            b"0: 1 2 0 1 1 42",
            b"\xff \xff",
        ] {
            assert_eq!(parse(bad), None);
        }
    }

    fn counts(path: &Path) -> (usize, usize) {
        match look(path, Some(std::process::id())) {
            Look::Present(seen) => (seen.attached, seen.queued),
            other => panic!("{}: {other:?}", path.display()),
        }
    }

    #[test]
    fn the_real_table_tells_absent_free_queued_attached_and_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.sock");
        assert_eq!(look(&path, None), Look::Absent);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(counts(&path), (0, 0));
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(counts(&path), (0, 1));
        let accepted = listener.accept().unwrap();
        assert_eq!(counts(&path), (1, 0));
        drop((client, accepted));
        assert_eq!(counts(&path), (0, 0));
        drop(listener);
        assert_eq!(look(&path, None), Look::Absent);
    }

    #[test]
    fn a_path_through_a_link_or_relative_is_the_same_socket() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let _listener = UnixListener::bind(folder.path().join("gdb.sock")).unwrap();
        assert_eq!(counts(&link.join("gdb.sock")), (0, 0));
        assert_eq!(look(&link.join("other.sock"), None), Look::Absent);
    }

    #[test]
    fn a_file_put_in_the_place_of_a_live_listener_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gdb.sock");
        let _first = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look(&path, None), Look::Absent);
        let _second = UnixListener::bind(&path).unwrap();
        assert_eq!(look(&path, None), Look::Unknown(Blind::SeveralListeners));
    }

    #[test]
    fn a_file_that_cannot_be_seen_is_not_called_absent() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("gdb.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        // A link to itself cannot be followed by anybody; a forbidden folder would still be open to
        // root.
        std::fs::rename(&inner, folder.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&inner, &inner).unwrap();
        assert!(matches!(
            look(&path, None),
            Look::Unknown(Blind::Unreadable(_))
        ));
        // Below a file there is nothing, which is no failure to see.
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(look(&file.join("gdb.sock"), None), Look::Absent);
    }

    #[test]
    fn a_path_that_the_table_cannot_show_is_not_called_absent() {
        assert!(matches!(
            look(Path::new("/tmp/a\nb"), None),
            Look::Unknown(Blind::Unreadable(_))
        ));
    }
}
