//! The vector table of a Cortex-M, and where its stack is.

use std::ops::Range;

use crate::Firmware;
use crate::image::Architecture;
use crate::symbol::SymbolKind;

/// Exceptions and interrupts that the architecture has room for, the stack pointer in slot 0
/// included.
const MAX_VECTORS: u64 = 16 + 496;

/// How a table is called in the start-up code of vendors, of CMSIS, Zephyr and Rust's cortex-m-rt.
const TABLE_SYMBOLS: [&str; 9] = [
    "__vector_table",
    "__Vectors",
    "g_pfnVectors",
    "__isr_vector",
    "_vector_table",
    "vector_table",
    "__vectors",
    "_vectors",
    "vectors",
];
const TABLE_SECTIONS: [&str; 6] = [
    ".vector_table",
    ".vectors",
    ".isr_vector",
    ".intvecs",
    "vectors",
    "rom_start",
];

/// How linker scripts call the top of the stack, where it begins, the most usual first.
const STACK_TOPS: [&str; 9] = [
    "_stack_start",
    "__stack",
    "_estack",
    "__StackTop",
    "__stack_top",
    "_stack_top",
    "__initial_sp",
    "_stack",
    "__sp",
];
/// How they call the lowest address that it may grow down to.
const STACK_LIMITS: [&str; 6] = [
    "_stack_end",
    "__StackLimit",
    "__stack_limit",
    "_stack_limit",
    "_sstack",
    "__stack_bottom",
];
/// Where the data ends that is below a stack without a limit of its own.
const DATA_ENDS: [&str; 5] = ["__sheap", "_end", "__end__", "end", "_ebss"];

/// The table that a Cortex-M takes its stack pointer and its handlers from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VectorTable {
    /// Its address.
    pub address: u64,
    /// The stack pointer after a reset.
    pub initial_sp: u64,
    /// The handlers, from number 1 on; slots that are 0 are left out.
    pub vectors: Vec<Vector>,
}

/// One handler in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vector {
    /// The exception's number: 1 for Reset, 3 for HardFault, 16 and more for interrupts.
    pub number: u16,
    /// The handler's address, without the bit that says Thumb.
    pub address: u64,
    /// The handler's name.
    pub handler: Option<String>,
}

/// Where the main stack is, as far as symbols and the vector table tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackBounds {
    /// Where it begins: the address behind its first word. It grows down.
    pub top: u64,
    /// The lowest address that is its own, and the symbol that says so.
    pub limit: Option<(u64, String)>,
}

impl StackBounds {
    /// The addresses that are its own, where both ends are known.
    #[must_use]
    pub fn range(&self) -> Option<Range<u64>> {
        self.limit.as_ref().map(|(limit, _)| *limit..self.top)
    }
}

/// What the architecture calls an exception of a Cortex-M; `None` for an interrupt and what is
/// reserved.
#[must_use]
pub fn exception_name(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "Reset",
        2 => "NMI",
        3 => "HardFault",
        4 => "MemManage",
        5 => "BusFault",
        6 => "UsageFault",
        7 => "SecureFault",
        11 => "SVCall",
        12 => "DebugMonitor",
        14 => "PendSV",
        15 => "SysTick",
        _ => return None,
    })
}

impl VectorTable {
    /// The address of the reset handler.
    #[must_use]
    pub fn reset(&self) -> Option<u64> {
        self.vectors
            .first()
            .filter(|vector| vector.number == 1)
            .map(|vector| vector.address)
    }
}

impl Firmware {
    /// The vector table, if the file is for a Cortex-M and has one: at a symbol or in a section
    /// with one of the usual names, or else where the lowest section begins. A table is one by its
    /// contents: a stack pointer, a reset handler in code.
    #[must_use]
    pub fn vector_table(&self) -> Option<&VectorTable> {
        self.vectors
            .get_or_init(|| self.find_vector_table())
            .as_ref()
    }

    fn find_vector_table(&self) -> Option<VectorTable> {
        if self.architecture() != Architecture::Arm || !self.image.little_endian {
            return None;
        }
        let symbols = TABLE_SYMBOLS.iter().filter_map(|name| {
            self.raw_symbol(name)
                .filter(|symbol| symbol.kind != SymbolKind::Function)
        });
        let sections = TABLE_SECTIONS
            .iter()
            .filter_map(|name| self.image.section(name));
        let lowest = self
            .sections()
            .iter()
            .filter(|section| section.loaded && section.size > 0);
        let lowest = lowest.min_by_key(|section| section.address);
        symbols
            .map(|symbol| (symbol.address, symbol.size))
            .chain(
                sections
                    .chain(lowest)
                    .map(|section| (section.address, section.size)),
            )
            .find_map(|(address, size)| self.vector_table_at(address, size))
    }

    fn vector_table_at(&self, address: u64, size: u64) -> Option<VectorTable> {
        let initial_sp = self.loaded_word(address)?;
        let slots = if size >= 8 {
            (size / 4).min(MAX_VECTORS)
        } else {
            16
        };
        let mut vectors = Vec::new();
        for number in 1..slots {
            let Some(entry) = self.loaded_word(address.checked_add(4 * number)?) else {
                break;
            };
            if entry == 0 {
                continue;
            }
            let handler = entry & !1;
            let is_handler = entry & 1 == 1 && self.image.is_code(handler);
            if !is_handler {
                // A reserved slot may hold a checksum or a version; behind 16 the table has ended.
                if number < 16 { continue } else { break }
            }
            vectors.push(Vector {
                number: u16::try_from(number).ok()?,
                address: handler,
                handler: self.symbol_at(handler).map(|found| found.symbol.name),
            });
        }
        let is_table = initial_sp != 0
            && initial_sp.is_multiple_of(4)
            && !self.image.is_code(initial_sp)
            && vectors.first().is_some_and(|vector| vector.number == 1);
        is_table.then_some(VectorTable {
            address,
            initial_sp,
            vectors,
        })
    }

    fn loaded_word(&self, address: u64) -> Option<u64> {
        let mut word = [0; 4];
        self.loaded(address, &mut word)
            .then(|| u32::from_le_bytes(word).into())
    }

    /// Where the main stack is: its top by the vector table or a linker script's symbol, its limit
    /// by such a symbol, or else by the one that says where the data below it ends.
    #[must_use]
    pub fn stack_bounds(&self) -> Option<StackBounds> {
        let table = self.vector_table().map(|table| table.initial_sp);
        let top = table.or_else(|| self.first_of(&STACK_TOPS).map(|(top, _)| top))?;
        let below = |names: &[&str]| self.first_of(names).filter(|(limit, _)| *limit < top);
        Some(StackBounds {
            top,
            limit: below(&STACK_LIMITS).or_else(|| below(&DATA_ENDS)),
        })
    }

    fn first_of(&self, names: &[&str]) -> Option<(u64, String)> {
        names.iter().find_map(|name| {
            let symbol = self.raw_symbol(name)?;
            Some((symbol.address, symbol.raw_name))
        })
    }
}
