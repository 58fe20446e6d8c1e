//! The files that the program writes: made anew, but never over the firmware that it is to run.

use std::fs::{File, metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Makes the file, or empties one that is there.
///
/// # Errors
/// It is the firmware, by this or another name; or the system's reason. Then it is as it was.
pub(crate) fn create(path: &Path, firmware: &Path) -> io::Result<File> {
    if let (Ok(file), Ok(firmware)) = (metadata(path), metadata(firmware))
        && (file.dev(), file.ino()) == (firmware.dev(), firmware.ino())
    {
        return Err(io::Error::other("it is the firmware"));
    }
    File::create(path)
}
