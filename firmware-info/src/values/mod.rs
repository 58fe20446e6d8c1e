//! Values of statics and locals, by their types in the debug information.

use std::collections::HashMap;
use std::fmt;

use gimli::{AttributeValue, Expression, Location as Place, Piece, UnitOffset, Value as Number};

use crate::Firmware;
use crate::dwarf::functions::Function;
use crate::dwarf::{Allowance, Bytes, Debug, Result, Unit};
use crate::error::{DebugInfoError, NameError};
use crate::unwind::{Context, Frame, Memory};

mod entry;
mod print;

use entry::{At, Entry};
use print::Printer;

/// A larger value is not read.
const MAX_SIZE: u64 = 1 << 16;

/// How many entries are read for one value: its types, and theirs.
const MAX_ENTRIES: u64 = 1_000_000;

/// A frame has no more variables than are shown.
const MAX_LOCALS: usize = 256;

/// A static's value cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The name stands for no symbol, or for several.
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
    /// Which of the functions in [`Frame::functions`] it belongs to.
    pub function: usize,
    /// It is a parameter.
    pub is_parameter: bool,
    /// Its value as its language writes it; `None` where the compiler kept none that can be told
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

    /// The parameters and variables of a frame that are in scope where it stands, those of the
    /// innermost function first.
    ///
    /// # Errors
    /// The debug information cannot be used. What cannot be told of one variable is no error.
    pub fn locals(&self, frame: &Frame, memory: &mut impl Memory) -> Result<Vec<Local>> {
        let debug = self.debug()?;
        let live = self.live_code();
        let address = frame.lookup();
        for unit in debug.units_at(address) {
            if let Some(function) = debug.functions(unit, &live)?.at(address) {
                return self.locals_of(debug, unit, function, frame, memory);
            }
        }
        Ok(Vec::new())
    }

    fn locals_of(
        &self,
        debug: &Debug,
        unit: &Unit,
        function: &Function,
        frame: &Frame,
        memory: &mut impl Memory,
    ) -> Result<Vec<Local>> {
        let unit = &unit.unit;
        let scopes = function.scopes(&debug.dwarf, unit, debug.budget())?;
        let chain = Function::chain(scopes, frame.lookup());
        let inlined = chain.iter().filter(|scope| scope.inlined.is_some()).count();
        let allowance = Allowance::new(MAX_ENTRIES, "the variables of a frame");
        let at = |offset| At {
            unit,
            offset,
            allowance: &allowance,
        };
        let outer = Entry::read(at(function.offset))?;
        let frame_base = self.frame_base(debug, &outer, frame, memory);
        let mut locals = Vec::new();
        // Outermost first; each inlined function is one level further in.
        let mut level = inlined;
        let mut owners = vec![(level, outer)];
        for scope in chain {
            level -= usize::from(scope.inlined.is_some());
            owners.push((level, Entry::read(at(scope.offset))?));
        }
        for (level, owner) in owners.into_iter().rev() {
            for child in owner.children()? {
                let is_parameter = child.tag == gimli::DW_TAG_formal_parameter;
                if !(is_parameter || child.tag == gimli::DW_TAG_variable)
                    || locals.len() == MAX_LOCALS
                {
                    continue;
                }
                let Some(name) = child.name_or_origins(debug)? else {
                    continue;
                };
                let value = self.local_value(debug, &child, frame, frame_base, memory);
                locals.push(Local {
                    name,
                    function: level,
                    is_parameter,
                    value,
                });
            }
        }
        Ok(locals)
    }

    fn frame_base(
        &self,
        debug: &Debug,
        function: &Entry<'_>,
        frame: &Frame,
        memory: &mut impl Memory,
    ) -> Option<u64> {
        let expression = self.expression(debug, function, gimli::DW_AT_frame_base, frame)?;
        let unit = function.at.unit;
        let pieces = self.context(debug, unit, frame, None, memory).pieces(
            expression,
            unit.encoding(),
            None,
        );
        match pieces.ok()?[..] {
            [
                Piece {
                    location: Place::Address { address },
                    ..
                },
            ] => Some(address),
            [
                Piece {
                    location: Place::Register { register },
                    ..
                },
            ] => frame.registers.get(register.0),
            _ => None,
        }
    }

    /// `None` where the compiler kept no value, or where it cannot be told.
    fn local_value(
        &self,
        debug: &Debug,
        variable: &Entry<'_>,
        frame: &Frame,
        frame_base: Option<u64>,
        memory: &mut impl Memory,
    ) -> Option<String> {
        let entry = variable.type_entry(debug).ok()??.stripped(debug).ok()??;
        let size = entry.size(debug).ok()?.filter(|size| *size <= MAX_SIZE)?;
        let size = usize::try_from(size).ok()?;
        let unit = variable.at.unit;
        let bytes = match variable.attribute(gimli::DW_AT_const_value) {
            Some(AttributeValue::Block(bytes)) => {
                gimli::Reader::to_slice(&bytes).ok()?.into_owned()
            }
            Some(value) => {
                let value = value
                    .sdata_value()
                    .or(value.udata_value().map(|value| value as i64))?;
                self.bytes_of(value as u64, size)
            }
            None => {
                let expression = self.expression(debug, variable, gimli::DW_AT_location, frame)?;
                let pieces = self
                    .context(debug, unit, frame, frame_base, memory)
                    .pieces(expression, unit.encoding(), None)
                    .ok()?;
                self.gather(&pieces, size, frame, memory)?
            }
        };
        let bytes = bytes.get(..size)?;
        self.print(debug, unit, entry, bytes, memory).ok()
    }

    /// The expression of an attribute that holds where a frame stands.
    fn expression(
        &self,
        debug: &Debug,
        entry: &Entry<'_>,
        name: gimli::DwAt,
        frame: &Frame,
    ) -> Option<Expression<Bytes>> {
        match entry.attribute(name)? {
            AttributeValue::Exprloc(expression) => Some(expression),
            value => {
                let unit = entry.at.unit;
                let mut list = debug.dwarf.attr_locations(unit, value).ok()??;
                while let Some(found) = list.next().ok()? {
                    entry.at.allowance.take(1).ok()?;
                    if (found.range.begin..found.range.end).contains(&frame.lookup()) {
                        return Some(found.data);
                    }
                }
                None
            }
        }
    }

    /// The bytes of a value that lies in several places.
    fn gather(
        &self,
        pieces: &[Piece<Bytes>],
        size: usize,
        frame: &Frame,
        memory: &mut impl Memory,
    ) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for piece in pieces {
            let wanted = match piece.size_in_bits {
                Some(bits) if bits % 8 == 0 => usize::try_from(bits / 8).ok()?,
                Some(_) => return None,
                None => size - bytes.len(),
            };
            if piece.bit_offset.unwrap_or(0) != 0 || bytes.len().checked_add(wanted)? > size {
                return None;
            }
            match &piece.location {
                Place::Address { address } => {
                    let start = bytes.len();
                    bytes.resize(start + wanted, 0);
                    if !memory.read(*address, &mut bytes[start..]) {
                        return None;
                    }
                }
                Place::Register { register } => {
                    let value = frame.registers.get(register.0)?;
                    bytes.extend(self.bytes_of(value, wanted));
                }
                Place::Value {
                    value: Number::Generic(value),
                } => {
                    bytes.extend(self.bytes_of(*value, wanted));
                }
                Place::Bytes { value } => {
                    let value = gimli::Reader::to_slice(value).ok()?;
                    bytes.extend_from_slice(value.get(..wanted)?);
                }
                _ => return None,
            }
        }
        (bytes.len() == size).then_some(bytes)
    }

    fn bytes_of(&self, value: u64, size: usize) -> Vec<u8> {
        let mut bytes = value.to_le_bytes().to_vec();
        bytes.resize(size, 0);
        if !self.image.little_endian {
            bytes.reverse();
        }
        bytes
    }

    fn context<'a, M: Memory>(
        &self,
        debug: &'a Debug,
        unit: &'a gimli::Unit<Bytes>,
        frame: &'a Frame,
        frame_base: Option<u64>,
        memory: &'a mut M,
    ) -> Context<'a, M> {
        Context {
            architecture: self.architecture(),
            little_endian: self.image.little_endian,
            registers: &frame.registers,
            memory,
            cfa: frame.cfa,
            frame_base,
            unit: Some((debug, unit)),
        }
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
