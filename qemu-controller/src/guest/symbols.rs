//! The firmware's symbols: addresses by name, and the name nearest to an address.
//!
//! A file's names are kept as they are in it, once, and a symbol is where its name begins: an ELF
//! of 10 MB can have half a million symbols that share one name of 4,000 bytes.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::path::Path;

use object::elf::{STB_LOCAL, STT_FILE, STT_FUNC, STT_SECTION};
use object::read::elf::{ElfFile, FileHeader, Sym as _};
use object::{Architecture, Object as _, ObjectSection as _, ReadCache, ReadRef};

/// More bytes of names than any firmware has; a table with more is refused.
const MOST_NAMES: usize = 256 * 1024 * 1024;

/// More symbols than any firmware has.
const MOST_SYMBOLS: usize = 8 * 1024 * 1024;

/// The symbol table of an ELF file.
///
/// Names are those in the file; a Rust or C++ name is there as the compiler mangled it.
#[derive(Clone, Default)]
pub struct Symbols {
    /// The string table.
    names: Vec<u8>,
    /// Functions and what else has code or data, in the order of their addresses.
    entries: Vec<Entry>,
    is_big_endian: bool,
}

/// The order is that of addresses; of several names of one place, a global one comes last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    symbol: Symbol,
    is_global: bool,
    /// Where in the names it begins.
    name: u32,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Symbol {
    /// Its address. Of a Thumb function without the bit that says Thumb.
    pub address: u64,
    /// Its size in bytes; 0 where the file does not say.
    pub size: u64,
}

/// An address by the nearest symbol at or before it. Displayed as `main_loop+0x12`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolOffset {
    /// The symbol's name.
    pub symbol: String,
    /// How far behind its beginning, in bytes.
    pub offset: u64,
}

/// The file has no symbols that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// The session knows no ELF file.
    #[error("no ELF file is known to take symbols from; name one by `QemuConfig::symbols`")]
    NoFile,
    /// The file cannot be read.
    #[error("the ELF file with the symbols cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It is no ELF file, or a damaged one.
    #[error("the file with the symbols is no ELF file that can be read: {0}")]
    NotElf(Box<dyn std::error::Error + Send + Sync>),
}

impl Symbols {
    /// Reads the symbols of an ELF file. One that was stripped has none, which is no error.
    ///
    /// # Errors
    /// [`SymbolsError`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SymbolsError> {
        Self::of(File::open(path).map_err(SymbolsError::Unreadable)?)
    }

    pub(crate) fn of(file: File) -> Result<Self, SymbolsError> {
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).map_err(not_elf)?;
        match &elf {
            object::File::Elf32(elf) => Self::of_elf(elf),
            object::File::Elf64(elf) => Self::of_elf(elf),
            _ => Err(not_elf("it is of another format")),
        }
    }

    fn of_elf<'data, H: FileHeader, R: ReadRef<'data>>(
        elf: &ElfFile<'data, H, R>,
    ) -> Result<Self, SymbolsError> {
        let is_thumb = elf.architecture() == Architecture::Arm;
        let (table, endian) = (elf.elf_symbol_table(), elf.endian());
        let mut symbols = Self {
            is_big_endian: !elf.is_little_endian(),
            ..Self::default()
        };
        if table.is_empty() {
            return Ok(symbols);
        }
        let names = elf
            .section_by_index(table.string_section())
            .map_err(not_elf)?;
        if names.size() > MOST_NAMES as u64 || table.len() > MOST_SYMBOLS {
            return Err(not_elf("its symbol table is larger than any firmware's"));
        }
        symbols.names = names.data().map_err(not_elf)?.to_vec();
        // Without an end the last name would have none.
        symbols.names.push(0);
        for (index, symbol) in table.enumerate() {
            let (name, kind) = (symbol.st_name(endian), symbol.st_type());
            let is_defined = !symbol.is_undefined(endian) && index.0 != 0;
            if !is_defined || matches!(kind, STT_FILE | STT_SECTION) || !symbols.is_telling(name) {
                continue;
            }
            let address: u64 = symbol.st_value(endian).into();
            let symbol = Entry {
                symbol: Symbol {
                    address: if is_thumb && kind == STT_FUNC {
                        address & !1
                    } else {
                        address
                    },
                    size: symbol.st_size(endian).into(),
                },
                is_global: symbol.st_bind() != STB_LOCAL,
                name,
            };
            symbols.entries.push(symbol);
        }
        symbols.entries.sort_unstable();
        Ok(symbols)
    }

    /// The name that begins here, to its end.
    fn name(&self, start: u32) -> &[u8] {
        let names = self.names.get(start as usize..).unwrap_or_default();
        names.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Arm's mapping symbols (`$t`, `$d`) and the assembler's local labels tell a reader nothing.
    fn is_telling(&self, name: u32) -> bool {
        let name = self.names.get(name as usize..).unwrap_or_default();
        !matches!(name, [] | [0 | b'$', ..] | [b'.', b'L', ..])
    }

    pub(crate) fn is_big_endian(&self) -> bool {
        self.is_big_endian
    }

    /// The symbol of this name; a global one hides others of its name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        let has_name = |entry: &&Entry| {
            let names = self.names.get(entry.name as usize..).unwrap_or_default();
            names.strip_prefix(name.as_bytes()).and_then(<[u8]>::first) == Some(&0)
        };
        let named = self.entries.iter().filter(has_name);
        named
            .max_by_key(|entry| entry.is_global)
            .map(|entry| entry.symbol)
    }

    /// The nearest symbol at or before an address, unless the address is behind the end of that
    /// symbol. An odd address is taken as it is.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<SymbolOffset> {
        let end = self
            .entries
            .partition_point(|entry| entry.symbol.address <= address);
        let mut near = self.entries[..end].iter().rev().take(NEAR);
        near.find_map(|entry| {
            let offset = address - entry.symbol.address;
            (entry.symbol.size == 0 || offset < entry.symbol.size).then(|| SymbolOffset {
                symbol: String::from_utf8_lossy(self.name(entry.name)).into_owned(),
                offset,
            })
        })
    }

    /// A few names that contain this one or differ from it in case only.
    pub(crate) fn similar(&self, name: &str) -> Vec<String> {
        let wanted = name.to_lowercase();
        let mut starts: Vec<_> = self.entries.iter().map(|entry| entry.name).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut similar: Vec<_> = starts
            .into_iter()
            .filter_map(|start| {
                // No further: names that share their ends may be long, and many.
                let names = self.names.get(start as usize..)?;
                let names = &names[..names.len().min(LONGEST_SIMILAR)];
                let end = names.iter().position(|&byte| byte == 0)?;
                Some(String::from_utf8_lossy(&names[..end]))
            })
            .filter(|known| !wanted.is_empty() && known.to_lowercase().contains(&wanted))
            .map(Cow::into_owned)
            .collect();
        similar.sort_by_key(|name| (name.len(), name.clone()));
        similar.dedup();
        similar.truncate(SIMILAR);
        similar
    }

    /// All names, in no order; one that several symbols have comes as often.
    pub fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let names = self.entries.iter().map(|entry| self.name(entry.name));
        names.map(String::from_utf8_lossy)
    }
}

fn not_elf(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SymbolsError {
    SymbolsError::NotElf(error.into())
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols")
            .field("symbols", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// Longer names are not shown as similar ones.
const LONGEST_SIMILAR: usize = 200;

/// How many similar names an error shows.
const SIMILAR: usize = 5;

/// How many symbols before an address are looked at: several may be at one address, and one within
/// another.
const NEAR: usize = 16;

impl fmt::Display for SymbolOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            0 => f.write_str(&self.symbol),
            offset => write!(f, "{}+{offset:#x}", self.symbol),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A little-endian Arm ELF with these strings and symbols: where the name begins, address, and
    /// `st_info`.
    fn elf(strings: &[u8], symbols: &[(u32, u32, u8)]) -> File {
        let mut table = vec![0; 16];
        for (name, address, info) in symbols {
            let words = [*name, *address, 2].map(u32::to_le_bytes);
            table.extend(words.concat());
            table.extend([*info, 0, 1, 0]);
        }
        let header = |kind: u32, offset: usize, size: usize, link: u32, entry: u32| {
            let [offset, size] = [offset, size].map(|value| value as u32);
            [0, kind, 0, 0, offset, size, link, 1, 1, entry]
                .map(u32::to_le_bytes)
                .concat()
        };
        let (names, sections) = (52 + table.len(), 52 + table.len() + strings.len());
        let mut bytes = b"\x7fELF\x01\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend([2_u16, 40].map(u16::to_le_bytes).concat());
        bytes.extend(
            [1_u32, 0, 0, sections as u32, 0]
                .map(u32::to_le_bytes)
                .concat(),
        );
        bytes.extend([52_u16, 32, 0, 40, 4, 3].map(u16::to_le_bytes).concat());
        bytes.extend(&table);
        bytes.extend(strings);
        bytes.extend(header(0, 0, 0, 0, 0));
        bytes.extend(header(1, 52, 0, 0, 0));
        bytes.extend(header(2, 52, table.len(), 3, 16));
        bytes.extend(header(3, names, strings.len(), 0, 0));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_global_symbol_hides_others_of_its_name() {
        let file = elf(
            b"\0run\0$t\0.L1\0",
            &[
                (1, 0x41, 0x02),
                (1, 0x81, 0x12),
                (5, 0x40, 0x00),
                (8, 0x40, 0x00),
            ],
        );
        let symbols = Symbols::of(file).unwrap();
        assert_eq!(symbols.symbol("run").unwrap().address, 0x80);
        assert_eq!(symbols.at(0x41).unwrap().to_string(), "run+0x1");
        assert_eq!(symbols.at(0x42), None);
        assert_eq!((symbols.symbol("ru"), symbols.symbol("")), (None, None));
        assert_eq!(symbols.similar("RU"), ["run"]);
        assert_eq!(symbols.names().count(), 2);
    }

    #[test]
    fn names_that_are_shared_cost_nothing_and_bad_ones_are_left_out() {
        let mut strings = vec![b'a'; 1_000_000];
        (strings[0], strings[999_999]) = (0, 0);
        // Each the end of the one before it, so that copies would take 50 GB; and two outside.
        let mut shared: Vec<_> = (1..100_000).map(|start| (start, 2 * start, 0x12)).collect();
        shared.extend([(1_000_000, 2, 0x12), (u32::MAX, 2, 0x12)]);
        let symbols = Symbols::of(elf(&strings, &shared)).unwrap();
        assert_eq!(symbols.entries.len(), 99_999);
        assert_eq!(symbols.at(4).unwrap().symbol.len(), 999_997);
        assert_eq!(symbols.symbol("b"), None);
        assert_eq!(symbols.similar("a"), Vec::<String>::new());
    }
}
