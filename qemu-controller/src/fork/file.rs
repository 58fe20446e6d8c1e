//! The file of a state: without a name and a header while only this program uses it, and with one
//! line before the state when it is persisted:
//! `qemu-machine-state-2 BYTES CHECKSUM RUNNING REGISTERS LOST TAKEN-WITH`. Lists have commas between
//! their items, and begin with one.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::error::StateError;
use super::{MachineState, StateFile};
use crate::snapshot::loaded_files::Fnv;
use crate::snapshot::{LostDevice, MachineFingerprint};

/// What a persisted state begins with, and the version of its format.
const MAGIC: &str = "qemu-machine-state-2";

/// More bytes than the first line can have.
const MAX_LINE: usize = 64 * 1024;

const CHUNK: usize = 64 * 1024;

impl MachineState {
    /// Writes the state to a file that outlives this program, readable by its owner alone. **It has
    /// all that the guest's memory has, keys included.** Blocks while it writes; the file has its
    /// name only when it is whole.
    ///
    /// # Errors
    /// [`StateError::File`]: it cannot be written, or there is something at the path, which is left
    /// as it is.
    pub fn persist(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let path = path.as_ref();
        self.write(path)
            .map_err(|source| StateError::file(path, source))
    }

    /// Opens a state that was [persisted](Self::persist). Blocks while the file is read once:
    /// damage is noticed here, and not by a guest.
    ///
    /// # Errors
    /// [`StateError::File`], also where the file is no state or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let path = path.as_ref();
        Self::at(path).map_err(|source| StateError::file(path, source))
    }

    /// Fills the buffer from this byte of the state on; returns fewer bytes only at its end.
    pub(super) fn read_at(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        let StateFile {
            file, start, bytes, ..
        } = &*self.inner;
        let length = bytes.saturating_sub(from).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..length], start + from)?;
        Ok(length)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut file = NamedTempFile::with_prefix_in("qemu-state-", folder)?;
        let StateFile {
            bytes,
            running,
            registers,
            lost_devices,
            taken_with,
            ..
        } = &*self.inner;
        let registers: String = registers
            .iter()
            .map(|value| format!(",{value:x}"))
            .collect();
        let lost: String = lost_devices
            .iter()
            .map(|device| match device.address {
                Some(address) => format!(",{}@{address:x}", device.kind),
                None => format!(",{}", device.kind),
            })
            .collect();
        let checksum = self.checksum()?;
        let lists = format!("{registers} {lost}");
        writeln!(
            file,
            "{MAGIC} {bytes} {checksum} {running} {lists} {taken_with}"
        )?;
        self.each_chunk(|chunk| file.write_all(chunk))?;
        file.persist_noclobber(path)?;
        Ok(())
    }

    fn at(path: &Path) -> io::Result<Self> {
        // To open something else, a FIFO for example, may block for ever.
        if !path.metadata()?.is_file() {
            return Err(damaged("it is no regular file"));
        }
        Self::read(File::open(path)?)
    }

    /// Reads a persisted state from a regular file.
    pub(crate) fn read(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut line = vec![0; MAX_LINE.min(length as usize)];
        file.read_exact_at(&mut line, 0)?;
        let no_state = || damaged("it is no saved state of a machine, or one in another form");
        let end = line
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(no_state)?;
        let line = std::str::from_utf8(&line[..end]).map_err(|_| no_state())?;
        let parts: Vec<_> = line.splitn(7, ' ').collect();
        let [MAGIC, bytes, checksum, running, registers, lost, taken_with] = parts[..] else {
            return Err(no_state());
        };
        let (Ok(bytes), Ok(running), Some(registers), Some(lost_devices), Some(taken_with)) = (
            bytes.parse(),
            running.parse(),
            items(registers, hex),
            items(lost, lost_device),
            MachineFingerprint::parse(taken_with),
        ) else {
            return Err(no_state());
        };
        let start = end as u64 + 1;
        if length - start != bytes {
            return Err(damaged("it is damaged: its length is not what it says"));
        }
        let state = Self::new(StateFile {
            file,
            start,
            bytes,
            running,
            registers,
            lost_devices,
            taken_with,
        });
        match state.checksum()? == checksum {
            true => Ok(state),
            false => Err(damaged("it is damaged: its checksum is not what it says")),
        }
    }

    fn checksum(&self) -> io::Result<String> {
        let mut hash = Fnv::default();
        for register in &self.inner.registers {
            hash.write(&register.to_le_bytes());
        }
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

/// A list with a comma before each item.
fn items<T>(list: &str, parse: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    match list.strip_prefix(',') {
        Some(items) => items.split(',').map(parse).collect(),
        None => list.is_empty().then(Vec::new),
    }
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

fn lost_device(item: &str) -> Option<LostDevice> {
    let (kind, address) = match item.split_once('@') {
        Some((kind, address)) => (kind, Some(hex(address)?)),
        None => (item, None),
    };
    Some(LostDevice {
        kind: kind.to_owned(),
        address,
    })
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn state(contents: &[u8]) -> MachineState {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(contents, 0).unwrap();
        MachineState::new(StateFile {
            file,
            start: 0,
            bytes: contents.len() as u64,
            running: true,
            registers: vec![0, u64::MAX],
            lost_devices: [("mcf-uart", Some(0xfc06_0000)), ("rx-cpu", None)]
                .map(|(kind, address)| LostDevice {
                    kind: kind.to_owned(),
                    address,
                })
                .into(),
            taken_with: MachineFingerprint::sample(),
        })
    }

    fn refusal(path: &Path) -> String {
        MachineState::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_persisted_state_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let contents: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let path = folder.path().join(length.to_string());
            let saved = state(&contents);
            saved.persist(&path).unwrap();
            // One that was read can be persisted again.
            let again = folder.path().join(format!("{length}-again"));
            MachineState::open(&path).unwrap().persist(&again).unwrap();
            let read = MachineState::open(&again).unwrap();
            assert!(read.was_running());
            assert_eq!(
                (read.bytes(), read.taken_with()),
                (length as u64, saved.taken_with())
            );
            assert_eq!(read.inner.registers, saved.inner.registers);
            assert_eq!(read.lost_devices(), saved.lost_devices());
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
        let error = state(b"x").persist(&path).unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        state(b"x")
            .persist(folder.path().join("absent/state"))
            .unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        state(b"what the machine was").persist(&path).unwrap();
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
            "qemu-machine-state-1 0 0 true a;b;1;c;d\n",
        ] {
            fs::write(&path, text).unwrap();
            assert!(refusal(&path).contains("no saved state"), "{text}");
        }
        assert!(refusal(folder.path()).ends_with("no regular file"));
    }
}
