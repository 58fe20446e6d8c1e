//! Values of statics and locals, by their types in the debug information.

use std::collections::HashMap;
use std::fmt;

use gimli::{AttributeValue, Expression, UnitOffset};

use crate::Firmware;
use crate::dwarf::{Allowance, Bytes, Debug, Result};
use crate::error::{DebugInfoError, NameError};
use crate::unwind::Memory;

mod entry;
mod locals;
mod print;
mod rust;

use entry::{At, Entry};
use print::Printer;

/// A larger value is not read.
const MAX_SIZE: u64 = 1 << 16;

/// How many entries are read for one value: its types, and theirs.
const MAX_ENTRIES: u64 = 1_000_000;

/// A static's value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// No symbol has the name, or several have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The debug information does not say what is there.
    #[error("the debug information does not know {name:?}, which is at {address:#010x}")]
    NoType {
        /// The symbol's name.
        name: String,
        /// Its address.
        address: u64,
    },
    /// Its memory cannot be read.
    #[error("the memory of {name:?} at {address:#010x} cannot be read")]
    Unreadable {
        /// The symbol's name.
        name: String,
        /// Its address.
        address: u64,
    },
    /// The debug information cannot be used.
    #[error(transparent)]
    DebugInfo(#[from] DebugInfoError),
}

/// A local variable or parameter of a frame. Displayed as `count = 3`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Local {
    /// Its name.
    pub name: String,
    /// Which of the functions in [`Frame::functions`](crate::Frame::functions) it belongs to.
    pub function: usize,
    /// It is a parameter.
    pub is_parameter: bool,
    /// Its value as its language writes it; `None` where the compiler kept none that can be read
    /// here.
    pub value: Option<String>,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {}",
            self.name,
            self.value.as_deref().unwrap_or("<optimized out>")
        )
    }
}

/// Where the entries of statics are: unit and offset, by address.
pub(crate) type Statics = HashMap<u64, (usize, UnitOffset)>;

impl Firmware {
    /// The value of a static, as its language writes it. The name is as for
    /// [`symbol`](Self::symbol).
    ///
    /// What memory refuses, and the file has, is taken from the file: what is behind a `&str` in
    /// flash.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn static_value(&self, name: &str, memory: &mut impl Memory) -> Result<String, ValueError> {
        let symbol = self.symbol(name)?;
        let (name, address) = (symbol.name, symbol.address);
        let debug = self.debug()?;
        let Some((unit, offset)) = self.statics()?.get(&address) else {
            return Err(ValueError::NoType { name, address });
        };
        let unit = &debug.units[*unit].unit;
        let allowance = Allowance::new(MAX_ENTRIES, "the types of a value");
        let variable = Entry::read(At {
            unit,
            offset: *offset,
            allowance: &allowance,
        })?;
        let entry = variable
            .type_entry(debug)?
            .map(|entry| entry.stripped(debug))
            .transpose()?;
        let Some(entry) = entry.flatten() else {
            return Err(ValueError::NoType { name, address });
        };
        let size = entry.size(debug)?.unwrap_or(symbol.size).min(MAX_SIZE);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        if !memory.read(address, &mut bytes) {
            return Err(ValueError::Unreadable { name, address });
        }
        Ok(self.print(debug, unit, entry, &bytes, memory)?)
    }

    fn print<'a>(
        &'a self,
        debug: &'a Debug,
        unit: &'a gimli::Unit<Bytes>,
        entry: Entry<'a>,
        bytes: &[u8],
        memory: &mut impl Memory,
    ) -> Result<String> {
        let offset = unit.header.root_offset();
        let root = Entry::read(At {
            unit,
            offset,
            allowance: entry.at.allowance,
        })?;
        let language = root.attribute(gimli::DW_AT_language);
        let rust = matches!(
            language,
            Some(AttributeValue::Language(gimli::DW_LANG_Rust))
        );
        let mut printer = Printer {
            firmware: self,
            debug,
            memory,
            rust,
            text: String::new(),
            depth: 0,
        };
        printer.value(entry, bytes)?;
        Ok(printer.text)
    }

    fn statics(&self) -> Result<&Statics> {
        let statics = self.statics.get_or_init(|| find_statics(self.debug()?));
        statics.as_ref().map_err(Clone::clone)
    }
}

/// Every variable with a fixed address.
fn find_statics(debug: &Debug) -> Result<Statics> {
    let mut statics = Statics::new();
    for (at, unit) in debug.units.iter().enumerate() {
        let mut entries = unit.unit.entries_raw(None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if abbreviation.tag() != gimli::DW_TAG_variable {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec)?;
                if attribute.name() == gimli::DW_AT_location
                    && let AttributeValue::Exprloc(expression) = attribute.value()
                    && let Some(address) = fixed_address(debug, &unit.unit, expression)
                {
                    statics.entry(address).or_insert((at, offset));
                }
            }
        }
    }
    Ok(statics)
}

/// The address of an expression that is nothing but one.
fn fixed_address(
    debug: &Debug,
    unit: &gimli::Unit<Bytes>,
    expression: Expression<Bytes>,
) -> Option<u64> {
    let mut operations = expression.operations(unit.encoding());
    let address = match operations.next().ok()?? {
        gimli::Operation::Address { address } => address,
        gimli::Operation::AddressIndex { index } => debug.dwarf.address(unit, index).ok()?,
        _ => return None,
    };
    operations.next().ok()?.is_none().then_some(address)
}
