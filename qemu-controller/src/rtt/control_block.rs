//! SEGGER's control block as it lies in the guest's memory, and what of it can be believed.
//!
//! ```text
//!   "SEGGER RTT\0\0\0\0\0\0"  up channels: u32  down channels: u32
//!   for each up channel, then each down channel:
//!     name: pointer  buffer: pointer  size: u32  write offset: u32  read offset: u32  flags: u32
//! ```
//!
//! Who writes a ring advances its write offset, who reads it the read offset; equal ones mean that
//! it is empty.

use std::fmt;

/// What a control block begins with.
pub(super) const ID: &[u8; 16] = b"SEGGER RTT\0\0\0\0\0\0";

/// The ID and the two counts.
pub(super) const HEADER_BYTES: u64 = 24;

/// More channels than any firmware has; SEGGER's own default is 3 each way.
pub(super) const MAX_CHANNELS: u32 = 32;

/// More than any ring has.
const MAX_RING: u32 = 16 * 1024 * 1024;

/// How the guest stores numbers and pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) little_endian: bool,
    pub(super) is_64: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            little_endian: true,
            is_64: false,
        }
    }
}

impl Layout {
    fn pointer_bytes(self) -> u64 {
        if self.is_64 { 8 } else { 4 }
    }

    pub(super) fn descriptor_bytes(self) -> u64 {
        2 * self.pointer_bytes() + 16
    }

    /// A block's size with so many channels.
    pub(super) fn block_bytes(self, counts: Counts) -> u64 {
        HEADER_BYTES + u64::from(counts.up + counts.down) * self.descriptor_bytes()
    }

    /// Where a channel's read offset is, in bytes from its descriptor.
    pub(super) fn read_offset_at(self) -> u64 {
        2 * self.pointer_bytes() + 8
    }

    /// The address of an up channel's mode.
    #[cfg(feature = "source")]
    pub(super) fn mode_at(self, block: u64, channel: u32) -> u64 {
        let descriptor = HEADER_BYTES + u64::from(channel) * self.descriptor_bytes();
        block.wrapping_add(descriptor + self.flags_at())
    }

    pub(super) fn write_offset_at(self) -> u64 {
        2 * self.pointer_bytes() + 4
    }

    pub(super) fn flags_at(self) -> u64 {
        2 * self.pointer_bytes() + 12
    }

    fn u32_at(self, bytes: &[u8], at: u64) -> Option<u32> {
        let at = usize::try_from(at).ok()?;
        let word = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(match self.little_endian {
            true => u32::from_le_bytes(word),
            false => u32::from_be_bytes(word),
        })
    }

    fn pointer_at(self, bytes: &[u8], at: u64) -> Option<u64> {
        if !self.is_64 {
            return self.u32_at(bytes, at).map(u64::from);
        }
        let (first, second) = (self.u32_at(bytes, at)?, self.u32_at(bytes, at + 4)?);
        let (low, high) = match self.little_endian {
            true => (first, second),
            false => (second, first),
        };
        Some(u64::from(high) << 32 | u64::from(low))
    }
}

/// How many channels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) up: u32,
    pub(super) down: u32,
}

/// Reads a header; `None` where there is no block, or not yet.
pub(super) fn counts(layout: Layout, header: &[u8]) -> Option<Counts> {
    if header.get(..ID.len())? != ID {
        return None;
    }
    let counts = Counts {
        up: layout.u32_at(header, 16)?,
        down: layout.u32_at(header, 20)?,
    };
    let plausible = counts.up <= MAX_CHANNELS && counts.down <= MAX_CHANNELS;
    (plausible && counts.up + counts.down > 0).then_some(counts)
}

/// A ring as its descriptor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// The descriptor's address.
    pub(super) at: u64,
    pub(super) name: u64,
    pub(super) buffer: u64,
    pub(super) size: u32,
    pub(super) write: u32,
    pub(super) read: u32,
    pub(super) flags: u32,
}

/// Why a ring is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Size(u32),
    Buffer { at: u64, size: u32 },
    Offsets { write: u32, read: u32, size: u32 },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "its size of {size} bytes is none"),
            Self::Buffer { at, size } => {
                write!(
                    f,
                    "its buffer of {size} bytes at {at:#x} is not in the guest's RAM"
                )
            }
            Self::Offsets { write, read, size } => write!(
                f,
                "its offsets (write {write}, read {read}) are not in its buffer of {size} bytes"
            ),
        }
    }
}

impl Ring {
    /// The descriptor of this number of a whole block; up channels come first.
    pub(super) fn of(layout: Layout, block: &[u8], block_at: u64, number: u32) -> Option<Self> {
        let begin = HEADER_BYTES + u64::from(number) * layout.descriptor_bytes();
        let pointer = layout.pointer_bytes();
        Some(Self {
            at: block_at.wrapping_add(begin),
            name: layout.pointer_at(block, begin)?,
            buffer: layout.pointer_at(block, begin + pointer)?,
            size: layout.u32_at(block, begin + 2 * pointer)?,
            write: layout.u32_at(block, begin + layout.write_offset_at())?,
            read: layout.u32_at(block, begin + layout.read_offset_at())?,
            flags: layout.u32_at(block, begin + layout.flags_at())?,
        })
    }

    /// A channel that the firmware has not set up.
    pub(super) fn is_unused(&self) -> bool {
        self.buffer == 0 || self.size == 0
    }

    /// Sees that it can be used without harm.
    pub(super) fn check(&self, is_ram: impl Fn(u64, u64) -> bool) -> Result<(), Damage> {
        let Self {
            buffer,
            size,
            write,
            read,
            ..
        } = *self;
        if !(2..=MAX_RING).contains(&size) {
            return Err(Damage::Size(size));
        }
        if !is_ram(buffer, size.into()) {
            return Err(Damage::Buffer { at: buffer, size });
        }
        if write >= size || read >= size {
            return Err(Damage::Offsets { write, read, size });
        }
        Ok(())
    }

    /// The pieces of memory that hold what is unread, in order: address and length.
    pub(super) fn unread(&self) -> [(u64, u32); 2] {
        let begin = self.buffer + u64::from(self.read);
        match self.write >= self.read {
            true => [(begin, self.write - self.read), (self.buffer, 0)],
            false => [(begin, self.size - self.read), (self.buffer, self.write)],
        }
    }

    /// The same, of the first so many bytes of each piece; the second follows a whole first alone.
    pub(super) fn unread_within(&self, most: u32) -> [(u64, u32); 2] {
        let [(first, length), (second, rest)] = self.unread();
        let rest = if length > most { 0 } else { rest.min(most) };
        [(first, length.min(most)), (second, rest)]
    }

    /// Nothing more fits: one byte stays free, or a full ring would look empty.
    pub(super) fn is_full(&self) -> bool {
        self.free() == 0
    }

    /// How many bytes fit.
    pub(super) fn free(&self) -> u32 {
        match self.read > self.write {
            true => self.read - self.write - 1,
            false => self.size - 1 - (self.write - self.read),
        }
    }

    /// The pieces of memory that take so many bytes, at the most [`free`](Self::free), and the
    /// write offset behind them.
    pub(super) fn room(&self, bytes: u32) -> ([(u64, u32); 2], u32) {
        let begin = self.buffer + u64::from(self.write);
        let first = bytes.min(self.size - self.write);
        let second = bytes - first;
        let after = (self.write + bytes) % self.size;
        ([(begin, first), (self.buffer, second)], after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAYOUT: Layout = Layout {
        little_endian: true,
        is_64: false,
    };

    fn ring(size: u32, write: u32, read: u32) -> Ring {
        Ring {
            at: 0x100,
            name: 0,
            buffer: 0x2000_0000,
            size,
            write,
            read,
            flags: 0,
        }
    }

    #[test]
    fn a_block_is_read_in_each_layout() {
        for (little_endian, is_64) in [(true, false), (false, false), (true, true), (false, true)] {
            let layout = Layout {
                little_endian,
                is_64,
            };
            let word = |value: u32| match little_endian {
                true => value.to_le_bytes(),
                false => value.to_be_bytes(),
            };
            let pointer = |value: u64| match (is_64, little_endian) {
                (false, _) => word(value as u32).to_vec(),
                (true, true) => value.to_le_bytes().to_vec(),
                (true, false) => value.to_be_bytes().to_vec(),
            };
            let mut block = ID.to_vec();
            block.extend(word(1));
            block.extend(word(1));
            for base in [0x10_u32, 0x20] {
                block.extend(pointer(u64::from(base) << 8));
                block.extend(pointer(u64::from(base) << 16));
                for field in 1..5 {
                    block.extend(word(base + field));
                }
            }
            let found = counts(layout, &block).unwrap();
            assert_eq!(found, Counts { up: 1, down: 1 });
            assert_eq!(layout.block_bytes(found), block.len() as u64);
            let down = Ring::of(layout, &block, 0x100, 1).unwrap();
            assert_eq!((down.name, down.buffer), (0x2000, 0x20_0000));
            let fields = (down.size, down.write, down.read, down.flags);
            assert_eq!(fields, (0x21, 0x22, 0x23, 0x24));
            assert_eq!(Ring::of(layout, &block, 0x100, 2), None);
        }
    }

    #[test]
    fn what_cannot_be_is_no_block() {
        let mut block = ID.to_vec();
        block.extend([0; 8]);
        assert_eq!(counts(LAYOUT, &block), None, "no channels");
        block[16..20].copy_from_slice(&1000_u32.to_le_bytes());
        assert_eq!(counts(LAYOUT, &block), None, "a thousand");
        assert_eq!(counts(LAYOUT, &block[..23]), None);
        assert_eq!(counts(LAYOUT, b"SEGGER_RTT"), None);
    }

    #[test]
    fn damage_is_named() {
        let in_ram = |at: u64, length: u64| at >= 0x2000_0000 && at + length <= 0x2001_0000;
        let rows = [
            (ring(1024, 0, 0), None),
            (ring(0x1_0000, 5, 0xffff), None),
            (ring(0x1_0001, 0, 0), Some("is not in the guest's RAM")),
            (
                ring(u32::MAX, 0, 0),
                Some("its size of 4294967295 bytes is none"),
            ),
            (ring(1, 0, 0), Some("its size of 1 bytes")),
            (ring(16, 16, 0), Some("its offsets (write 16, read 0)")),
            (ring(16, 0, u32::MAX), Some("its offsets")),
        ];
        for (ring, expected) in rows {
            let damage = ring.check(in_ram).err().map(|damage| damage.to_string());
            match (&damage, expected) {
                (None, None) => {}
                (Some(damage), Some(expected)) => assert!(damage.contains(expected), "{damage}"),
                _ => panic!("{damage:?} and {expected:?}"),
            }
        }
    }

    proptest! {
        /// What is unread and what is free make the ring, less the byte that stays free.
        #[test]
        fn unread_and_free_make_the_ring(size in 2_u32..5000, write: u32, read: u32, part: u32) {
            let ring = ring(size, write % size, read % size);
            let unread: u32 = ring.unread().iter().map(|(_, length)| length).sum();
            prop_assert_eq!(unread + ring.free(), size - 1);
            prop_assert_eq!(ring.is_full(), ring.free() == 0);
            let bytes = part % (ring.free() + 1);
            let (pieces, after) = ring.room(bytes);
            let end = ring.buffer + u64::from(size);
            for (at, length) in pieces.into_iter().chain(ring.unread()) {
                prop_assert!(at >= ring.buffer && at + u64::from(length) <= end);
            }
            prop_assert_eq!(pieces[0].1 + pieces[1].1, bytes);
            let grown = Ring { write: after, ..ring };
            let then: u32 = grown.unread().iter().map(|(_, length)| length).sum();
            prop_assert_eq!(then, unread + bytes);
        }

        #[test]
        fn any_bytes_are_read(block: Vec<u8>, number: u32, is_64: bool, little_endian: bool) {
            let layout = Layout { little_endian, is_64 };
            let _ = counts(layout, &block);
            let _ = Ring::of(layout, &block, u64::MAX, number % 64).map(|ring| ring.check(|_, _| true));
        }
    }
}
