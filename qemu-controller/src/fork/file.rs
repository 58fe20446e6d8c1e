//! The file of a state: unnamed while it is only used here, and with one line before it when it is
//! kept.
//!
//! The line: `qemu-machine-state-1 BYTES CHECKSUM RUNNING TAKEN-WITH`. What follows is what QEMU
//! takes in.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::error::StateError;
use super::{Kept, MachineState};
use crate::snapshot::identity::{Fnv, Identity};

/// What a kept state begins with, and the version of its form.
const MAGIC: &str = "qemu-machine-state-1";

/// More than the first line can have.
const LONGEST_LINE: usize = 1024;

const CHUNK: usize = 64 * 1024;

impl MachineState {
    /// Keeps the state in a file that outlives this program, readable by its owner alone. **It has
    /// all that the guest's memory has, keys included.** Blocks while it is written; whole before
    /// it has its name.
    ///
    /// # Errors
    /// [`StateError::File`]: it cannot be written, or there is something at the path, which is left as it is.
    pub fn keep(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let path = path.as_ref();
        self.write(path).map_err(|source| StateError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Opens a state that was [kept](Self::keep). Blocks while it is read through once: what was
    /// damaged since is noticed here, and not by a guest.
    ///
    /// # Errors
    /// [`StateError::File`], also where it is no such file or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let path = path.as_ref();
        Self::read(path).map_err(|source| StateError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Fills the buffer, as far as there is so much, from this byte of the state on.
    pub(crate) fn read_at(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let left = self
            .inner
            .bytes
            .saturating_sub(from)
            .min(buffer.len() as u64) as usize;
        self.inner
            .file
            .read_exact_at(&mut buffer[..left], self.inner.start + from)?;
        Ok(left)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut file = NamedTempFile::with_prefix_in("qemu-state-", folder)?;
        let Kept {
            bytes,
            running,
            taken_with,
            ..
        } = &*self.inner;
        let checksum = self.checksum()?;
        writeln!(file, "{MAGIC} {bytes} {checksum} {running} {taken_with}")?;
        self.each_chunk(|chunk| file.write_all(chunk))?;
        file.persist_noclobber(path)?;
        Ok(())
    }

    fn read(path: &Path) -> io::Result<Self> {
        // Opening something else may wait for ever.
        if !path.metadata()?.is_file() {
            return Err(damaged("it is no regular file"));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut line = vec![0; LONGEST_LINE.min(length as usize)];
        file.read_exact_at(&mut line, 0)?;
        let no_state = || damaged("it is no saved state of a machine, or one in another form");
        let end = line
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(no_state)?;
        let line = std::str::from_utf8(&line[..end]).map_err(|_| no_state())?;
        let parts: Vec<_> = line.splitn(5, ' ').collect();
        let [MAGIC, bytes, checksum, running, taken_with] = parts[..] else {
            return Err(no_state());
        };
        let note = (
            bytes.parse().ok(),
            running.parse().ok(),
            Identity::read(taken_with),
        );
        let (Some(bytes), Some(running), Some(taken_with)) = note else {
            return Err(no_state());
        };
        let start = end as u64 + 1;
        if length - start != bytes {
            return Err(damaged("it is damaged: its length is not what it says"));
        }
        let state = Self::new(Kept {
            file,
            start,
            bytes,
            running,
            taken_with,
        });
        match state.checksum()? == checksum {
            true => Ok(state),
            false => Err(damaged("it is damaged: its checksum is not what it says")),
        }
    }

    fn checksum(&self) -> io::Result<String> {
        let mut hash = Fnv::default();
        self.each_chunk(|chunk| {
            hash.write(chunk);
            Ok(())
        })?;
        Ok(hash.to_string())
    }

    fn each_chunk(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let (mut chunk, mut at) = (vec![0; CHUNK], 0);
        loop {
            match self.read_at(&mut chunk, at)? {
                0 => return Ok(()),
                length => take(&chunk[..length])?,
            }
            at += CHUNK as u64;
        }
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs;

    use super::*;

    fn state(contents: &[u8]) -> MachineState {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(contents, 0).unwrap();
        MachineState::new(Kept {
            file,
            start: 0,
            bytes: contents.len() as u64,
            running: true,
            taken_with: Identity::sample(),
        })
    }

    fn refusal(path: &Path) -> String {
        let error = MachineState::open(path).unwrap_err();
        format!("{error}: {}", error.source().unwrap())
    }

    #[test]
    fn a_kept_state_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let contents: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let path = folder.path().join(length.to_string());
            let saved = state(&contents);
            saved.keep(&path).unwrap();
            // A state that was kept can be kept again.
            let again = folder.path().join(format!("{length}-again"));
            MachineState::open(&path).unwrap().keep(&again).unwrap();
            let read = MachineState::open(&again).unwrap();
            assert!(read.was_running());
            assert_eq!(
                (read.bytes(), read.taken_with()),
                (length as u64, saved.taken_with())
            );
            let mut back = Vec::new();
            read.each_chunk(|chunk| back.write_all(chunk)).unwrap();
            assert_eq!(back, contents);
        }
    }

    #[test]
    fn nothing_is_replaced_and_nothing_half_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, "precious").unwrap();
        let error = state(b"x").keep(&path).unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        state(b"x")
            .keep(folder.path().join("absent/state"))
            .unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        state(b"what the machine was").keep(&path).unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            refusal(&path);
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert!(refusal(&path).ends_with("its length is not what it says"));
        let first = good.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for at in first..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, bad).unwrap();
            assert!(refusal(&path).ends_with("its checksum is not what it says"));
        }
        for text in [
            "",
            "\n",
            "QFI\u{fb}",
            "qemu-machine-state-2 0 0 true a;b;1;c;d\n",
        ] {
            fs::write(&path, text).unwrap();
            assert!(refusal(&path).contains("no saved state"), "{text}");
        }
        assert!(refusal(folder.path()).ends_with("no regular file"));
    }
}
