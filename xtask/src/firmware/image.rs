//! What counts in a firmware image, and how two images differ in it.
//!
//! Compilers write different ELF containers around the same code, so files are not compared byte by
//! byte: what counts is what the processor gets (the loaded bytes, where they go, where it starts)
//! and what tests and debuggers look up (the global symbols).

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, ensure};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _,
    elf::{EM_ARM, FileHeader32, PT_LOAD},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

/// One firmware image.
pub(super) struct Image {
    entry: u32,
    segments: Vec<Segment>,
    symbols: BTreeMap<String, Symbol>,
    /// What a debugger's backtrace needs. Not compared by `differences`: it is never loaded, and
    /// compilers are free to write it differently.
    call_frames: Vec<u8>,
}

#[derive(PartialEq)]
struct Segment {
    load_address: u32,
    run_address: u32,
    memory_size: u32,
    bytes: Vec<u8>,
}

#[derive(PartialEq)]
struct Symbol {
    address: u64,
    size: u64,
    kind: object::SymbolKind,
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} at {:#010x}, {} bytes",
            self.kind, self.address, self.size
        )
    }
}

impl Image {
    /// Reads a 32-bit ELF executable for ARM.
    pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let header = FileHeader32::<Endianness>::parse(bytes).context("not a 32-bit ELF file")?;
        let endian = header.endian().context("of unknown byte order")?;
        ensure!(header.e_machine.get(endian) == EM_ARM, "not for ARM");

        let mut segments = Vec::new();
        for program in header
            .program_headers(endian, bytes)
            .context("bad program headers")?
        {
            if program.p_type(endian) == PT_LOAD {
                let data = program.data(endian, bytes);
                segments.push(Segment {
                    load_address: program.p_paddr(endian),
                    run_address: program.p_vaddr(endian),
                    memory_size: program.p_memsz(endian),
                    bytes: data
                        .ok()
                        .context("a segment lies beyond the end of the file")?
                        .to_vec(),
                });
            }
        }
        ensure!(
            segments.iter().any(|segment| !segment.bytes.is_empty()),
            "nothing in it is loaded"
        );

        let file = object::File::parse(bytes).context("bad section headers")?;
        let mut symbols = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.is_global()) {
            let (address, size, kind) = (symbol.address(), symbol.size(), symbol.kind());
            symbols.insert(
                symbol.name()?.to_owned(),
                Symbol {
                    address,
                    size,
                    kind,
                },
            );
        }
        let call_frames = file
            .section_by_name(".debug_frame")
            .and_then(|section| section.data().ok());
        Ok(Self {
            entry: header.e_entry(endian),
            segments,
            symbols,
            call_frames: call_frames.unwrap_or_default().to_vec(),
        })
    }

    pub(super) fn loaded_bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.bytes.len())
            .sum()
    }

    /// Whether another file for the same image would say nothing new, to the processor or to a
    /// debugger.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.differences(other).is_empty() && self.call_frames == other.call_frames
    }

    /// In what the committed image (`self`) differs from the one rebuilt, a line each.
    pub(super) fn differences(&self, rebuilt: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.entry != rebuilt.entry {
            found.push(format!(
                "entry: {:#010x} committed, {:#010x} rebuilt",
                self.entry, rebuilt.entry
            ));
        }
        if self.segments.len() == rebuilt.segments.len() {
            for (old, new) in self.segments.iter().zip(&rebuilt.segments) {
                self.segment_differences(old, new, &mut found);
            }
        } else {
            let (old, new) = (self.segments.len(), rebuilt.segments.len());
            found.push(format!("loaded segments: {old} committed, {new} rebuilt"));
        }
        for (name, old) in &self.symbols {
            match rebuilt.symbols.get(name) {
                Some(new) if new == old => {}
                Some(new) => found.push(format!("symbol `{name}`: {old} committed, {new} rebuilt")),
                None => found.push(format!(
                    "symbol `{name}`: committed, but no longer in the source"
                )),
            }
        }
        for name in rebuilt
            .symbols
            .keys()
            .filter(|name| !self.symbols.contains_key(*name))
        {
            found.push(format!(
                "symbol `{name}`: rebuilt, but not in the committed image"
            ));
        }
        found
    }

    fn segment_differences(&self, old: &Segment, new: &Segment, found: &mut Vec<String>) {
        for (what, old, new) in [
            ("loaded at", old.load_address, new.load_address),
            ("runs at", old.run_address, new.run_address),
            ("bytes in memory:", old.memory_size, new.memory_size),
            (
                "bytes in the file:",
                old.bytes.len() as u32,
                new.bytes.len() as u32,
            ),
        ] {
            if old != new {
                found.push(format!(
                    "segment: {what} {old:#x} committed, {new:#x} rebuilt"
                ));
            }
        }
        let mut different = old
            .bytes
            .iter()
            .zip(&new.bytes)
            .enumerate()
            .filter(|(_, (old, new))| old != new);
        if let Some((offset, (old_byte, new_byte))) = different.next() {
            let address = u64::from(old.load_address) + offset as u64;
            let place = self
                .symbol_at(address)
                .map_or_else(String::new, |name| format!(" in `{name}`"));
            let more = different.count();
            found.push(format!(
                "loaded bytes: first at {address:#010x}{place}: {old_byte:#04x} committed, {new_byte:#04x} rebuilt; \
                 {more} more differ"
            ));
        }
    }

    /// The function or variable that an address lies in. (Bit 0 of a function's address says
    /// 'Thumb', no more.)
    fn symbol_at(&self, address: u64) -> Option<&str> {
        self.symbols.iter().find_map(|(name, symbol)| {
            let start = symbol.address & !1;
            (start..start + symbol.size)
                .contains(&address)
                .then_some(name.as_str())
        })
    }
}
