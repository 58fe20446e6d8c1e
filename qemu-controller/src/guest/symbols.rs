//! The firmware's symbols: addresses by name, and the name nearest to an address.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use object::{Object as _, ObjectSymbol as _, ReadCache, SymbolKind};

/// The symbol table of an ELF file.
///
/// Names are those in the file; a Rust or C++ name is there as the compiler mangled it.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    by_name: HashMap<String, Symbol>,
    /// Functions and what else has code or data, in the order of their addresses.
    by_address: Vec<(Symbol, String)>,
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
    #[error("the ELF file with the symbols cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// It is no ELF file, or a damaged one.
    #[error("the file with the symbols is no ELF file that can be read")]
    NotElf(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Symbols {
    /// Reads the symbols of an ELF file. One that was stripped has none, which is no error.
    ///
    /// # Errors
    /// [`SymbolsError`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SymbolsError> {
        Self::of(File::open(path)?)
    }

    pub(crate) fn of(file: File) -> Result<Self, SymbolsError> {
        let cache = ReadCache::new(file);
        let elf =
            object::File::parse(&cache).map_err(|error| SymbolsError::NotElf(error.into()))?;
        let thumb = elf.architecture() == object::Architecture::Arm;
        let mut symbols = Self::default();
        for symbol in elf.symbols().filter(|symbol| symbol.is_definition()) {
            let Some(name) = symbol.name().ok().filter(|name| is_telling(name)) else {
                continue;
            };
            let is_code = symbol.kind() == SymbolKind::Text;
            let address = if thumb && is_code {
                symbol.address() & !1
            } else {
                symbol.address()
            };
            let place = Symbol {
                address,
                size: symbol.size(),
            };
            // A global one hides others of its name.
            if symbol.is_global() || !symbols.by_name.contains_key(name) {
                symbols.by_name.insert(name.to_owned(), place);
            }
            symbols.by_address.push((place, name.to_owned()));
        }
        symbols.by_address.sort();
        Ok(symbols)
    }

    /// The symbol of this name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        self.by_name.get(name).copied()
    }

    /// The nearest symbol at or before an address, unless the address is behind the end of that
    /// symbol. An odd address is taken as it is.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<SymbolOffset> {
        let end = self
            .by_address
            .partition_point(|(symbol, _)| symbol.address <= address);
        let mut near = self.by_address[..end].iter().rev().take(NEAR);
        near.find_map(|(symbol, name)| {
            let offset = address - symbol.address;
            (symbol.size == 0 || offset < symbol.size).then(|| SymbolOffset {
                symbol: name.clone(),
                offset,
            })
        })
    }

    /// A few names that contain this one or differ from it in case only.
    pub(crate) fn similar(&self, name: &str) -> Vec<String> {
        let wanted = name.to_lowercase();
        let alike = |known: &&str| !wanted.is_empty() && known.to_lowercase().contains(&wanted);
        let mut similar: Vec<_> = self.names().filter(alike).map(str::to_owned).collect();
        similar.sort_by_key(|name| (name.len(), name.clone()));
        similar.truncate(SIMILAR);
        similar
    }

    /// All names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// How many similar names an error shows.
const SIMILAR: usize = 5;

/// How many symbols before an address are looked at: several may be at one address, and one within
/// another.
const NEAR: usize = 16;

/// Arm's mapping symbols (`$t`, `$d`) and the assembler's local labels tell a reader nothing.
fn is_telling(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.starts_with(".L")
}

impl fmt::Display for SymbolOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            0 => f.write_str(&self.symbol),
            offset => write!(f, "{}+{offset:#x}", self.symbol),
        }
    }
}
