//! What is in the guest's memory once QEMU has loaded every file of the machine.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::firmware::elf::Elf;
use crate::firmware::intel_hex::IntelHex;

/// All that is loaded, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pieces: Vec<Piece>,
    /// Something is loaded of which nothing is known.
    pub(crate) has_unknown: bool,
}

/// Bytes that one file puts into memory.
#[derive(Debug)]
struct Piece {
    path: PathBuf,
    /// Where QEMU loads it.
    start: u64,
    /// Where the program sees it.
    virtual_start: u64,
    /// With what is zeroed behind it.
    memory_size: u64,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    /// This many bytes of the file from this offset on.
    InFile {
        offset: u64,
        size: u64,
    },
    Bytes(Vec<u8>),
}

impl Contents {
    fn size(&self) -> u64 {
        match self {
            Self::InFile { size, .. } => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// The first two words of a Cortex-M vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vectors {
    pub(crate) stack: u32,
    pub(crate) reset: u32,
}

impl Loaded {
    pub(crate) fn add_elf(&mut self, path: &Path, elf: &Elf) {
        let segments = elf.segments.iter().filter(|segment| segment.file_size > 0);
        self.pieces.extend(segments.map(|segment| Piece {
            path: path.to_owned(),
            start: segment.address,
            virtual_start: segment.virtual_address,
            memory_size: segment.memory_size,
            contents: Contents::InFile {
                offset: segment.offset,
                size: segment.file_size,
            },
        }));
    }

    pub(crate) fn add_raw(&mut self, path: &Path, address: u64, size: u64) {
        self.pieces.push(Piece {
            path: path.to_owned(),
            start: address,
            virtual_start: address,
            memory_size: size,
            contents: Contents::InFile { offset: 0, size },
        });
    }

    pub(crate) fn add_hex(&mut self, path: &Path, hex: IntelHex) {
        let pieces = hex.pieces.into_iter().map(|(start, bytes)| Piece {
            path: path.to_owned(),
            start,
            virtual_start: start,
            memory_size: bytes.len() as u64,
            contents: Contents::Bytes(bytes),
        });
        self.pieces.extend(pieces);
    }

    /// Where each piece begins, and the file that it is of.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (u64, &Path)> {
        self.pieces.iter().map(|piece| (piece.start, &*piece.path))
    }

    /// Whether something is loaded there, by QEMU's address or the program's.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.pieces.iter().any(|piece| {
            [piece.start, piece.virtual_start].iter().any(|start| {
                (address.checked_sub(*start)).is_some_and(|offset| offset < piece.memory_size)
            })
        })
    }

    /// What is loaded at this address, and by which file; `None` where nothing is, or where it is
    /// shorter than two words.
    pub(crate) fn vectors_at(&self, address: u64) -> Option<(Vectors, &Path)> {
        let piece = self.pieces.iter().find(|piece| {
            (address.checked_sub(piece.start)).is_some_and(|offset| offset < piece.contents.size())
        })?;
        let bytes = piece.read(address - piece.start)?;
        let (stack, reset) = bytes.split_first_chunk::<4>()?;
        let vectors = Vectors {
            stack: u32::from_le_bytes(*stack),
            reset: u32::from_le_bytes(reset.try_into().ok()?),
        };
        Some((vectors, &piece.path))
    }
}

impl Piece {
    /// Two words at this offset.
    fn read(&self, at: u64) -> Option<[u8; 8]> {
        let mut words = [0; 8];
        match &self.contents {
            Contents::Bytes(bytes) => {
                let at = usize::try_from(at).ok()?;
                words.copy_from_slice(bytes.get(at..at.checked_add(8)?)?);
            }
            Contents::InFile { offset, size } => {
                if at.checked_add(8)? > *size {
                    return None;
                }
                let mut file = File::open(&self.path).ok()?;
                file.seek(SeekFrom::Start(offset.checked_add(at)?)).ok()?;
                file.read_exact(&mut words).ok()?;
            }
        }
        Some(words)
    }
}

/// A `-device loader` with a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loader<'a> {
    pub(crate) file: &'a OsStr,
    pub(crate) address: Option<u64>,
    pub(crate) is_raw: bool,
}

impl<'a> Loader<'a> {
    /// Of properties by name; `None` where there is no file or what is known is too little.
    pub(crate) fn of(properties: impl Iterator<Item = (&'a str, &'a OsStr)>) -> Option<Self> {
        let (mut file, mut address, mut is_raw) = (None, None, false);
        for (key, value) in properties {
            match (key, value.to_str()) {
                ("file", _) => file = Some(value),
                ("addr", Some(text)) => address = Some(number(text)?),
                ("force-raw", Some(text)) => is_raw = matches!(text, "on" | "true" | "yes"),
                _ => {}
            }
        }
        Some(Self {
            file: file?,
            address,
            is_raw,
        })
    }
}

/// As QEMU writes numbers: decimal, or hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
