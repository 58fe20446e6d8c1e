//! The parameters and variables of a frame, wherever the compiler put them.

use gimli::{AttributeValue, Expression, Location as Place, Piece, Value as Number};

use super::entry::{At, Entry};
use super::{Local, MAX_ENTRIES, MAX_SIZE};
use crate::Firmware;
use crate::dwarf::functions::Function;
use crate::dwarf::{Allowance, Bytes, Debug, Result, Unit};
use crate::unwind::{Context, Frame, Memory};

/// A frame has no more variables than are shown.
const MAX_LOCALS: usize = 256;

impl Firmware {
    /// The parameters and variables of a frame that are in scope at its program counter, those of
    /// the innermost function first.
    ///
    /// # Errors
    /// The debug information cannot be used. A variable that cannot be read is no error.
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

    /// `None` where the compiler kept no value, or where it cannot be read.
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

    /// The expression of an attribute that holds at a frame's program counter.
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
}
