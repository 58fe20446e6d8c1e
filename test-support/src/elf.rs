//! Tiny ELF files with code made by hand.

/// What its header says.
#[derive(Clone, Copy, Debug)]
pub struct ElfKind {
    /// The architecture's number (`e_machine`).
    pub machine: u16,
    /// The architecture's own (`e_flags`).
    pub flags: u32,
    /// Numbers are in this byte order.
    pub big_endian: bool,
}

/// An executable of 32 bits that has these segments, each an address and its bytes, and no symbols.
#[must_use]
pub fn elf(kind: ElfKind, entry: u32, segments: &[(u32, &[u8])]) -> Vec<u8> {
    let half = |half: u16| match kind.big_endian {
        true => half.to_be_bytes(),
        false => half.to_le_bytes(),
    };
    let word = |word: u32| match kind.big_endian {
        true => word.to_be_bytes(),
        false => word.to_le_bytes(),
    };
    let count = u16::try_from(segments.len()).unwrap_or(u16::MAX);
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file[5] += u8::from(kind.big_endian);
    file.extend([2, kind.machine].map(half).concat());
    file.extend([1, entry, 52, 0, kind.flags].map(word).concat());
    file.extend([52, 32, count, 0, 0, 0].map(half).concat());
    let mut offset = 52 + 32 * u32::from(count);
    for (address, bytes) in segments {
        let size = bytes.len() as u32;
        file.extend(
            [1, offset, *address, *address, size, size, 7, 1]
                .map(word)
                .concat(),
        );
        offset += size;
    }
    segments
        .iter()
        .for_each(|(_, bytes)| file.extend_from_slice(bytes));
    file
}
