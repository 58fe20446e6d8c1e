//! What kind of file a firmware is, told by what is in it, never by its name.

use std::io::Read as _;
use std::path::Path;

use crate::firmware::{FirmwareError, open};

/// What a firmware file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// An ELF file, for [`MachineSpec::firmware`](crate::MachineSpec::firmware).
    Elf,
    /// An Intel HEX file, for [`MachineSpec::intel_hex`](crate::MachineSpec::intel_hex).
    IntelHex,
    /// Something else: a raw image, perhaps, which only its author can tell
    /// ([`MachineSpec::raw_image`](crate::MachineSpec::raw_image)).
    Unknown,
}

/// Enough for the first lines of a text.
const START_BYTES: u64 = 1024;

impl Format {
    /// Tells what a file holds by its beginning.
    ///
    /// # Errors
    /// There is no such file, it is none, it is empty, or it can't be read.
    pub fn of(path: &Path) -> Result<Self, FirmwareError> {
        let (file, _) = open(path)?;
        let mut start = Vec::new();
        match file.take(START_BYTES).read_to_end(&mut start) {
            Ok(_) => Ok(Self::of_start(&start)),
            Err(source) => Err(FirmwareError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Tells it by the first bytes.
    pub(crate) fn of_start(start: &[u8]) -> Self {
        let text = start
            .iter()
            .all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace());
        match start {
            [0x7f, b'E', b'L', b'F', ..] => Self::Elf,
            // A record begins with its number of bytes.
            [b':', high, low, ..]
                if text && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                Self::IntelHex
            }
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Format;
    use crate::firmware::FirmwareError;

    #[test]
    fn told_by_what_is_in_it() {
        let rows: [(&[u8], Format); 7] = [
            (b"\x7fELF\x01", Format::Elf),
            (b":020000040000FA\r\n:10", Format::IntelHex),
            (b":10000000a0\n", Format::IntelHex),
            (b":10\0", Format::Unknown),
            (b": a comment", Format::Unknown),
            (b"S00600004844521B", Format::Unknown),
            (b"\0\0\x01\x20", Format::Unknown),
        ];
        for (start, expected) in rows {
            assert_eq!(
                Format::of_start(start),
                expected,
                "{}",
                start.escape_ascii()
            );
        }
    }

    #[test]
    fn a_file_is_looked_into_and_a_missing_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firmware.elf");
        std::fs::write(&path, b":00000001FF\n").unwrap();
        assert_eq!(Format::of(&path).unwrap(), Format::IntelHex);
        assert!(matches!(
            Format::of(folder.path()),
            Err(FirmwareError::Folder { .. })
        ));
        assert!(matches!(
            Format::of(Path::new("no/such.elf")),
            Err(FirmwareError::Missing { .. })
        ));
    }
}
