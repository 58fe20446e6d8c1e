//! The name of an entry: its own, or that of the entry it is an instance of.

use std::borrow::Cow;
use std::sync::Arc;

use gimli::{AttributeValue, Reader as _, UnitOffset};

use super::{Bytes, Debug, LiveCode, Result, Unit};
use crate::demangle::demangle;

/// How many entries are gone through: an instance, its abstract form, its declaration, and some.
const MAX_STEPS: usize = 16;

/// A longer name is cut.
const MAX_NAME: usize = 4096;

/// What a function is called in the source: its linkage name demangled, or else its plain name. A
/// linkage name that is not mangled is what the function is exported as (`main` for cortex-m-rt's
/// `__cortex_m_rt_main_trampoline`).
pub(crate) fn function(debug: &Debug, unit: &Unit, offset: UnitOffset) -> Result<Option<Arc<str>>> {
    let (mut plain, mut exported) = (None, None);
    for entry in with_origins(debug, unit, offset) {
        let (unit, entry) = entry?;
        let text = |value: AttributeValue<Bytes>| -> Result<String> {
            let text = debug.dwarf.attr_string(&unit.unit, value)?;
            Ok(cut(text.to_string_lossy()?.into_owned()))
        };
        if let Some(value) = entry.linkage {
            let linkage = text(value)?;
            match demangle(&linkage) {
                Cow::Owned(name) => return Ok(Some(name.into())),
                Cow::Borrowed(_) => exported = Some(linkage),
            }
        }
        if plain.is_none()
            && let Some(value) = entry.name
        {
            plain = Some(text(value)?);
        }
    }
    Ok(plain.or(exported).map(Into::into))
}

/// Where a function is declared: the file's path and the line.
pub(crate) fn declared(
    debug: &Debug,
    unit: &Unit,
    live: &LiveCode<'_>,
    offset: UnitOffset,
) -> Result<Option<(Arc<str>, u32)>> {
    for entry in with_origins(debug, unit, offset) {
        let (unit, entry) = entry?;
        if let (Some(AttributeValue::FileIndex(file)), Some(line)) = (entry.file, entry.line) {
            let path = debug.lines(unit, live)?.path(file);
            return Ok(path.map(|path| (path, line)));
        }
    }
    Ok(None)
}

/// An entry, and those that it is an instance of.
fn with_origins<'a>(
    debug: &'a Debug,
    unit: &'a Unit,
    offset: UnitOffset,
) -> impl Iterator<Item = Result<(&'a Unit, Names)>> {
    let mut next = Some((unit, offset));
    let entries = std::iter::from_fn(move || {
        let (unit, offset) = next.take()?;
        let names = Names::read(&unit.unit, offset).map(|names| {
            next = match names.origin {
                Some(AttributeValue::UnitRef(at)) => Some((unit, at)),
                Some(AttributeValue::DebugInfoRef(at)) => debug.unit_of(at),
                _ => None,
            };
            (unit, names)
        });
        Some(names)
    });
    entries.take(MAX_STEPS)
}

#[derive(Default)]
struct Names {
    linkage: Option<AttributeValue<Bytes>>,
    name: Option<AttributeValue<Bytes>>,
    origin: Option<AttributeValue<Bytes>>,
    file: Option<AttributeValue<Bytes>>,
    line: Option<u32>,
}

impl Names {
    fn read(unit: &gimli::Unit<Bytes>, offset: UnitOffset) -> Result<Self> {
        let mut names = Self::default();
        let mut entries = unit.entries_raw(Some(offset))?;
        let Some(abbreviation) = entries.read_abbreviation()? else {
            return Ok(names);
        };
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                    names.linkage = Some(attribute.value());
                }
                gimli::DW_AT_name => names.name = Some(attribute.value()),
                gimli::DW_AT_decl_file => names.file = Some(attribute.value()),
                gimli::DW_AT_decl_line => {
                    let line = attribute.udata_value().filter(|line| *line > 0);
                    names.line = line.and_then(|line| u32::try_from(line).ok());
                }
                gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                    names.origin = Some(attribute.value());
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

pub(crate) fn cut(mut text: String) -> String {
    if text.len() > MAX_NAME {
        text.truncate(text.floor_char_boundary(MAX_NAME));
    }
    text
}
