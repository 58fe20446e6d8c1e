//! The guest's general registers at one stop.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use gdb_remote::target::{Register, Target};

/// Where each register is in the reply to `g`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    places: Vec<(String, Range<usize>)>,
    big_endian: bool,
}

impl Layout {
    /// They come in the order of their numbers.
    pub(super) fn new(target: &Target, big_endian: bool) -> Arc<Self> {
        let places = target.places().into_iter();
        let places = places.map(|(register, place)| (register.name.clone(), place));
        Arc::new(Self {
            places: places.collect(),
            big_endian,
        })
    }
}

/// The guest's general registers at one stop, by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Registers {
    layout: Arc<Layout>,
    bytes: Vec<u8>,
}

impl Registers {
    /// Takes the reply to `g`.
    pub(super) fn new(layout: &Arc<Layout>, bytes: Vec<u8>) -> Self {
        Self {
            layout: Arc::clone(layout),
            bytes,
        }
    }

    /// The value of the register of this name (`r0`, `sp`, `pc`, `xpsr`, `a0`, `rip` …); `None` if
    /// there is none, or if it has more than 64 bits.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        number(self.bytes(name)?, self.layout.big_endian)
    }

    /// The bytes of a register, in the guest's order.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.iter();
        let (_, bytes) = values.find(|(known, _)| *known == name)?;
        Some(bytes)
    }

    /// All names, in the stub's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// As far as the bytes go: the registers of co-processors are not among them.
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let places = self.layout.places.iter();
        places.map_while(|(name, place)| Some((name.as_str(), self.bytes.get(place.clone())?)))
    }
}

/// `r0=0x5 r1=0x0 …`
impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, bytes)) in self.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            match number(bytes, self.layout.big_endian) {
                Some(value) => write!(f, "{space}{name}={value:#x}")?,
                None => write!(f, "{space}{name}={bytes:02x?}")?,
            }
        }
        Ok(())
    }
}

/// Up to eight bytes as a number.
pub(super) fn number(bytes: &[u8], big_endian: bool) -> Option<u64> {
    let shift = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    match bytes.len() {
        9.. => None,
        _ if big_endian => Some(bytes.iter().fold(0, shift)),
        _ => Some(bytes.iter().rev().fold(0, shift)),
    }
}

/// What a register of so many bits has. QEMU's stub for 64 bit answers with more, the sign extended,
/// where a 32-bit RISC-V core's CSR is asked for.
pub(super) fn low_bits(value: u64, bits: u32) -> u64 {
    let end = 1_u64.checked_shl(bits);
    end.map_or(value, |end| value & end.wrapping_sub(1))
}

/// A number in so many bits; `None` if it does not fit.
pub(super) fn encode(value: u64, register: &Register, big_endian: bool) -> Option<Vec<u8>> {
    if register.bits < 64 && value >> register.bits != 0 {
        return None;
    }
    let length = register.bits.div_ceil(8) as usize;
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(length, 0);
    if big_endian {
        bytes.reverse();
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_orders() {
        assert_eq!(number(&[0x22, 1, 0, 0], false), Some(0x122));
        assert_eq!(number(&[0, 0, 1, 0x22], true), Some(0x122));
        assert_eq!(number(&[1; 9], true), None);
        let extended = 0xffff_ffff_8000_0010;
        for (bits, expected) in [(32, 0x8000_0010), (4, 0), (64, extended), (512, extended)] {
            assert_eq!(low_bits(extended, bits), expected, "{bits}");
        }
        let target = |bits: u32| {
            let mut reader = gdb_remote::target::TargetReader::new();
            let xml = format!("<feature name=\"f\"><reg name=\"r\" bitsize=\"{bits}\"/></feature>");
            reader.add("target.xml", xml.as_bytes()).unwrap();
            reader.finish().unwrap()
        };
        let (word, wide) = (target(32), target(128));
        assert_eq!(
            encode(0x122, &word.registers[0], false),
            Some(vec![0x22, 1, 0, 0])
        );
        assert_eq!(
            encode(0x122, &word.registers[0], true),
            Some(vec![0, 0, 1, 0x22])
        );
        assert_eq!(encode(1 << 32, &word.registers[0], true), None);
        assert_eq!(
            encode(u64::MAX, &wide.registers[0], false).unwrap().len(),
            16
        );
        let layout = Layout::new(&word, false);
        let registers = Registers::new(&layout, vec![1, 0, 0, 0]);
        assert_eq!((registers.get("r"), registers.get("s")), (Some(1), None));
        assert_eq!(format!("{registers:?}"), "r=0x1");
    }
}
