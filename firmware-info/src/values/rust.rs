//! What only Rust has: enums with data, `&str` and slices.

use std::fmt::Write as _;

use super::entry::Entry;
use super::print::{MAX_ELEMENTS, MAX_STRING, Printer};
use crate::dwarf::Result;
use crate::unwind::Memory;

impl<'a, M: Memory> Printer<'a, M> {
    /// The variant of a Rust enum that its discriminant says.
    pub(super) fn variant(&mut self, part: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        let discriminant = match part.refers(self.debug, gimli::DW_AT_discr)? {
            Some(member) => self.discriminant(&member, bytes)?,
            None => None,
        };
        let children = part.children()?;
        let variants = children
            .iter()
            .filter(|child| child.tag == gimli::DW_TAG_variant);
        let mut other = None;
        for variant in variants {
            let value = variant.attribute(gimli::DW_AT_discr_value);
            match (value, discriminant) {
                (None, _) => other = Some(variant),
                (Some(value), Some((unsigned, signed))) => {
                    let is_this = value.udata_value().map(i128::from) == Some(unsigned)
                        || value.sdata_value().map(i128::from) == Some(signed);
                    if is_this {
                        return self.variant_members(variant, bytes);
                    }
                }
                (Some(_), None) => {}
            }
        }
        match other {
            Some(variant) => self.variant_members(variant, bytes),
            None => {
                self.text.push_str("<no variant>");
                Ok(())
            }
        }
    }

    fn discriminant(&self, member: &Entry<'a>, bytes: &[u8]) -> Result<Option<(i128, i128)>> {
        let Some(entry) = self.type_of_member(member)? else {
            return Ok(None);
        };
        let bytes = self.bytes_of_member(member, &entry, bytes)?;
        Ok(bytes.map(|bytes| (self.integer(bytes, false), self.integer(bytes, true))))
    }

    fn variant_members(&mut self, variant: &Entry<'a>, bytes: &[u8]) -> Result<()> {
        let children = variant.children()?;
        match children
            .iter()
            .find(|child| child.tag == gimli::DW_TAG_member)
        {
            Some(member) => self.member(member, bytes),
            None => Ok(()),
        }
    }

    /// `&str` and `&[T]`: a pointer and a length.
    pub(super) fn slice(
        &mut self,
        name: &str,
        members: &[Entry<'a>],
        bytes: &[u8],
    ) -> Result<bool> {
        let named = |wanted: &str| {
            let mut members = members.iter();
            members.find(|member| member.name(self.debug).as_deref() == Some(wanted))
        };
        let (Some(pointer), Some(length)) = (named("data_ptr"), named("length")) else {
            return Ok(false);
        };
        let (Some((address, _)), Some((length, _))) = (
            self.discriminant(pointer, bytes)?,
            self.discriminant(length, bytes)?,
        ) else {
            return Ok(false);
        };
        let (address, length) = (address as u64, length as u64);
        if matches!(name, "&str" | "&mut str") {
            let mut text = vec![0; length.min(MAX_STRING) as usize];
            if self.read(address, &mut text) {
                self.quoted(&text, length > MAX_STRING);
            } else {
                _ = write!(self.text, "<{length} bytes at {address:#x}>");
            }
            return Ok(true);
        }
        let Some(element) = pointer
            .refers(self.debug, gimli::DW_AT_type)?
            .map(|pointer| pointer.refers(self.debug, gimli::DW_AT_type))
            .transpose()?
            .flatten()
        else {
            return Ok(false);
        };
        let size = element.size(self.debug)?.unwrap_or(0);
        let count = length.min(MAX_ELEMENTS);
        let mut data = vec![0; size.saturating_mul(count).min(1 << 16) as usize];
        if size.saturating_mul(count) > 1 << 16 || !self.read(address, &mut data) {
            _ = write!(self.text, "<{length} elements at {address:#x}>");
            return Ok(true);
        }
        self.text.push('&');
        self.dimensions(&element, &[count], &data)?;
        if length > count {
            self.text.insert_str(self.text.len() - 1, ", …");
        }
        Ok(true)
    }
}
