//! Abbreviation tables, each parsed once, and none that is longer than its section.

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{Abbreviations, DebugAbbrevOffset, Reader as _, Section as _};

use super::{Allowance, Bytes, Result};
use crate::error::DebugInfoError;

/// An entry has a dozen attributes; each costs time whenever such an entry is read, even one that
/// takes no byte.
const MAX_ATTRIBUTES: usize = 256;

pub(crate) struct AbbreviationCache {
    tables: HashMap<usize, Arc<Abbreviations>>,
    /// Tables that overlap would be read again and again.
    bytes: Allowance,
}

impl AbbreviationCache {
    pub(crate) fn new(section_size: u64) -> Self {
        let bytes = Allowance::new(2 * section_size, "tables of abbreviations overlap");
        Self {
            tables: HashMap::new(),
            bytes,
        }
    }

    pub(crate) fn get(
        &mut self,
        dwarf: &gimli::Dwarf<Bytes>,
        offset: DebugAbbrevOffset,
    ) -> Result<Arc<Abbreviations>> {
        if let Some(table) = self.tables.get(&offset.0) {
            return Ok(table.clone());
        }
        let mut reader = dwarf.debug_abbrev.reader().clone();
        reader.skip(offset.0)?;
        self.check(reader)?;
        let table = Arc::new(dwarf.debug_abbrev.abbreviations(offset)?);
        self.tables.insert(offset.0, table.clone());
        Ok(table)
    }

    fn check(&self, mut reader: Bytes) -> Result<()> {
        let before = reader.len();
        while reader.read_uleb128()? != 0 {
            reader.read_uleb128()?;
            reader.read_u8()?;
            let mut attributes = 0;
            loop {
                let name = reader.read_uleb128()?;
                let form = reader.read_uleb128()?;
                if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                    reader.read_sleb128()?;
                }
                if (name, form) == (0, 0) {
                    break;
                }
                attributes += 1;
                if attributes > MAX_ATTRIBUTES {
                    return Err(DebugInfoError::Limit("an entry has too many attributes"));
                }
            }
        }
        self.bytes.take((before - reader.len()) as u64)
    }
}
