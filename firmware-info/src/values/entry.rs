//! One entry of the debug information: the attributes that types and variables are made of.

use gimli::{AttributeValue, Reader as _, UnitOffset};

use crate::dwarf::name::cut;
use crate::dwarf::{Allowance, Bytes, Debug, Result};

/// A structure has no more members than this, nor an enumeration values: beyond nobody reads.
const MAX_CHILDREN: usize = 4096;

/// Where an entry is.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) unit: &'a gimli::Unit<Bytes>,
    pub(crate) offset: UnitOffset,
    /// How many more entries may be read for this answer.
    pub(crate) allowance: &'a Allowance,
}

pub(crate) struct Entry<'a> {
    pub(crate) at: At<'a>,
    pub(crate) tag: gimli::DwTag,
    attributes: Vec<gimli::Attribute<Bytes>>,
    has_children: bool,
}

impl<'a> Entry<'a> {
    pub(crate) fn read(at: At<'a>) -> Result<Self> {
        at.allowance.take(1)?;
        let mut entries = at.unit.entries_raw(Some(at.offset))?;
        let Some(abbreviation) = entries.read_abbreviation()? else {
            return Ok(Self {
                at,
                tag: gimli::DW_TAG_null,
                attributes: Vec::new(),
                has_children: false,
            });
        };
        let attributes = abbreviation.attributes().iter();
        let attributes = attributes.map(|spec| entries.read_attribute(*spec));
        Ok(Self {
            at,
            tag: abbreviation.tag(),
            attributes: attributes.collect::<Result<_, _>>()?,
            has_children: abbreviation.has_children(),
        })
    }

    /// The entries directly below it.
    pub(crate) fn children(&self) -> Result<Vec<Entry<'a>>> {
        let mut children = Vec::new();
        if !self.has_children {
            return Ok(children);
        }
        let mut entries = self.at.unit.entries_raw(Some(self.at.offset))?;
        let depth = entries.next_depth();
        let mut first = true;
        while !entries.is_empty() && (first || entries.next_depth() > depth) {
            self.at.allowance.take(1)?;
            let (offset, is_child) = (entries.next_offset(), entries.next_depth() == depth + 1);
            let Some(abbreviation) = entries.read_abbreviation()? else {
                first = false;
                continue;
            };
            entries.skip_attributes(abbreviation.attributes())?;
            if !first && is_child {
                children.push(Entry::read(At { offset, ..self.at })?);
            }
            first = false;
            if children.len() == MAX_CHILDREN {
                break;
            }
        }
        Ok(children)
    }

    pub(crate) fn attribute(&self, name: gimli::DwAt) -> Option<AttributeValue<Bytes>> {
        let mut attributes = self.attributes.iter();
        attributes
            .find(|attribute| attribute.name() == name)
            .map(gimli::Attribute::value)
    }

    pub(crate) fn number(&self, name: gimli::DwAt) -> Option<u64> {
        self.attribute(name)?.udata_value()
    }

    pub(crate) fn signed(&self, name: gimli::DwAt) -> Option<i64> {
        self.attribute(name)?.sdata_value()
    }

    pub(crate) fn name(&self, debug: &Debug) -> Option<String> {
        let value = self.attribute(gimli::DW_AT_name)?;
        let text = debug.dwarf.attr_string(self.at.unit, value).ok()?;
        Some(cut(text.to_string_lossy().ok()?.into_owned()))
    }

    /// The entry that an attribute refers to.
    pub(crate) fn refers(&self, debug: &'a Debug, name: gimli::DwAt) -> Result<Option<Entry<'a>>> {
        let at = match self.attribute(name) {
            Some(AttributeValue::UnitRef(offset)) => At { offset, ..self.at },
            Some(AttributeValue::DebugInfoRef(offset)) => match debug.unit_of(offset) {
                Some((unit, offset)) => At {
                    unit: &unit.unit,
                    offset,
                    ..self.at
                },
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Entry::read(at).map(Some)
    }

    /// Its type, or that of the entry it is an instance of.
    pub(crate) fn type_entry(&self, debug: &'a Debug) -> Result<Option<Entry<'a>>> {
        if let Some(found) = self.refers(debug, gimli::DW_AT_type)? {
            return Ok(Some(found));
        }
        match self.origin(debug)? {
            Some(origin) => origin.refers(debug, gimli::DW_AT_type),
            None => Ok(None),
        }
    }

    /// Its name, or that of the entry it is an instance of.
    pub(crate) fn name_or_origins(&self, debug: &'a Debug) -> Result<Option<String>> {
        if let Some(name) = self.name(debug) {
            return Ok(Some(name));
        }
        Ok(self.origin(debug)?.and_then(|origin| origin.name(debug)))
    }

    /// The entry it is an instance of.
    fn origin(&self, debug: &'a Debug) -> Result<Option<Entry<'a>>> {
        match self.refers(debug, gimli::DW_AT_abstract_origin)? {
            Some(origin) => Ok(Some(origin)),
            None => self.refers(debug, gimli::DW_AT_specification),
        }
    }

    /// What is behind typedefs and qualifiers.
    pub(crate) fn stripped(self, debug: &'a Debug) -> Result<Option<Entry<'a>>> {
        let mut entry = self;
        for _ in 0..32 {
            match entry.tag {
                gimli::DW_TAG_typedef
                | gimli::DW_TAG_const_type
                | gimli::DW_TAG_volatile_type
                | gimli::DW_TAG_atomic_type
                | gimli::DW_TAG_restrict_type => match entry.refers(debug, gimli::DW_AT_type)? {
                    Some(next) => entry = next,
                    None => return Ok(None),
                },
                _ => return Ok(Some(entry)),
            }
        }
        Ok(None)
    }

    /// The size of a value of this type in bytes.
    pub(crate) fn size(&self, debug: &'a Debug) -> Result<Option<u64>> {
        if let Some(size) = self.number(gimli::DW_AT_byte_size) {
            return Ok(Some(size));
        }
        match self.tag {
            gimli::DW_TAG_array_type => {
                let Some(element) = self.refers(debug, gimli::DW_AT_type)? else {
                    return Ok(None);
                };
                let Some(element) = element.stripped(debug)? else {
                    return Ok(None);
                };
                let size = element.number(gimli::DW_AT_byte_size);
                let count = self.counts()?.into_iter().try_fold(1, u64::checked_mul);
                Ok(size
                    .zip(count)
                    .and_then(|(size, count)| size.checked_mul(count)))
            }
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => {
                Ok(Some(self.at.unit.header.address_size().into()))
            }
            _ => Ok(None),
        }
    }

    /// How many elements an array has, in each dimension.
    pub(crate) fn counts(&self) -> Result<Vec<u64>> {
        let children = self.children()?;
        let dimensions = children
            .iter()
            .filter(|child| child.tag == gimli::DW_TAG_subrange_type);
        Ok(dimensions
            .map(|dimension| {
                dimension.number(gimli::DW_AT_count).unwrap_or_else(|| {
                    let upper = dimension.number(gimli::DW_AT_upper_bound);
                    upper.map_or(0, |upper| upper.wrapping_add(1))
                })
            })
            .collect())
    }
}
