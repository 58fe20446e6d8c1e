//! Who listens on a unix socket, and who is connected to it.
//!
//! An accepted connection bears its listener's path.

use std::io;
use std::path::{Path, PathBuf};

use super::netlink::{UnixSocket, unix_sockets};
use super::{ListenState, Listener, not_the_owners, owner};
use crate::reachability::UnknownReason;

pub(super) fn inspect(path: &Path, owner: Option<u32>) -> ListenState {
    let sockets = match unix_sockets() {
        Ok(sockets) => sockets,
        Err(error) => return ListenState::Unknown(UnknownReason::Unreadable(error.to_string())),
    };
    let file_is_there = match is_there(path) {
        Ok(is_there) => is_there,
        Err(error) => {
            let why = format!("{}: {error}", path.display());
            return ListenState::Unknown(UnknownReason::Unreadable(why));
        }
    };
    let wanted = resolve(path);
    let listeners: Vec<&UnixSocket> = sockets
        .iter()
        .filter(|socket| socket.listens && is_bound_to(socket, path, wanted.as_deref()))
        .collect();
    // A listener whose file was removed is still in the table, but nobody can connect to it.
    if listeners.is_empty() || !file_is_there {
        return ListenState::Absent;
    }
    let inodes: Vec<u64> = listeners.iter().map(|socket| socket.inode).collect();
    if let Some(state) = not_the_owners(owner, &inodes) {
        return state;
    }
    if listeners.len() > 1 {
        return ListenState::Unknown(UnknownReason::SeveralListeners);
    }
    let is_accepted = |socket: &&UnixSocket| !socket.listens && socket.path == listeners[0].path;
    ListenState::Present(Listener {
        attached: sockets.iter().filter(is_accepted).count(),
        leaving: 0,
        queued: listeners[0].queue as usize,
    })
}

/// A file that may not be seen is not called absent: what a link or a relative path leads to is not
/// known then, either.
fn is_there(path: &Path) -> io::Result<bool> {
    match path.try_exists() {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        known => known,
    }
}

/// The table has the path as it was bound: it may be relative to the folder its process was in.
fn is_bound_to(listener: &UnixSocket, path: &Path, wanted: Option<&Path>) -> bool {
    if listener.path == path && path.is_absolute() {
        return true;
    }
    let Some(wanted) = wanted.filter(|wanted| wanted.file_name() == listener.path.file_name())
    else {
        return false;
    };
    if listener.path.is_absolute() {
        return resolve(&listener.path).as_deref() == Some(wanted);
    }
    let process = owner::find(&[listener.inode]);
    let folder = process.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok());
    folder
        .and_then(|folder| resolve(&folder.join(&listener.path)))
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn counts(path: &Path) -> (usize, usize) {
        match inspect(path, Some(std::process::id())) {
            ListenState::Present(seen) => (seen.attached, seen.queued),
            other => panic!("{}: {other:?}", path.display()),
        }
    }

    #[test]
    fn the_real_table_tells_absent_free_queued_attached_and_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.sock");
        assert_eq!(inspect(&path, None), ListenState::Absent);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(counts(&path), (0, 0));
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(counts(&path), (0, 1));
        let accepted = listener.accept().unwrap();
        assert_eq!(counts(&path), (1, 0));
        drop((client, accepted));
        assert_eq!(counts(&path), (0, 0));
        drop(listener);
        assert_eq!(inspect(&path, None), ListenState::Absent);
    }

    #[test]
    fn a_path_through_a_link_or_relative_is_the_same_socket() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let _listener = UnixListener::bind(folder.path().join("gdb.sock")).unwrap();
        assert_eq!(counts(&link.join("gdb.sock")), (0, 0));
        assert_eq!(inspect(&link.join("other.sock"), None), ListenState::Absent);
    }

    #[test]
    fn a_file_put_in_the_place_of_a_live_listener_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gdb.sock");
        let _first = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(inspect(&path, None), ListenState::Absent);
        let _second = UnixListener::bind(&path).unwrap();
        assert_eq!(
            inspect(&path, None),
            ListenState::Unknown(UnknownReason::SeveralListeners)
        );
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
            inspect(&path, None),
            ListenState::Unknown(UnknownReason::Unreadable(_))
        ));
        // Below a file there is nothing, which is no failure to see.
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(inspect(&file.join("gdb.sock"), None), ListenState::Absent);
    }
}
