//! The functions of a unit, the address ranges of each, and what was inlined into it.

use std::sync::{Arc, OnceLock};

use gimli::{AttributeValue, EntriesRaw, UnitOffset};

use super::{Budget, Bytes, LiveCode, Result};
use crate::error::DebugInfoError;
use crate::image::Architecture;

/// Deeper blocks are a lie, or more than anybody wants to read.
const MAX_DEPTH: usize = 200;

pub(crate) type Range = std::ops::Range<u64>;

pub(crate) struct Functions {
    pub(crate) functions: Vec<Function>,
    by_address: Vec<ByAddress>,
}

struct ByAddress {
    range: Range,
    function: usize,
}

pub(crate) struct Function {
    pub(crate) offset: UnitOffset,
    pub(crate) ranges: Vec<Range>,
    pub(crate) name: OnceLock<Option<Arc<str>>>,
    scopes: OnceLock<Result<Vec<Scope>>>,
}

/// A block of a function, or a function that was inlined into it. In the order of the entries: a
/// parent comes before its children.
pub(crate) struct Scope {
    pub(crate) offset: UnitOffset,
    pub(crate) parent: Option<usize>,
    pub(crate) inlined: Option<Inlined>,
    pub(crate) ranges: Vec<Range>,
}

pub(crate) struct Inlined {
    pub(crate) call_file: u64,
    pub(crate) call_line: u32,
    pub(crate) call_column: u32,
    pub(crate) name: OnceLock<Option<Arc<str>>>,
}

impl Functions {
    pub(crate) fn parse(
        dwarf: &gimli::Dwarf<Bytes>,
        unit: &gimli::Unit<Bytes>,
        budget: &Budget,
        live: &LiveCode<'_>,
    ) -> Result<Self> {
        let mut functions = Vec::new();
        let mut by_address = Vec::new();
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let attributes = Attributes::read(&mut entries, abbreviation)?;
            let mut ranges = attributes.ranges(dwarf, unit, budget)?;
            if live.image.architecture == Architecture::Arm {
                // GNU as gives a Thumb function the address of its symbol, with the bit of Thumb.
                ranges
                    .iter_mut()
                    .for_each(|range| *range = range.start & !1..range.end & !1);
            }
            ranges.retain(|range| live.function(range.start));
            if ranges.is_empty() {
                continue;
            }
            let function = functions.len();
            let found = ranges.iter().cloned();
            by_address.extend(found.map(|range| ByAddress { range, function }));
            functions.push(Function {
                offset,
                ranges,
                name: OnceLock::new(),
                scopes: OnceLock::new(),
            });
        }
        by_address.sort_by_key(|found| (found.range.start, found.range.end));
        Ok(Self {
            functions,
            by_address,
        })
    }

    /// The function whose code is at an address. Where two claim it, as after the linker folded
    /// equal code, the last that begins.
    pub(crate) fn at(&self, address: u64) -> Option<&Function> {
        let after = self
            .by_address
            .partition_point(|found| found.range.start <= address);
        let near = self.by_address[..after].iter().rev().take(16);
        let found = near.into_iter().find(|found| address < found.range.end)?;
        self.functions.get(found.function)
    }
}

impl Function {
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    pub(crate) fn scopes(
        &self,
        dwarf: &gimli::Dwarf<Bytes>,
        unit: &gimli::Unit<Bytes>,
        budget: &Budget,
    ) -> Result<&[Scope]> {
        let scopes = self
            .scopes
            .get_or_init(|| scopes(dwarf, unit, self.offset, budget));
        scopes.as_deref().map_err(Clone::clone)
    }

    /// The scopes that an address is in, outermost first.
    pub(crate) fn chain<'a>(scopes: &'a [Scope], address: u64) -> Vec<&'a Scope> {
        let holds = |scope: &Scope| scope.ranges.iter().any(|range| range.contains(&address));
        let mut chain: Vec<&'a Scope> = Vec::new();
        let mut last = None;
        for (at, scope) in scopes.iter().enumerate() {
            if scope.parent == last && holds(scope) {
                chain.push(scope);
                last = Some(at);
            }
        }
        chain
    }
}

fn scopes(
    dwarf: &gimli::Dwarf<Bytes>,
    unit: &gimli::Unit<Bytes>,
    function: UnitOffset,
    budget: &Budget,
) -> Result<Vec<Scope>> {
    let mut scopes: Vec<Scope> = Vec::new();
    let mut entries = unit.entries_raw(Some(function))?;
    // The depth below which everything belongs to another function.
    let mut skipped: Option<isize> = None;
    // The scopes that are open, each with the depth of its entry.
    let mut open: Vec<(isize, usize)> = Vec::new();
    let root = entries.next_depth();
    let mut first = true;
    while !entries.is_empty() {
        let (offset, depth) = (entries.next_offset(), entries.next_depth());
        if !first && depth <= root {
            break;
        }
        budget.entries.take(1)?;
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        if skipped.is_some_and(|outer| depth <= outer) {
            skipped = None;
        }
        let tag = abbreviation.tag();
        if first || skipped.is_some() || !is_scope(tag) {
            if !first && skipped.is_none() && tag == gimli::DW_TAG_subprogram {
                skipped = Some(depth);
            }
            entries.skip_attributes(abbreviation.attributes())?;
            first = false;
            continue;
        }
        while open.last().is_some_and(|(outer, _)| *outer >= depth) {
            open.pop();
        }
        if open.len() == MAX_DEPTH {
            return Err(DebugInfoError::Limit("blocks nest too deep"));
        }
        let attributes = Attributes::read(&mut entries, abbreviation)?;
        let ranges = attributes.ranges(dwarf, unit, budget)?;
        let parent = open.last().map(|(_, at)| *at);
        open.push((depth, scopes.len()));
        scopes.push(Scope {
            offset,
            parent,
            inlined: (tag == gimli::DW_TAG_inlined_subroutine).then(|| Inlined {
                call_file: attributes.call_file,
                call_line: attributes.call_line,
                call_column: attributes.call_column,
                name: OnceLock::new(),
            }),
            ranges,
        });
    }
    Ok(scopes)
}

fn is_scope(tag: gimli::DwTag) -> bool {
    tag == gimli::DW_TAG_inlined_subroutine || tag == gimli::DW_TAG_lexical_block
}

/// What is read of a function's or a block's entry.
#[derive(Default)]
struct Attributes {
    low: Option<AttributeValue<Bytes>>,
    high: Option<AttributeValue<Bytes>>,
    ranges: Option<AttributeValue<Bytes>>,
    call_file: u64,
    call_line: u32,
    call_column: u32,
}

impl Attributes {
    fn read(
        entries: &mut EntriesRaw<'_, Bytes>,
        abbreviation: &gimli::Abbreviation,
    ) -> Result<Self> {
        let mut attributes = Self::default();
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            let number = || u32::try_from(attribute.udata_value().unwrap_or(0)).unwrap_or(0);
            match attribute.name() {
                gimli::DW_AT_low_pc => attributes.low = Some(attribute.value()),
                gimli::DW_AT_high_pc => attributes.high = Some(attribute.value()),
                gimli::DW_AT_ranges => attributes.ranges = Some(attribute.value()),
                gimli::DW_AT_call_file => {
                    if let AttributeValue::FileIndex(index) = attribute.value() {
                        attributes.call_file = index;
                    }
                }
                gimli::DW_AT_call_line => attributes.call_line = number(),
                gimli::DW_AT_call_column => attributes.call_column = number(),
                _ => {}
            }
        }
        Ok(attributes)
    }

    fn ranges(
        &self,
        dwarf: &gimli::Dwarf<Bytes>,
        unit: &gimli::Unit<Bytes>,
        budget: &Budget,
    ) -> Result<Vec<Range>> {
        let mut found = Vec::new();
        if let Some(value) = &self.ranges {
            if let Some(mut ranges) = dwarf.attr_ranges(unit, value.clone())? {
                while let Some(range) = ranges.next()? {
                    budget.ranges.take(1)?;
                    found.push(range.begin..range.end);
                }
            }
        } else if let (Some(low), Some(high)) = (&self.low, &self.high)
            && let Some(begin) = dwarf.attr_address(unit, low.clone())?
        {
            let end = match high {
                // The size, since DWARF 4.
                AttributeValue::Udata(size) => Some(begin.wrapping_add(*size)),
                value => dwarf.attr_address(unit, value.clone())?,
            };
            found.extend(end.map(|end| begin..end));
        }
        found.retain(|range| range.start < range.end);
        Ok(found)
    }
}
