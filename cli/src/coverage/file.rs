//! A file in lcov's form that several runs may write, one at a time.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu_controller::coverage::Coverage;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::written;

/// How long another run may take to add its coverage to the same file.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// The pause between two looks whether it has.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct LcovFile {
    path: PathBuf,
    file: File,
}

impl LcovFile {
    /// Opens it, where it is none of the others; what is in it stays for now.
    pub(super) fn open(path: &Path, others: &[(&Path, &str)]) -> Result<Self, Failure> {
        let path = path.to_owned();
        match written::open(&path, others) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Failure::CoverageFile { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it, added to what is there if that is wanted; what it has then.
    pub(super) async fn write(
        &self,
        mut coverage: Coverage,
        merge: bool,
    ) -> Result<Coverage, Failure> {
        let failed = |source| Failure::CoverageFile {
            path: self.path.clone(),
            source,
        };
        lock(&self.file).await.map_err(failed)?;
        let is_file = self.file.metadata().is_ok_and(|file| file.is_file());
        if merge && is_file {
            let before = read(&self.path).map_err(failed)?;
            coverage.merge(&before);
        }
        let mut text = Vec::new();
        let made = coverage.to_lcov(&mut text);
        let replaced = made.and_then(|()| {
            written::empty(&self.file)?;
            (&self.file).write_all(&text)
        });
        // Also unlocked when the program ends.
        let _ = flock(&self.file, FlockOperation::Unlock);
        replaced.map_err(failed)?;
        Ok(coverage)
    }
}

/// What is in a file of lcov's form.
pub(super) fn read(path: &Path) -> io::Result<Coverage> {
    let file = BufReader::new(File::open(path)?);
    Coverage::from_lcov(file).map_err(io::Error::other)
}

/// Waits for another run that writes the file.
async fn lock(file: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_DEADLINE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            // Not a file that can be locked: a pipe, or a file system without locks.
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOLCK) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < until => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(Errno::AGAIN) => {
                return Err(io::Error::other("another program keeps it locked"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
