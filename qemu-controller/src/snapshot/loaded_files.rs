//! The files that QEMU loaded at its start, and their hash.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What QEMU loaded at its start, as it was then: the files may be rebuilt while the session lasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadedFiles {
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Length and modification time: they change when the file is written.
type Stamp = (u64, SystemTime);

impl LoadedFiles {
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        Self {
            files: files
                .into_iter()
                .map(|file| (file.to_owned(), stamp(file)))
                .collect(),
        }
    }

    /// `None` where there is nothing, or where a file is not what it was at the start.
    pub(crate) fn hash(&self) -> Option<String> {
        let mut hash = Fnv::default();
        for (path, stamped) in &self.files {
            let bytes = std::fs::read(path).ok()?;
            if stamped.is_none() || stamp(path) != *stamped {
                return None;
            }
            hash.write(&bytes);
        }
        (!self.files.is_empty()).then(|| hash.to_string())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// FNV-1a of 128 bits, taken over words of eight bytes: it tells files apart that differ by chance,
/// stays the same in every version of everything, and needs no crate. It is no defence against one
/// made to collide.
pub(crate) struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn word(&mut self, word: u64) {
        self.0 =
            (self.0 ^ u128::from(word)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }

    /// A file, and where it ends.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }
}

impl fmt::Display for Fnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_is_what_it_was_at_the_start_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let hash = |contents: [&str; 2]| {
            for (path, content) in paths.iter().zip(contents) {
                std::fs::write(path, content).unwrap();
            }
            LoadedFiles::of(paths.iter().map(PathBuf::as_path))
                .hash()
                .unwrap()
        };
        let first = hash(["firmware", "more"]);
        assert_eq!((first.len(), &first), (32, &hash(["firmware", "more"])));
        let others = [
            ["firmwarf", "more"],
            ["firmware", "mor"],
            ["firmwar", "emore"],
            ["more", "firmware"],
        ];
        for other in others {
            assert_ne!(hash(other), first, "{other:?}");
        }
        let firmware = LoadedFiles::of([paths[0].as_path()]);
        std::fs::write(&paths[0], "built anew").unwrap();
        assert_eq!(firmware.hash(), None);
        assert_eq!(LoadedFiles::default().hash(), None);
        assert_eq!(
            LoadedFiles::of([folder.path().join("absent").as_path()]).hash(),
            None
        );
    }
}
