//! The debug information: its units, which addresses each covers, and what each knows of an
//! address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gimli::{DwarfSections, EndianArcSlice, RunTimeEndian, SectionId};

use crate::error::DebugInfoError;
use crate::image::Image;
use crate::symbols::Symbols;

pub(crate) mod abbreviations;
pub(crate) mod functions;
pub(crate) mod lines;
pub(crate) mod name;
pub(crate) mod unit;

use abbreviations::AbbreviationCache;
use functions::Functions;
use lines::Lines;

pub(crate) type Bytes = EndianArcSlice<RunTimeEndian>;
pub(crate) type Result<T, E = DebugInfoError> = std::result::Result<T, E>;

/// More units than the largest of programs have. Each costs memory, however small it is in the
/// file.
const MAX_UNITS: usize = 200_000;

/// No more than this of the size that a section's header claims is believed: sums of sizes do not
/// overflow.
const MAX_CLAIMED: u64 = 1 << 40;

/// Code that the linker dropped keeps its debug information, at the address 0 or a little behind. A
/// firmware that has code there is recognised by its symbols.
const DROPPED_BELOW: u64 = 0x1_0000;

pub(crate) struct Debug {
    pub(crate) dwarf: gimli::Dwarf<Bytes>,
    pub(crate) units: Vec<Unit>,
    ranges: Vec<UnitRange>,
    /// Units that do not say which addresses they cover. They are asked last, for any address.
    without_ranges: Vec<usize>,
    budget: Budget,
}

pub(crate) struct Unit {
    pub(crate) unit: gimli::Unit<Bytes>,
    line_program: Option<gimli::DebugLineOffset>,
    lines: OnceLock<Result<Lines>>,
    functions: OnceLock<Result<Functions>>,
}

struct UnitRange {
    begin: u64,
    end: u64,
    /// The furthest end of this range and all before.
    furthest: u64,
    unit: usize,
}

/// What an honest file of this size can ask for at most, so that parts which many units share do
/// not multiply.
pub(crate) struct Budget {
    /// Rows of line programs: each byte of a program makes one at most.
    pub(crate) rows: Allowance,
    /// Bytes of line programs' headers.
    pub(crate) headers: Allowance,
    /// Entries read on behalf of functions.
    pub(crate) entries: Allowance,
    /// Address ranges of units, functions and blocks.
    pub(crate) ranges: Allowance,
}

pub(crate) struct Allowance {
    left: AtomicU64,
    what: &'static str,
}

impl Allowance {
    pub(crate) fn new(left: u64, what: &'static str) -> Self {
        Self {
            left: AtomicU64::new(left),
            what,
        }
    }

    pub(crate) fn take(&self, amount: u64) -> Result<()> {
        let less = |left: u64| left.checked_sub(amount);
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(DebugInfoError::Limit(self.what)),
        }
    }
}

/// Which code addresses are real: those in an executable section that are no leftover of dropped
/// code.
pub(crate) struct LiveCode<'a> {
    pub(crate) image: &'a Image,
    pub(crate) symbols: &'a Symbols,
}

impl LiveCode<'_> {
    pub(crate) fn function(&self, begin: u64) -> bool {
        self.image.is_code(begin)
            && (begin >= DROPPED_BELOW
                || self.symbols.is_empty()
                || self.symbols.function_begins(begin))
    }

    /// The rows of one section: in a file with dropped code several may begin at 0.
    fn sequence(&self, begin: u64) -> bool {
        self.image.is_code(begin)
            && (begin >= DROPPED_BELOW
                || self.symbols.is_empty()
                || self
                    .symbols
                    .at(self.image, begin)
                    .is_some_and(|found| found.offset == 0))
    }
}

impl Debug {
    pub(crate) fn load(image: &Image) -> Result<Self> {
        let sections = DwarfSections::load(|id| match id {
            // Large, and never asked.
            SectionId::DebugAranges
            | SectionId::DebugMacinfo
            | SectionId::DebugMacro
            | SectionId::DebugNames
            | SectionId::DebugTypes => Ok(Bytes::new(Arc::from([]), endian(image))),
            _ => section_data(image, id),
        })?;
        let dwarf = sections.borrow(Clone::clone);
        let size = |id: SectionId| {
            let name = [id.name().to_owned(), format!(".z{}", &id.name()[1..])];
            let found = image
                .sections
                .iter()
                .find(|section| name.contains(&section.name));
            found.map_or(0, |section| section.size.min(MAX_CLAIMED))
        };
        let info = size(SectionId::DebugInfo);
        let ranges = size(SectionId::DebugRanges) + size(SectionId::DebugRngLists);
        let lines = size(SectionId::DebugLine);
        let budget = Budget {
            rows: Allowance::new(lines, "line programs are shared"),
            headers: Allowance::new(lines.min(32 << 20), "headers of line programs are shared"),
            entries: Allowance::new(4 * info, "functions nest in each other"),
            ranges: Allowance::new(2 * (info + ranges), "lists of ranges are shared"),
        };
        let mut debug = Self {
            dwarf,
            units: Vec::new(),
            ranges: Vec::new(),
            without_ranges: Vec::new(),
            budget,
        };
        debug.index(size(SectionId::DebugAbbrev))?;
        Ok(debug)
    }

    fn index(&mut self, abbreviations: u64) -> Result<()> {
        let mut cache = AbbreviationCache::new(abbreviations);
        let mut headers = self.dwarf.units();
        while let Some(header) = headers.next()? {
            if self.units.len() == MAX_UNITS {
                return Err(DebugInfoError::Limit("there are too many units"));
            }
            let abbreviations = cache.get(&self.dwarf, header.debug_abbrev_offset())?;
            let (unit, line_program) = unit::parse(&self.dwarf, header, abbreviations)?;
            let mut found = Vec::new();
            {
                let mut ranges = self.dwarf.unit_ranges(&unit)?;
                while let Some(range) = ranges.next()? {
                    self.budget.ranges.take(1)?;
                    if range.begin < range.end {
                        found.push((range.begin, range.end));
                    }
                }
            }
            let at = self.units.len();
            if found.is_empty() && line_program.is_some() {
                self.without_ranges.push(at);
            }
            self.ranges
                .extend(found.iter().map(|(begin, end)| UnitRange {
                    begin: *begin,
                    end: *end,
                    furthest: 0,
                    unit: at,
                }));
            self.units.push(Unit {
                unit,
                line_program,
                lines: OnceLock::new(),
                functions: OnceLock::new(),
            });
        }
        self.ranges.sort_by_key(|range| (range.begin, range.end));
        let mut furthest = 0;
        for range in &mut self.ranges {
            furthest = furthest.max(range.end);
            range.furthest = furthest;
        }
        Ok(())
    }

    /// The units that may know an address, the most likely first.
    pub(crate) fn units_at(&self, address: u64) -> impl Iterator<Item = &Unit> {
        let end = self.ranges.partition_point(|range| range.begin <= address);
        let before = self.ranges[..end].iter().rev();
        before
            .take_while(move |range| range.furthest > address)
            .filter(move |range| address < range.end)
            .map(|range| range.unit)
            .chain(self.without_ranges.iter().copied())
            .map(|at| &self.units[at])
    }

    pub(crate) fn lines<'a>(&self, unit: &'a Unit, live: &LiveCode<'_>) -> Result<&'a Lines> {
        let lines = unit.lines.get_or_init(|| match unit.line_program {
            Some(offset) => Lines::parse(&self.dwarf, &unit.unit, offset, &self.budget, live),
            None => Ok(Lines::default()),
        });
        lines.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn functions<'a>(
        &self,
        unit: &'a Unit,
        live: &LiveCode<'_>,
    ) -> Result<&'a Functions> {
        let functions = unit
            .functions
            .get_or_init(|| Functions::parse(&self.dwarf, &unit.unit, &self.budget, live));
        functions.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The unit that an offset into `.debug_info` is in, and the offset within it.
    pub(crate) fn unit_of(
        &self,
        offset: gimli::DebugInfoOffset,
    ) -> Option<(&Unit, gimli::UnitOffset)> {
        let begins = |unit: &Unit| unit.unit.header.debug_info_offset().map_or(0, |at| at.0);
        let after = self.units.partition_point(|unit| begins(unit) <= offset.0);
        let unit = self.units.get(after.checked_sub(1)?)?;
        Some((unit, offset.to_unit_offset(&unit.unit.header)?))
    }
}

/// A debug section's bytes, whether compressed as ELF has it or as GNU had it before; none where
/// the file has no such section.
pub(crate) fn section_data(image: &Image, id: SectionId) -> Result<Bytes> {
    let name = id.name();
    let section = image
        .section(name)
        .or_else(|| image.section(&format!(".z{}", name.get(1..)?)));
    let data = match section {
        Some(section) => image.data(section)?,
        None => Arc::from([]),
    };
    Ok(Bytes::new(data, endian(image)))
}

fn endian(image: &Image) -> RunTimeEndian {
    match image.little_endian {
        true => RunTimeEndian::Little,
        false => RunTimeEndian::Big,
    }
}
