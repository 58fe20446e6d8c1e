//! The target's memory, as a backtrace or a printed value reads it.

use std::collections::BTreeMap;

/// Reads the target's memory. Any `FnMut(u64, &mut [u8]) -> bool` is one.
pub trait Memory {
    /// Fills the buffer with what is at the address; false where that cannot be read.
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> bool;
}

impl<F: FnMut(u64, &mut [u8]) -> bool> Memory for F {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> bool {
        self(address, buffer)
    }
}

/// Pieces of memory that were fetched before, for a caller that cannot read at once: ask, fetch
/// what [`missing`](Self::take_missing) says, and ask again. One piece, from the stack pointer up,
/// is most often enough.
#[derive(Clone, Debug, Default)]
pub struct MemoryPieces {
    /// By address; no two overlap in what is asked of them first.
    pieces: BTreeMap<u64, Vec<u8>>,
    missing: Option<(u64, usize)>,
    /// What is known not to be there: not asked for again.
    unreadable: Vec<(u64, usize)>,
}

impl MemoryPieces {
    /// Adds what is at an address.
    pub fn insert(&mut self, address: u64, bytes: Vec<u8>) {
        self.pieces.insert(address, bytes);
    }

    /// Says that this cannot be read.
    pub fn insert_unreadable(&mut self, address: u64, length: usize) {
        self.unreadable.push((address, length));
    }

    /// The first address and length that was asked for and is in no piece, once.
    pub fn take_missing(&mut self) -> Option<(u64, usize)> {
        self.missing.take()
    }
}

impl Memory for MemoryPieces {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> bool {
        // Pieces may overlap, so the nearest before the address need not be the one that has it.
        let found = self
            .pieces
            .range(..=address)
            .rev()
            .find_map(|(begin, bytes)| {
                let skip = usize::try_from(address - begin).ok()?;
                bytes.get(skip..skip.checked_add(buffer.len())?)
            });
        match found {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None if self.unreadable.contains(&(address, buffer.len())) => {}
            None => _ = self.missing.get_or_insert((address, buffer.len())),
        }
        found.is_some()
    }
}
