//! An ELF file made field by field, so that each can be wrong.

/// A bare ELF file: one loadable segment, laid out as the fields say.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) bits: u8,
    pub(crate) little: bool,
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    pub(crate) address: u64,
    pub(crate) contents: Vec<u8>,
    /// What the program header says; the contents' length where it is `None`.
    pub(crate) claimed_size: Option<u64>,
    pub(crate) segments: u16,
}

impl Default for Image {
    /// For a Cortex-M3 at address 0: stack at the end of 64 KiB of SRAM, reset vector 0x9, an
    /// endless loop there.
    fn default() -> Self {
        let mut contents = Vec::new();
        contents.extend(0x2001_0000_u32.to_le_bytes());
        contents.extend(0x0000_0009_u32.to_le_bytes());
        contents.extend(0xe7fe_u16.to_le_bytes());
        Self {
            bits: 32,
            little: true,
            kind: 2,
            machine: 40,
            entry: 9,
            address: 0,
            contents,
            claimed_size: None,
            segments: 1,
        }
    }
}

impl Image {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let wide = self.bits == 64;
        let (header, program) = if wide { (64_u16, 56_u16) } else { (52, 32) };
        let mut out = vec![
            0x7f,
            b'E',
            b'L',
            b'F',
            if wide { 2 } else { 1 },
            if self.little { 1 } else { 2 },
            1,
        ];
        out.resize(16, 0);
        let put = |out: &mut Vec<u8>, value: u64, size: usize| {
            let bytes = value.to_le_bytes();
            let mut field = bytes[..size].to_vec();
            if !self.little {
                field.reverse();
            }
            out.extend(field);
        };
        let word = if wide { 8 } else { 4 };
        for (value, size) in [
            (u64::from(self.kind), 2),
            (u64::from(self.machine), 2),
            (1, 4),
        ] {
            put(&mut out, value, size);
        }
        let tables = if self.segments == 0 {
            0
        } else {
            u64::from(header)
        };
        for (value, size) in [(self.entry, word), (tables, word), (0, word), (0, 4)] {
            put(&mut out, value, size);
        }
        for value in [header, program, self.segments, 0, 0, 0] {
            put(&mut out, value.into(), 2);
        }
        let offset = u64::from(header + program * self.segments);
        let size = self.claimed_size.unwrap_or(self.contents.len() as u64);
        for _ in 0..self.segments {
            put(&mut out, 1, 4);
            let addresses = [
                (offset, word),
                (self.address, word),
                (self.address, word),
                (size, word),
                (size, word),
            ];
            if wide {
                put(&mut out, 5, 4);
            }
            addresses
                .iter()
                .for_each(|&(value, size)| put(&mut out, value, size));
            if !wide {
                put(&mut out, 5, 4);
            }
            put(&mut out, 4, word);
        }
        out.extend(&self.contents);
        out
    }
}
