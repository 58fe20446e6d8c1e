//! The files that the program writes: never over one that it reads, and nothing waits to open them.

use std::fs::{File, OpenOptions, metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::config_file;

/// Opens a file to append to, and makes it where it is missing. What was in it stays until
/// [`empty`].
///
/// Two runs that write one file so leave each other's lines whole. `others` are the files that it
/// must not be, and what they are.
///
/// # Errors
/// It is one of the others, by this or another name; it is a pipe that nobody reads; or the
/// system's reason.
pub(crate) fn open(path: &Path, others: &[(&Path, &str)]) -> io::Result<File> {
    for (other, what) in others {
        if is_same(path, other) {
            return Err(io::Error::other(format!("it is {what}")));
        }
    }
    if path
        .file_name()
        .is_some_and(|name| name == config_file::NAME)
    {
        return Err(io::Error::other("it is a configuration file"));
    }
    // A pipe without a reader would hold up its opening, a terminal might, too; and the program is
    // not to be given a terminal.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    opened.map_err(|error| match metadata(path) {
        Ok(file) if file.file_type().is_fifo() && is(&error, Errno::NXIO) => {
            io::Error::other("it is a pipe that nobody reads; start its reader first")
        }
        _ => error,
    })
}

/// Takes out what was in it, where it is a file on a disk.
pub(crate) fn empty(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => file.set_len(0),
        false => Ok(()),
    }
}

/// Whether two paths name one file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (metadata(one), metadata(other)) {
        (Ok(one), Ok(other)) => {
            one.file_type().is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
        }
        _ => false,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
