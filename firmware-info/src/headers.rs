//! The headers of an ELF file: its sections and segments, read without what they describe. A header
//! may claim any size, so nothing is read here that a header gives the size of.

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{CompressionHeader as _, FileHeader, ProgramHeader as _, SectionHeader};
use object::{CompressionFormat, Endianness, FileKind, ReadRef};

use crate::error::OpenError;
use crate::image::{Architecture, Image, Section, Segment, Source, Stored, by_address};

/// More sections or segments than any linker writes; a file may claim four thousand million.
const MAX_HEADERS: u32 = 1 << 17;

/// Longer section names are cut: thousands of sections may share one long name.
const MAX_SECTION_NAME: u64 = 128;

/// An image without its bytes.
pub(crate) fn read<'data>(data: impl ReadRef<'data>) -> Result<Image, OpenError> {
    match FileKind::parse(data)? {
        FileKind::Elf32 => of_class::<FileHeader32<Endianness>>(data),
        FileKind::Elf64 => of_class::<FileHeader64<Endianness>>(data),
        _ => Err(OpenError::NotElf("unknown file magic".to_owned())),
    }
}

impl From<object::Error> for OpenError {
    fn from(error: object::Error) -> Self {
        Self::NotElf(error.to_string())
    }
}

fn of_class<'data, H: FileHeader<Endian = Endianness>>(
    data: impl ReadRef<'data>,
) -> Result<Image, OpenError> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    for count in [header.phnum(endian, data)?, header.shnum(endian, data)?] {
        if count > MAX_HEADERS {
            let text = format!("it claims {count} headers, and no file has so many");
            return Err(OpenError::NotElf(text));
        }
    }
    let programs = header.program_headers(endian, data)?.iter();
    let headers = header.section_headers(endian, data)?;
    // A file may be without names for its sections.
    let names = header.shstrndx(endian, data).ok();
    let names = names.and_then(|at| headers.get(at as usize)?.file_range(endian));
    // The first is none.
    let sections = headers.iter().skip(1);
    let sections = sections.map(|header| section::<H>(header, endian, names, data));
    let sections: Vec<Section> = sections.collect();
    let is_64 = header.is_class_64();
    Ok(Image {
        source: Source::Bytes([].into()),
        architecture: match (header.e_machine(endian), is_64) {
            (elf::EM_ARM, _) => Architecture::Arm,
            (elf::EM_AARCH64, _) => Architecture::Aarch64,
            (elf::EM_RISCV, false) => Architecture::Riscv32,
            (elf::EM_RISCV, true) => Architecture::Riscv64,
            _ => Architecture::Other,
        },
        little_endian: header.is_little_endian(),
        is_64,
        entry: header.e_entry(endian).into(),
        by_address: by_address(&sections),
        sections,
        segments: programs
            .filter(|program| program.p_type(endian) == elf::PT_LOAD)
            .map(|program| Segment {
                address: program.p_vaddr(endian).into(),
                offset: program.p_offset(endian).into(),
                stored: program.p_filesz(endian).into(),
            })
            .collect(),
        symbol_table: symbol_table::<H>(headers, endian),
    })
}

/// The symbol table and its strings, among the sections without the file's first. By their types: a
/// file may be without section names.
fn symbol_table<H: FileHeader<Endian = Endianness>>(
    headers: &[H::SectionHeader],
    endian: Endianness,
) -> Option<[usize; 2]> {
    let is_table = |header: &H::SectionHeader| header.sh_type(endian) == elf::SHT_SYMTAB;
    let table = headers.iter().position(is_table)?;
    let strings = headers[table].sh_link(endian) as usize;
    Some([table.checked_sub(1)?, strings.checked_sub(1)?])
}

fn section<'data, H: FileHeader<Endian = Endianness>>(
    header: &H::SectionHeader,
    endian: Endianness,
    names: Option<(u64, u64)>,
    data: impl ReadRef<'data>,
) -> Section {
    let name = names.and_then(|names| name(names, header.sh_name(endian), data));
    let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
    let flags = header.sh_flags(endian);
    // The header of the compression is damaged: an error for whoever needs the bytes.
    let damaged = Stored {
        offset: 0,
        size: 0,
        format: CompressionFormat::Unknown,
    };
    let found = stored::<H>(header, endian, &name, data);
    let (size, stored) = found.unwrap_or((header.sh_size(endian).into(), damaged));
    Section {
        name,
        address: header.sh_addr(endian).into(),
        size,
        loaded: flags.contains(elf::SHF_ALLOC),
        executable: flags.contains(elf::SHF_EXECINSTR),
        writable: flags.contains(elf::SHF_WRITE),
        stored,
    }
}

fn name<'data>(
    (begin, size): (u64, u64),
    offset: u32,
    data: impl ReadRef<'data>,
) -> Option<&'data [u8]> {
    let rest = size.checked_sub(offset.into())?.min(MAX_SECTION_NAME);
    let at = begin.checked_add(offset.into())?;
    let name = data.read_bytes_at(at, rest).ok()?;
    let end = name.iter().position(|byte| *byte == 0);
    name.get(..end.unwrap_or(name.len()))
}

/// Where a section's bytes are, and its size once decompressed: as ELF has it, or as GNU had it
/// before.
fn stored<'data, H: FileHeader<Endian = Endianness>>(
    header: &H::SectionHeader,
    endian: Endianness,
    name: &str,
    data: impl ReadRef<'data>,
) -> Option<(u64, Stored)> {
    if let Some((compression, offset, size)) = header.compression(endian, data).ok()? {
        let format = match compression.ch_type(endian) {
            elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
            _ => CompressionFormat::Unknown,
        };
        let stored = Stored {
            offset,
            size,
            format,
        };
        return Some((compression.ch_size(endian).into(), stored));
    }
    let (offset, size) = header.file_range(endian).unwrap_or_default();
    if !name.starts_with(".zdebug_") {
        let stored = Stored {
            offset,
            size,
            format: CompressionFormat::None,
        };
        return Some((header.sh_size(endian).into(), stored));
    }
    // "ZLIB", and the size in eight bytes, the highest first.
    let head = data.read_bytes_at(offset, 12).ok()?;
    let uncompressed = head.strip_prefix(b"ZLIB")?.try_into().ok()?;
    let stored = Stored {
        offset: offset.checked_add(12)?,
        size: size.checked_sub(12)?,
        format: CompressionFormat::Zlib,
    };
    Some((u64::from_be_bytes(uncompressed), stored))
}
