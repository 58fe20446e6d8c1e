//! Values as their language writes them.

use std::fmt::{self, Write as _};

use gimli::AttributeValue;

use super::entry::Entry;
use crate::Firmware;
use crate::dwarf::{Debug, Result};
use crate::error::DebugInfoError;
use crate::unwind::Memory;

/// Longer texts are cut.
const MAX_TEXT: usize = 8192;
/// Further elements of an array are left out.
pub(super) const MAX_ELEMENTS: u64 = 200;
/// Structures within structures.
const MAX_DEPTH: usize = 16;
/// Characters of a string that a pointer points to.
pub(super) const MAX_STRING: u64 = 200;

pub(crate) struct Printer<'a, M> {
    pub(crate) firmware: &'a Firmware,
    pub(crate) debug: &'a Debug,
    pub(crate) memory: &'a mut M,
    pub(crate) rust: bool,
    pub(crate) text: String,
    pub(crate) depth: usize,
}

impl<'a, M: Memory> Printer<'a, M> {
    /// Writes a value of this type, whose bytes these are.
    pub(crate) fn value(&mut self, entry: Entry<'a>, bytes: &[u8]) -> Result<()> {
        if self.text.len() > MAX_TEXT {
            return Err(DebugInfoError::Limit("the value is too long to print"));
        }
        let Some(entry) = entry.stripped(self.debug)? else {
            self.text.push_str(if self.rust { "()" } else { "void" });
            return Ok(());
        };
        if self.depth == MAX_DEPTH {
            self.text.push('…');
            return Ok(());
        }
        self.depth += 1;
        match entry.tag {
            gimli::DW_TAG_base_type => self.base(&entry, bytes),
            gimli::DW_TAG_enumeration_type => self.enumeration(&entry, bytes)?,
            gimli::DW_TAG_array_type => self.array(&entry, bytes)?,
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type => {
                self.structure(&entry, bytes)?;
            }
            gimli::DW_TAG_union_type => self.members(&entry, bytes)?,
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => self.pointer(&entry, bytes)?,
            tag => _ = write!(self.text, "<{tag}>"),
        }
        self.depth -= 1;
        Ok(())
    }

    pub(super) fn integer(&self, bytes: &[u8], signed: bool) -> i128 {
        let mut value: u128 = 0;
        let fold = |value: u128, byte: &u8| value << 8 | u128::from(*byte);
        let bytes = &bytes[..bytes.len().min(16)];
        value = if self.firmware.image.little_endian {
            bytes.iter().rev().fold(value, fold)
        } else {
            bytes.iter().fold(value, fold)
        };
        let unused = 128 - 8 * bytes.len() as u32;
        if signed && unused < 128 {
            return (value << unused) as i128 >> unused;
        }
        value as i128
    }

    fn base(&mut self, entry: &Entry<'a>, bytes: &[u8]) {
        let encoding = match entry.attribute(gimli::DW_AT_encoding) {
            Some(AttributeValue::Encoding(encoding)) => encoding,
            _ => gimli::DW_ATE_unsigned,
        };
        let signed = matches!(encoding, gimli::DW_ATE_signed | gimli::DW_ATE_signed_char);
        let value = self.integer(bytes, signed);
        let letter = u32::try_from(value).ok().and_then(char::from_u32);
        _ = match (encoding, bytes.len()) {
            // The unit type of Rust.
            (_, 0) => write!(self.text, "()"),
            (gimli::DW_ATE_boolean, _) if value == 0 => write!(self.text, "false"),
            (gimli::DW_ATE_boolean, _) if value == 1 => write!(self.text, "true"),
            (gimli::DW_ATE_float, 4) => self.float(f32::from_bits(value as u32)),
            (gimli::DW_ATE_float, 8) => self.float(f64::from_bits(value as u64)),
            (gimli::DW_ATE_UTF, _) => match letter {
                Some(letter) => write!(self.text, "{letter:?}"),
                None => write!(self.text, "{value:#x}"),
            },
            (gimli::DW_ATE_signed_char | gimli::DW_ATE_unsigned_char, 1) if !self.rust => {
                match letter.filter(|letter| letter.is_ascii_graphic() || *letter == ' ') {
                    Some(letter) => write!(self.text, "{value} {letter:?}"),
                    None => write!(self.text, "{value}"),
                }
            }
            // A u128 is above what an i128 holds.
            (_, 16) if !signed => write!(self.text, "{}", value as u128),
            _ => write!(self.text, "{value}"),
        };
    }

    fn float(&mut self, value: impl fmt::Display + fmt::Debug) -> fmt::Result {
        match self.rust {
            true => write!(self.text, "{value:?}"),
            false => write!(self.text, "{value}"),
        }
    }

    fn enumeration(&mut self, entry: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        for signed in [false, true] {
            let value = self.integer(bytes, signed);
            for child in entry.children()? {
                let is_this = child.number(gimli::DW_AT_const_value).map(i128::from) == Some(value)
                    || child.signed(gimli::DW_AT_const_value).map(i128::from) == Some(value);
                if child.tag == gimli::DW_TAG_enumerator && is_this {
                    self.text
                        .push_str(&child.name(self.debug).unwrap_or_default());
                    return Ok(());
                }
            }
        }
        _ = write!(self.text, "{}", self.integer(bytes, false));
        Ok(())
    }

    fn array(&mut self, entry: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        let counts = entry.counts()?;
        let Some(element) = entry.refers(self.debug, gimli::DW_AT_type)? else {
            return Ok(());
        };
        if !self.rust && counts.len() == 1 && self.is_char(element.at)? {
            let end = bytes
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(bytes.len());
            self.quoted(&bytes[..end], false);
            return Ok(());
        }
        if counts.len() > MAX_DEPTH {
            return Err(DebugInfoError::Limit("an array has too many dimensions"));
        }
        self.dimensions(&element, &counts, bytes)
    }

    pub(super) fn dimensions(
        &mut self,
        element: &Entry<'a>,
        counts: &[u64],
        bytes: &[u8],
    ) -> Result<()> {
        let [count, inner @ ..] = counts else {
            return self.value(Entry::read(element.at)?, bytes);
        };
        let (open, close) = if self.rust { ('[', ']') } else { ('{', '}') };
        self.text.push(open);
        let size = usize::try_from(*count)
            .ok()
            .and_then(|count| bytes.len().checked_div(count));
        let size = size.unwrap_or(0);
        for at in 0..*count {
            if at == MAX_ELEMENTS || self.text.len() > MAX_TEXT {
                self.text.push_str(", …");
                break;
            }
            if at > 0 {
                self.text.push_str(", ");
            }
            let begin = at as usize * size;
            self.dimensions(element, inner, &bytes[begin..begin + size])?;
        }
        self.text.push(close);
        Ok(())
    }

    fn structure(&mut self, entry: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        let name = entry.name(self.debug).unwrap_or_default();
        if !self.rust {
            return self.members(entry, bytes);
        }
        let children = entry.children()?;
        if let Some(part) = children
            .iter()
            .find(|child| child.tag == gimli::DW_TAG_variant_part)
        {
            return self.variant(part, bytes);
        }
        if name.starts_with('&') && self.slice(&name, &children, bytes)? {
            return Ok(());
        }
        let is_tuple = name.starts_with('(');
        if !is_tuple {
            // Without the path's generic arguments, as `Debug` writes it.
            self.text
                .push_str(name.split('<').next().unwrap_or_default());
        }
        let members = children
            .into_iter()
            .filter(|child| child.tag == gimli::DW_TAG_member);
        let members: Vec<Entry<'a>> = members.collect();
        let numbered = members.first().and_then(|first| first.name(self.debug));
        let numbered = numbered.is_some_and(|name| name == "__0");
        let (open, close) = match (numbered || is_tuple, members.is_empty()) {
            (false, true) => ("", ""),
            (true, _) => ("(", ")"),
            (false, false) => (" { ", " }"),
        };
        self.text.push_str(open);
        for (at, member) in members.into_iter().enumerate() {
            self.text.push_str(if at > 0 { ", " } else { "" });
            if !numbered {
                let name = member.name(self.debug).unwrap_or_default();
                _ = write!(self.text, "{name}: ");
            }
            self.member(&member, bytes)?;
        }
        self.text.push_str(close);
        Ok(())
    }

    /// A structure or union of C or C++.
    fn members(&mut self, entry: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        self.text.push('{');
        let mut first = true;
        for child in entry.children()? {
            let is_base = child.tag == gimli::DW_TAG_inheritance;
            // A static member is declared here and is elsewhere.
            let is_static = child.attribute(gimli::DW_AT_external).is_some();
            if !(child.tag == gimli::DW_TAG_member && !is_static || is_base) {
                continue;
            }
            self.text.push_str(if first { "" } else { ", " });
            first = false;
            match child.name(self.debug) {
                Some(name) => _ = write!(self.text, "{name} = "),
                None if is_base => self.text.push_str("<base> = "),
                None => {}
            }
            self.member(&child, bytes)?;
        }
        self.text.push('}');
        Ok(())
    }

    pub(super) fn member(&mut self, member: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        let Some(entry) = self.type_of_member(member)? else {
            return Ok(());
        };
        if let Some(bits) = member.number(gimli::DW_AT_bit_size) {
            return self.bit_field(member, entry, bits, bytes);
        }
        match self.bytes_of_member(member, &entry, bytes)? {
            Some(bytes) => self.value(entry, bytes),
            None => {
                self.text.push_str("<outside>");
                Ok(())
            }
        }
    }

    pub(super) fn type_of_member(&self, member: &Entry<'a>) -> Result<Option<Entry<'a>>> {
        let entry = member.refers(self.debug, gimli::DW_AT_type)?;
        let stripped = entry.map(|entry| entry.stripped(self.debug)).transpose()?;
        Ok(stripped.flatten())
    }

    /// A member's bytes among those of its structure.
    pub(super) fn bytes_of_member<'b>(
        &self,
        member: &Entry<'a>,
        entry: &Entry<'a>,
        bytes: &'b [u8],
    ) -> Result<Option<&'b [u8]>> {
        let at = member.number(gimli::DW_AT_data_member_location);
        let begin = usize::try_from(at.unwrap_or(0)).unwrap_or(usize::MAX);
        let size = usize::try_from(entry.size(self.debug)?.unwrap_or(0)).unwrap_or(usize::MAX);
        Ok(bytes.get(begin..begin.saturating_add(size)))
    }

    fn bit_field(
        &mut self,
        member: &Entry<'a>,
        entry: Entry<'a>,
        bits: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let storage = member
            .number(gimli::DW_AT_byte_size)
            .or(entry.size(self.debug)?);
        let at = member
            .number(gimli::DW_AT_data_member_location)
            .unwrap_or(0);
        let offset = match (
            member.number(gimli::DW_AT_data_bit_offset),
            member.number(gimli::DW_AT_bit_offset),
        ) {
            (Some(offset), _) => Some(offset),
            // Up to DWARF 3: from the most significant bit of its storage.
            (None, Some(offset)) => storage.and_then(|size| {
                let last = size
                    .checked_mul(8)?
                    .checked_sub(offset)?
                    .checked_sub(bits)?;
                at.checked_mul(8)?.checked_add(last)
            }),
            (None, None) => at.checked_mul(8),
        };
        let is_plain = self.firmware.image.little_endian && (1..=64).contains(&bits);
        let Some(offset) = offset.filter(|_| is_plain) else {
            self.text.push_str("<bit field>");
            return Ok(());
        };
        let begin = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let window = bytes.get(begin..).unwrap_or_default();
        let window = &window[..window.len().min(9)];
        let value = self.integer(window, false) as u128 >> (offset % 8);
        let mut value = (value & ((1 << bits) - 1)) as u64;
        let signed = matches!(
            entry.attribute(gimli::DW_AT_encoding),
            Some(AttributeValue::Encoding(gimli::DW_ATE_signed))
        );
        if signed && bits < 64 && value >> (bits - 1) & 1 == 1 {
            value |= u64::MAX << bits;
        }
        let size = usize::try_from(entry.size(self.debug)?.unwrap_or(8))
            .unwrap_or(8)
            .min(8);
        self.value(entry, &value.to_le_bytes()[..size])
    }

    fn pointer(&mut self, entry: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        let address = self.integer(bytes, false) as u64;
        _ = write!(self.text, "{address:#x}");
        let Some(target) = entry.refers(self.debug, gimli::DW_AT_type)? else {
            return Ok(());
        };
        let is_char = !self.rust && self.is_char(target.at)?;
        let is_function = target
            .stripped(self.debug)?
            .is_some_and(|target| target.tag == gimli::DW_TAG_subroutine_type);
        if is_char && address != 0 {
            let mut text = Vec::new();
            let mut byte = [0];
            while text.len() < MAX_STRING as usize
                && self.read(address.wrapping_add(text.len() as u64), &mut byte)
                && byte[0] != 0
            {
                text.push(byte[0]);
            }
            if byte[0] == 0 && !text.is_empty() {
                self.text.push(' ');
                self.quoted(&text, false);
            }
        } else if is_function && let Some(found) = self.firmware.symbol_at(address & !1) {
            _ = write!(self.text, " <{found}>");
        }
        Ok(())
    }

    fn is_char(&self, at: super::entry::At<'a>) -> Result<bool> {
        let Some(entry) = Entry::read(at)?.stripped(self.debug)? else {
            return Ok(false);
        };
        // `uint8_t` has the same encoding, and is no text.
        Ok(entry.tag == gimli::DW_TAG_base_type
            && entry.name(self.debug).as_deref() == Some("char"))
    }

    pub(super) fn quoted(&mut self, bytes: &[u8], cut: bool) {
        let text = String::from_utf8_lossy(bytes);
        _ = write!(self.text, "{text:?}");
        if cut {
            self.text.push('…');
        }
    }

    /// What the target's memory has, or what the file loads there where it cannot be asked.
    pub(super) fn read(&mut self, address: u64, buffer: &mut [u8]) -> bool {
        self.memory.read(address, buffer) || self.firmware.loaded(address, buffer)
    }
}
