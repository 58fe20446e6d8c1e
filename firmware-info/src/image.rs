//! The ELF file itself: its headers, its sections, and their bytes, read when they are needed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use object::read::elf::{ElfFile, FileHeader};
use object::{
    CompressionFormat, Object as _, ObjectSegment as _, ReadCache, ReadRef, SectionFlags,
    SectionIndex,
};

use crate::error::{DebugInfoError, OpenError};

/// The most that all compressed sections may decompress to, together. Those of a large firmware have
/// some tens of MiB.
const MAX_DECOMPRESSED: u64 = 512 << 20;

/// The most that all other sections may have, together: they may overlap in the file. Those of a
/// Linux kernel have half of it.
const MAX_STORED: u64 = 2 << 30;

/// What zlib can gain at most: 1032 to 1, rounded up. A header that claims more is a lie.
const MAX_RATIO: u64 = 1040;

/// Longer section names are cut: thousands of sections may share one long name.
const MAX_SECTION_NAME: usize = 128;

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
    offset: u64,
    size: u64,
    format: CompressionFormat,
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
struct Segment {
    address: u64,
    offset: u64,
    stored: u64,
}

pub(crate) struct Image {
    source: Source,
    pub(crate) architecture: Architecture,
    pub(crate) little_endian: bool,
    pub(crate) is_64: bool,
    pub(crate) entry: u64,
    pub(crate) sections: Vec<Section>,
    /// Those that are loaded, in the order of their addresses.
    by_address: Vec<usize>,
    segments: Vec<Segment>,
    /// Which sections are the symbol table and its strings. By their types: a file may be without
    /// section names.
    symbol_table: Option<[usize; 2]>,
}

enum Source {
    File(Mutex<File>),
    Bytes(Arc<[u8]>),
}

impl Image {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::of(File::open(path)?)
    }

    pub(crate) fn of(file: File) -> Result<Self, OpenError> {
        let cache = ReadCache::new(&file);
        let headers = Headers::parse(&cache)?;
        Ok(headers.image(Source::File(Mutex::new(file))))
    }

    pub(crate) fn parse(bytes: Arc<[u8]>) -> Result<Self, OpenError> {
        let headers = Headers::parse(&*bytes)?;
        Ok(headers.image(Source::Bytes(bytes)))
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
        let headers = Headers {
            architecture,
            little_endian,
            is_64: matches!(architecture, Architecture::Aarch64 | Architecture::Riscv64),
            entry: 0,
            sections,
            segments,
            symbol_table: None,
        };
        headers.image(Source::Bytes(bytes.into()))
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

/// What the headers say.
struct Headers {
    architecture: Architecture,
    little_endian: bool,
    is_64: bool,
    entry: u64,
    sections: Vec<Section>,
    segments: Vec<Segment>,
    symbol_table: Option<[usize; 2]>,
}

impl Headers {
    fn parse<'data>(data: impl ReadRef<'data>) -> Result<Self, OpenError> {
        let elf =
            object::File::parse(data).map_err(|error| OpenError::NotElf(error.to_string()))?;
        let architecture = match (elf.architecture(), elf.is_64()) {
            (object::Architecture::Arm, _) => Architecture::Arm,
            (object::Architecture::Aarch64, _) => Architecture::Aarch64,
            (object::Architecture::Riscv32, _) => Architecture::Riscv32,
            (object::Architecture::Riscv64, _) => Architecture::Riscv64,
            _ => Architecture::Other,
        };
        let segments = elf
            .segments()
            .map(|segment| {
                let (offset, stored) = segment.file_range();
                Segment {
                    address: segment.address(),
                    offset,
                    stored,
                }
            })
            .collect();
        Ok(Self {
            architecture,
            little_endian: elf.is_little_endian(),
            is_64: elf.is_64(),
            entry: elf.entry(),
            sections: elf
                .sections()
                .map(|section| read_section(&section))
                .collect(),
            segments,
            symbol_table: match &elf {
                object::File::Elf32(elf) => symbol_table(elf),
                object::File::Elf64(elf) => symbol_table(elf),
                _ => None,
            },
        })
    }

    fn image(self, source: Source) -> Image {
        let loaded = |at: &usize| self.sections[*at].loaded && self.sections[*at].size > 0;
        let mut by_address: Vec<usize> = (0..self.sections.len()).filter(loaded).collect();
        by_address.sort_by_key(|at| self.sections[*at].address);
        Image {
            source,
            architecture: self.architecture,
            little_endian: self.little_endian,
            is_64: self.is_64,
            entry: self.entry,
            sections: self.sections,
            by_address,
            segments: self.segments,
            symbol_table: self.symbol_table,
        }
    }
}

/// The list of sections is without the file's first, which is none.
fn symbol_table<'data, H: FileHeader, R: ReadRef<'data>>(
    elf: &ElfFile<'data, H, R>,
) -> Option<[usize; 2]> {
    let table = elf.elf_symbol_table();
    let index = |section: SectionIndex| section.0.checked_sub(1);
    Some([index(table.section())?, index(table.string_section())?])
}

fn read_section<'data>(section: &impl object::ObjectSection<'data>) -> Section {
    let name = section.name_bytes().unwrap_or_default();
    let name = &name[..name.len().min(MAX_SECTION_NAME)];
    let flags = match section.flags() {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.0,
        _ => 0,
    };
    let has = |flag: u64| flags & flag != 0;
    let range = section.compressed_file_range();
    let stored = match &range {
        Ok(range) => Stored {
            offset: range.offset,
            size: range.compressed_size,
            format: range.format,
        },
        // The header of the compression is damaged: an error for whoever needs the bytes.
        Err(_) => Stored {
            offset: 0,
            size: 0,
            format: CompressionFormat::Unknown,
        },
    };
    Section {
        name: String::from_utf8_lossy(name).into_owned(),
        address: section.address(),
        size: match range {
            Ok(range) if range.format != CompressionFormat::None => range.uncompressed_size,
            _ => section.size(),
        },
        loaded: has(object::elf::SHF_ALLOC.0),
        executable: has(object::elf::SHF_EXECINSTR.0),
        writable: has(object::elf::SHF_WRITE.0),
        stored,
    }
}
