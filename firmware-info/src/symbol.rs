//! A symbol, and an address by it.

use std::fmt;

/// What kind of thing a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data.
    Object,
    /// An address with no more said: an assembler's label or a linker script's symbol.
    Label,
}

/// A symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// Its name as the source has it.
    pub name: String,
    /// Its name in the file, as the compiler mangled it.
    pub raw_name: String,
    /// Its address. Of a Thumb function without the bit that says Thumb.
    pub address: u64,
    /// Its size in bytes; 0 where the file does not say.
    pub size: u64,
    /// What kind of thing it names.
    pub kind: SymbolKind,
    /// The section it is in; `None` for an absolute value, such as one of a linker script.
    pub section: Option<String>,
    /// Other object files could see it.
    pub global: bool,
    /// A function of 32-bit Arm in Thumb code.
    pub thumb: bool,
}

/// An address by the symbol that it is in. Displayed as `main+0x12`, or `main` for its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymbolOffset {
    /// The symbol.
    pub symbol: Symbol,
    /// How far behind its beginning, in bytes.
    pub offset: u64,
}

impl fmt::Display for SymbolOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.symbol.name)?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, "+{offset:#x}"),
        }
    }
}
