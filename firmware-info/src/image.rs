//! The ELF file itself: its sections, and their bytes, read when they are needed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use object::{CompressionFormat, ReadCache};

use crate::error::{DebugInfoError, OpenError};
use crate::headers;

/// The most that all compressed sections may decompress to, together. Those of a large firmware have
/// some tens of MiB.
const MAX_DECOMPRESSED: u64 = 512 << 20;

/// The most that all other sections may have, together: they may overlap in the file. Those of a
/// Linux kernel have half of it.
const MAX_STORED: u64 = 2 << 30;

/// What zlib can gain at most: 1032 to 1, rounded up. A header that claims more is a lie.
const MAX_RATIO: u64 = 1040;

/// The instruction set of a firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// 32-bit Arm: Cortex-M, and A- and R-profile in Arm or Thumb state.
    Arm,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit RISC-V.
    Riscv32,
    /// 64-bit RISC-V.
    Riscv64,
    /// Any other: symbols and source lines work, unwinding does not.
    Other,
}

/// A section of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Section {
    /// Its name. One of more than 128 bytes is cut.
    pub name: String,
    /// Its address in the target's memory; 0 for one that is not loaded.
    pub address: u64,
    /// Its size in bytes, uncompressed.
    pub size: u64,
    /// It takes up memory in the target.
    pub loaded: bool,
    /// It holds instructions.
    pub executable: bool,
    /// The firmware may write it.
    pub writable: bool,
    /// Where its bytes are in the file; empty for `.bss` and its like.
    pub(crate) stored: Stored,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) format: CompressionFormat,
}

impl Section {
    /// Whether an address is in it, in the target's memory.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.loaded && address >= self.address && address - self.address < self.size
    }
}

/// What is in a section; from [`Firmware::section_data`](crate::Firmware::section_data).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SectionData {
    /// Its address; 0 where it is not loaded, mostly.
    pub address: u64,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// A piece of the file that is loaded into the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) stored: u64,
}

pub(crate) struct Image {
    pub(crate) source: Source,
    pub(crate) architecture: Architecture,
    pub(crate) little_endian: bool,
    pub(crate) is_64: bool,
    pub(crate) entry: u64,
    pub(crate) sections: Vec<Section>,
    pub(crate) by_address: Vec<usize>,
    pub(crate) segments: Vec<Segment>,
    /// Which sections are the symbol table and its strings.
    pub(crate) symbol_table: Option<[usize; 2]>,
}

pub(crate) enum Source {
    File(Mutex<File>),
    Bytes(Arc<[u8]>),
}

impl Image {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::of(File::open(path)?)
    }

    pub(crate) fn of(file: File) -> Result<Self, OpenError> {
        let image = headers::read(&ReadCache::new(&file))?;
        Ok(Self {
            source: Source::File(Mutex::new(file)),
            ..image
        })
    }

    pub(crate) fn parse(bytes: Arc<[u8]>) -> Result<Self, OpenError> {
        let image = headers::read(&*bytes)?;
        Ok(Self {
            source: Source::Bytes(bytes),
            ..image
        })
    }

    /// Of code that lies in data it is the code that counts.
    pub(crate) fn from_memory(
        architecture: Architecture,
        little_endian: bool,
        code: impl IntoIterator<Item = (u64, Vec<u8>)>,
        data: impl IntoIterator<Item = Range<u64>>,
    ) -> Self {
        let section = |address, size, executable, offset| Section {
            name: if executable { "code" } else { "data" }.to_owned(),
            address,
            size,
            loaded: true,
            executable,
            writable: !executable,
            stored: Stored {
                offset,
                size: if executable { size } else { 0 },
                format: CompressionFormat::None,
            },
        };
        let data = data.into_iter();
        let mut sections: Vec<Section> = data
            .map(|range| section(range.start, range.end.saturating_sub(range.start), false, 0))
            .collect();
        let (mut bytes, mut segments) = (Vec::new(), Vec::new());
        for (address, piece) in code {
            let (offset, stored) = (bytes.len() as u64, piece.len() as u64);
            bytes.extend(piece);
            sections.push(section(address, stored, true, offset));
            segments.push(Segment {
                address,
                offset,
                stored,
            });
        }
        Self {
            source: Source::Bytes(bytes.into()),
            architecture,
            little_endian,
            is_64: matches!(architecture, Architecture::Aarch64 | Architecture::Riscv64),
            entry: 0,
            by_address: by_address(&sections),
            sections,
            segments,
            symbol_table: None,
        }
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The symbol table and its strings.
    pub(crate) fn symbol_table(&self) -> Option<[&Section; 2]> {
        let [table, strings] = self.symbol_table?;
        Some([self.sections.get(table)?, self.sections.get(strings)?])
    }

    pub(crate) fn section_at(&self, address: u64) -> Option<&Section> {
        let begins = |at: &usize| self.sections[*at].address;
        let after = self.by_address.partition_point(|at| begins(at) <= address);
        // Sections do not overlap in an honest file, or few do.
        let near = self.by_address[..after].iter().rev().take(16);
        let mut near = near.map(|at| &self.sections[*at]);
        near.find(|section| section.contains(address))
    }

    pub(crate) fn is_code(&self, address: u64) -> bool {
        self.section_at(address)
            .is_some_and(|section| section.executable)
    }

    /// A section's bytes, decompressed.
    pub(crate) fn data(&self, section: &Section) -> Result<Arc<[u8]>, DebugInfoError> {
        let failed = |reason: String| DebugInfoError::Section {
            section: section.name.clone(),
            reason,
        };
        let Stored {
            offset,
            size,
            format,
        } = section.stored;
        if format == CompressionFormat::Zlib && section.size > size.saturating_mul(MAX_RATIO) {
            let reason = format!("{} bytes cannot come of {size}", section.size);
            return Err(failed(reason));
        }
        let is_stored = |section: &&Section| section.stored.format == CompressionFormat::None;
        let all = self.sections.iter();
        let (total, limit) = match format {
            CompressionFormat::None => {
                let sizes = all.filter(is_stored).map(|section| section.stored.size);
                (sizes.fold(0, u64::saturating_add), MAX_STORED)
            }
            _ => {
                let compressed = all.filter(|section| !is_stored(section));
                let sizes = compressed.map(|section| section.size);
                (sizes.fold(0, u64::saturating_add), MAX_DECOMPRESSED)
            }
        };
        if total > limit {
            let reason = format!("the file's sections claim {total} bytes together");
            return Err(failed(reason));
        }
        let bytes = self
            .read(offset, size)
            .map_err(|error| failed(error.to_string()))?;
        match format {
            CompressionFormat::None => Ok(bytes),
            CompressionFormat::Zlib => {
                let limit = usize::try_from(section.size).unwrap_or(usize::MAX);
                inflate(&bytes, limit).map_err(failed)
            }
            _ => Err(failed(
                "it is compressed, but not with zlib, or damaged; \
                 `objcopy --decompress-debug-sections` may help"
                    .to_owned(),
            )),
        }
    }

    /// Bytes that the file loads to an address.
    pub(crate) fn loaded(&self, address: u64, buffer: &mut [u8]) -> bool {
        let wanted = buffer.len() as u64;
        let Some((segment, skip)) = self.segments.iter().find_map(|segment| {
            let skip = address.checked_sub(segment.address)?;
            let end = skip.checked_add(wanted)?;
            (end <= segment.stored).then_some((segment, skip))
        }) else {
            return false;
        };
        match self.read(segment.offset.saturating_add(skip), wanted) {
            Ok(bytes) => {
                buffer.copy_from_slice(&bytes);
                true
            }
            Err(_) => false,
        }
    }

    fn read(&self, offset: u64, size: u64) -> io::Result<Arc<[u8]>> {
        match &self.source {
            Source::Bytes(bytes) => {
                let start = usize::try_from(offset).ok();
                let end = offset
                    .checked_add(size)
                    .and_then(|end| usize::try_from(end).ok());
                let range = start
                    .zip(end)
                    .and_then(|(start, end)| bytes.get(start..end));
                range
                    .map(Arc::from)
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Source::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                // Before anything is allocated: a header may claim any size.
                let length = file.metadata()?.len();
                if offset.checked_add(size).is_none_or(|end| end > length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
                file.seek(SeekFrom::Start(offset))?;
                // Not by a vector, which would be copied: debug information is large.
                let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
                file.read_exact(Arc::make_mut(&mut bytes))?;
                Ok(bytes)
            }
        }
    }
}

#[cfg(feature = "dwarf")]
fn inflate(bytes: &[u8], limit: usize) -> Result<Arc<[u8]>, String> {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(bytes, limit)
        .map(Arc::from)
        .map_err(|error| error.to_string())
}

/// A linker compresses debug sections only.
#[cfg(not(feature = "dwarf"))]
fn inflate(_: &[u8], _: usize) -> Result<Arc<[u8]>, String> {
    Err("it is compressed, which only the feature `dwarf` reads".to_owned())
}

/// Those that are loaded, in the order of their addresses.
pub(crate) fn by_address(sections: &[Section]) -> Vec<usize> {
    let loaded = |at: &usize| sections[*at].loaded && sections[*at].size > 0;
    let mut found: Vec<usize> = (0..sections.len()).filter(loaded).collect();
    found.sort_by_key(|at| sections[*at].address);
    found
}
