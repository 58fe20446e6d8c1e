//! A unit's root entry, read without its line program: that is for the first who asks for a line.

use std::sync::Arc;

use gimli::{
    Abbreviations, AttributeValue, DebugAddrBase, DebugLineOffset, DebugLocListsBase,
    DebugRngListsBase, DebugStrOffsetsBase, DwarfFileType, Unit, UnitHeader,
};

use super::{Bytes, Result};
use crate::error::DebugInfoError;

/// What `gimli::Unit::new` does, less the header of the line program.
pub(crate) fn parse(
    dwarf: &gimli::Dwarf<Bytes>,
    header: UnitHeader<Bytes>,
    abbreviations: Arc<Abbreviations>,
) -> Result<(Unit<Bytes>, Option<DebugLineOffset>)> {
    let (encoding, file) = (header.encoding(), DwarfFileType::Main);
    let mut unit = Unit {
        abbreviations,
        name: None,
        comp_dir: None,
        low_pc: 0,
        str_offsets_base: DebugStrOffsetsBase::default_for_encoding_and_file(encoding, file),
        addr_base: DebugAddrBase(0),
        loclists_base: DebugLocListsBase::default_for_encoding_and_file(encoding, file),
        rnglists_base: DebugRngListsBase::default_for_encoding_and_file(encoding, file),
        line_program: None,
        dwo_id: None,
        header,
    };
    let (mut comp_dir, mut low_pc, mut line_program) = (None, None, None);
    let mut entries = unit.header.entries_raw(&unit.abbreviations, None)?;
    let root = entries
        .read_abbreviation()?
        .ok_or_else(|| DebugInfoError::Damaged("a unit has no root entry".to_owned()))?;
    for spec in root.attributes() {
        let attribute = entries.read_attribute(*spec)?;
        match (attribute.name(), attribute.value()) {
            (gimli::DW_AT_comp_dir, value) => comp_dir = Some(value),
            (gimli::DW_AT_low_pc, value) => low_pc = Some(value),
            (gimli::DW_AT_stmt_list, AttributeValue::DebugLineRef(offset)) => {
                line_program = Some(offset);
            }
            (gimli::DW_AT_str_offsets_base, AttributeValue::DebugStrOffsetsBase(base)) => {
                unit.str_offsets_base = base;
            }
            (gimli::DW_AT_addr_base, AttributeValue::DebugAddrBase(base)) => unit.addr_base = base,
            (gimli::DW_AT_loclists_base, AttributeValue::DebugLocListsBase(base)) => {
                unit.loclists_base = base;
            }
            (gimli::DW_AT_rnglists_base, AttributeValue::DebugRngListsBase(base)) => {
                unit.rnglists_base = base;
            }
            _ => {}
        }
    }
    unit.comp_dir = comp_dir.and_then(|value| dwarf.attr_string(&unit, value).ok());
    if let Some(value) = low_pc {
        unit.low_pc = dwarf.attr_address(&unit, value)?.unwrap_or(0);
    }
    Ok((unit, line_program))
}
