//! Reading an ELF file as far as loading it takes: header and loadable segments.

use object::elf::{ET_REL, FileHeader32, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadRef};

use crate::firmware::architecture::Architecture;

/// More segments than any linker writes. A file, most of it a hole, may claim gigabytes of them.
const MAX_SEGMENTS: u32 = 1 << 16;

/// What loading takes from an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) architecture: Architecture,
    pub(crate) entry: u64,
    pub(crate) relocatable: bool,
    pub(crate) segments: Vec<Segment>,
}

/// A loadable segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where its bytes are in the file.
    pub(crate) offset: u64,
    pub(crate) file_size: u64,
    /// Where the program sees it.
    pub(crate) virtual_address: u64,
    /// Where QEMU loads it.
    pub(crate) address: u64,
    pub(crate) memory_size: u64,
}

impl Segment {
    pub(crate) fn holds(&self, address: u64) -> bool {
        let inside = |start: u64| {
            address
                .checked_sub(start)
                .is_some_and(|offset| offset < self.memory_size)
        };
        inside(self.address) || inside(self.virtual_address)
    }
}

/// Why it is none, or not a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It does not begin like one.
    NotElf,
    /// It begins like one, but its headers are cut off or make no sense.
    Headers(&'static str),
}

/// Reads the headers.
pub(crate) fn read<'data>(data: impl ReadRef<'data>) -> Result<Elf, Bad> {
    match FileKind::parse(data) {
        Ok(FileKind::Elf32) => read_class::<FileHeader32<Endianness>>(data, 32),
        Ok(FileKind::Elf64) => read_class::<FileHeader64<Endianness>>(data, 64),
        _ if data.read_bytes_at(0, 4) == Ok(b"\x7fELF") => Err(Bad::Headers("its first bytes")),
        _ => Err(Bad::NotElf),
    }
}

fn read_class<'data, H: FileHeader<Endian = Endianness>>(
    data: impl ReadRef<'data>,
    bits: u8,
) -> Result<Elf, Bad> {
    let header = H::parse(data).map_err(|_| Bad::Headers("its file header"))?;
    let endian = header
        .endian()
        .map_err(|_| Bad::Headers("its byte order"))?;
    let count = header.phnum(endian, data).ok();
    let programs = count
        .filter(|count| *count < MAX_SEGMENTS)
        .and_then(|_| header.program_headers(endian, data).ok())
        .ok_or(Bad::Headers("its program headers"))?;
    let segment = |program: &H::ProgramHeader| Segment {
        offset: program.p_offset(endian).into(),
        file_size: program.p_filesz(endian).into(),
        virtual_address: program.p_vaddr(endian).into(),
        address: program.p_paddr(endian).into(),
        memory_size: program.p_memsz(endian).into(),
    };
    Ok(Elf {
        architecture: Architecture {
            machine: header.e_machine(endian),
            bits,
            little_endian: header.is_little_endian(),
        },
        entry: header.e_entry(endian).into(),
        relocatable: header.e_type(endian) == ET_REL,
        segments: programs
            .iter()
            .filter(|p| p.p_type(endian) == PT_LOAD)
            .map(segment)
            .collect(),
    })
}
