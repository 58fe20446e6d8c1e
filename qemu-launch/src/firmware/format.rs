//! What kind of file a firmware is, by its contents and never by its name.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use crate::firmware::{Advice, FirmwareError, open};

/// What a firmware file holds. Its `Display` names it: `an Intel HEX file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// An ELF file, for [`MachineSpec::firmware`](crate::MachineSpec::firmware).
    Elf,
    /// An Intel HEX file, for [`MachineSpec::intel_hex`](crate::MachineSpec::intel_hex).
    IntelHex,
    /// A Motorola S-record file, which QEMU does not load.
    SRecord,
    /// A UF2 file, made for a boot loader that is a USB drive. QEMU does not load it.
    Uf2,
    /// A file compressed by gzip.
    Gzip,
    /// What Git LFS leaves where the file itself was not downloaded.
    LfsPointer,
    /// A Linux kernel's image, which QEMU's `-kernel` knows by itself.
    LinuxKernel,
    /// A Windows program.
    WindowsProgram,
    /// Text of any other kind. It is never a raw image.
    Text,
    /// Something else: a raw image, perhaps, which only its author can tell
    /// ([`MachineSpec::raw_image`](crate::MachineSpec::raw_image)).
    Unknown,
}

/// Enough for the first lines of a text, and for the magic words of Linux.
const START_BYTES: u64 = 1024;

impl Format {
    /// What a file holds, by its beginning.
    ///
    /// # Errors
    /// There is no such file, it is none, it is empty, or it can't be read.
    pub fn of(path: &Path) -> Result<Self, FirmwareError> {
        let (file, _) = open(path)?;
        let mut start = Vec::new();
        match file.take(START_BYTES).read_to_end(&mut start) {
            Ok(_) => Ok(Self::of_start(&start)),
            Err(error) => Err(FirmwareError::io(path, error)),
        }
    }

    /// By the first bytes.
    pub(crate) fn of_start(start: &[u8]) -> Self {
        match start {
            [0x7f, b'E', b'L', b'F', ..] => Self::Elf,
            [b'U', b'F', b'2', b'\n', ..] => Self::Uf2,
            [0x1f, 0x8b, ..] => Self::Gzip,
            _ if is_linux(start) => Self::LinuxKernel,
            _ if is_text(start) => Self::of_text(start),
            [b'M', b'Z', ..] => Self::WindowsProgram,
            _ => Self::Unknown,
        }
    }

    /// By its first line that is not empty and no comment.
    fn of_text(start: &[u8]) -> Self {
        let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
        if text.starts_with(b"version https://git-lfs") {
            return Self::LfsPointer;
        }
        let mut lines = text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
        let is_comment = |line: &[u8]| matches!(line, [] | [b'#' | b';', ..]);
        match lines.find(|line| !is_comment(line)).unwrap_or_default() {
            // A record begins with its number of bytes.
            [b':', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                Self::IntelHex
            }
            [b'S', b'0'..=b'9', high, ..] if high.is_ascii_hexdigit() => Self::SRecord,
            _ => Self::Text,
        }
    }

    /// What to do with it where an ELF file is wanted.
    pub(crate) fn advice(self) -> Advice {
        Advice::OtherFile(match self {
            Self::IntelHex => return Advice::IntelHex,
            Self::LinuxKernel => return Advice::Unchecked,
            Self::Unknown => return Advice::RawImage,
            Self::Elf => "it is one",
            Self::SRecord => "convert it: objcopy -I srec -O ihex",
            Self::Uf2 => "use the ELF file that it was made of",
            Self::Gzip => "unpack it with gunzip",
            Self::LfsPointer => "download the file itself with git lfs pull",
            Self::WindowsProgram => "build for the bare-metal target",
            Self::Text => "is it the source instead of the build's result?",
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Elf => "an ELF file",
            Self::IntelHex => "an Intel HEX file",
            Self::SRecord => "a Motorola S-record file",
            Self::Uf2 => "a UF2 file",
            Self::Gzip => "compressed by gzip",
            Self::LfsPointer => "a Git LFS pointer and not the file itself",
            Self::LinuxKernel => "a Linux kernel's image",
            Self::WindowsProgram => "a Windows program",
            Self::Text => "a text file",
            Self::Unknown => "no ELF file",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What some editors put in front of a text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Graphic characters and white space, of any encoding that has ASCII's; ^Z is what CP/M and DOS
/// ended a text with.
fn is_text(start: &[u8]) -> bool {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    let plain = |&b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace() || b == 0x1a;
    text.iter().all(plain)
}

/// By the magic words of `Documentation/arch/*/` in Linux: 32-bit Arm's zImage, the Images of
/// AArch64 and RISC-V, and x86's bzImage. Some of them begin like a Windows program, for EFI's
/// sake.
fn is_linux(start: &[u8]) -> bool {
    let has = |at: usize, magic: &[u8]| start.get(at..at + magic.len()) == Some(magic);
    has(0x24, &0x016f_2818_u32.to_le_bytes())
        || has(0x38, b"ARMd")
        || has(0x38, b"RSC\x05")
        || has(0x202, b"HdrS")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Format;
    use crate::firmware::FirmwareError;

    #[test]
    fn by_contents() {
        let rows: [(&[u8], Format); 14] = [
            (b"\x7fELF\x01", Format::Elf),
            (b":020000040000FA\r\n:10", Format::IntelHex),
            (b":10000000a0\n", Format::IntelHex),
            (b"\xef\xbb\xbf:10000000a0\n", Format::IntelHex),
            (b"# made by hand\n\n:10000000a0\n\x1a", Format::IntelHex),
            (b":10\0", Format::Unknown),
            (b": a comment", Format::Text),
            (b"S00600004844521B", Format::SRecord),
            (b"Some text", Format::Text),
            (b"UF2\nWQ]\x9e", Format::Uf2),
            (b"\x1f\x8b\x08", Format::Gzip),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
                Format::LfsPointer,
            ),
            (b"MZ\x90\0", Format::WindowsProgram),
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
        for path in [folder.path(), Path::new("no/such.elf")] {
            let error = Format::of(path).unwrap_err();
            assert!(
                matches!(error, FirmwareError::Unreadable { .. }),
                "{error:?}"
            );
        }
    }
}
