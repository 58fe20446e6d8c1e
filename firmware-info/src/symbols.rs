//! The symbol table: what is at an address, and where a name is.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Arc, OnceLock};

use object::read::elf::Sym as _;
use object::{Endianness, elf};

use crate::demangle::demangle;
use crate::error::{DebugInfoError, NameError};
use crate::image::{Architecture, Image, Section};
use crate::similar;
use crate::symbol::{Symbol, SymbolKind, SymbolOffset};

/// More bytes than the symbols of any firmware take, or their names: some millions.
const MAX_TABLE: u64 = 128 << 20;

/// A longer name is no name.
const MAX_NAME: usize = 4096;

/// How many bytes of demangled names are remembered. Symbols beyond are found by the name in the
/// file only.
const MAX_NAMES: usize = 64 << 20;

/// How many symbols before an address are looked at: functions do not nest in an honest file.
const NEAR: usize = 256;

/// How many names an error shows.
const SHOWN: usize = 5;

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    size: u64,
    /// Where its name is in the string table.
    name: u32,
    section: u16,
    kind: SymbolKind,
    global: bool,
    thumb: bool,
}

impl Entry {
    fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// All symbols, in the order of their addresses. Names stay in the string table: many symbols may
/// share one.
#[derive(Default)]
pub(crate) struct Symbols {
    strings: Arc<[u8]>,
    entries: Vec<Entry>,
    /// For each entry the furthest end of it and all before, so that a walk back knows when to
    /// stop.
    furthest: Vec<u64>,
    demangled: OnceLock<HashMap<String, Vec<u32>>>,
    /// Why there are none, though the file has a table.
    error: Option<DebugInfoError>,
}

impl Symbols {
    /// A file that was stripped, or whose table cannot be used, has none.
    pub(crate) fn read(image: &Image) -> Self {
        let table = image.symbol_table();
        let read = table.map(|sections| Self::from_table(image, sections));
        read.unwrap_or_else(|| Ok(Self::default()))
            .unwrap_or_else(|error| Self {
                error: Some(error),
                ..Self::default()
            })
    }

    fn from_table(image: &Image, [table, strings]: [&Section; 2]) -> Result<Self, DebugInfoError> {
        for section in [table, strings] {
            if section.size > MAX_TABLE {
                return Err(DebugInfoError::Section {
                    section: section.name.clone(),
                    reason: format!("no firmware's symbols take {} bytes", section.size),
                });
            }
        }
        let (table, strings) = (image.data(table)?, image.data(strings)?);
        let mut entries = if image.is_64 {
            entries::<elf::FileHeader64<Endianness>>(&table, image)
        } else {
            entries::<elf::FileHeader32<Endianness>>(&table, image)
        };
        entries.retain(|entry| name_in(&strings, entry.name).is_some_and(is_telling));
        entries.sort_by_key(|entry| (entry.address, entry.size));
        let mut end = 0;
        let furthest = entries
            .iter()
            .map(|entry| {
                end = end.max(entry.end());
                end
            })
            .collect();
        Ok(Self {
            strings,
            entries,
            furthest,
            ..Self::default()
        })
    }

    #[cfg(feature = "dwarf")]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(feature = "dwarf")]
    /// Whether a function begins here.
    pub(crate) fn function_begins(&self, address: u64) -> bool {
        let first = self
            .entries
            .partition_point(|entry| entry.address < address);
        self.entries[first..]
            .iter()
            .take_while(|entry| entry.address == address)
            .any(|entry| entry.kind == SymbolKind::Function)
    }

    pub(crate) fn at(&self, image: &Image, address: u64) -> Option<SymbolOffset> {
        let entry = self
            .covering(address)
            .or_else(|| self.label(image, address))?;
        Some(SymbolOffset {
            symbol: self.symbol(image, entry),
            offset: address - entry.address,
        })
    }

    /// The innermost symbol whose size covers an address.
    fn covering(&self, address: u64) -> Option<&Entry> {
        let end = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let near = (end.saturating_sub(NEAR)..end).rev();
        near.take_while(|at| self.furthest[*at] > address)
            .map(|at| &self.entries[at])
            .filter(|entry| address < entry.end())
            .max_by_key(|entry| {
                let size = u64::MAX - entry.size;
                (
                    entry.address,
                    entry.kind != SymbolKind::Label,
                    entry.global,
                    size,
                )
            })
    }

    /// A symbol without a size: the address itself, or a label of code before it in the same
    /// section, with nothing else in between.
    fn label(&self, image: &Image, address: u64) -> Option<&Entry> {
        let section = image.section_at(address);
        let end = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let last = self.entries[..end].last()?.address;
        let near = self.entries[..end].iter().rev().take(NEAR);
        let near = near.take_while(|entry| entry.address == last);
        // Behind the end of a symbol is nothing, whatever else began with it.
        if address != last && near.clone().any(|entry| entry.size != 0) {
            return None;
        }
        near.filter(|entry| entry.size == 0)
            .filter(|entry| match section {
                Some(section) => {
                    entry.address == address
                        || (section.executable && section.contains(entry.address))
                }
                // Nothing is loaded here; a linker script may still have named the address.
                None => entry.address == address && entry.section == elf::SHN_ABS.0,
            })
            .max_by_key(|entry| (entry.kind == SymbolKind::Function, entry.global))
    }

    pub(crate) fn named(&self, image: &Image, name: &str) -> Result<Symbol, NameError> {
        if let Some(found) = self.exactly(image, name) {
            return found;
        }
        let names = self.demangled();
        let mut found: Vec<(&String, &Vec<u32>)> = match names.get_key_value(name) {
            Some(found) => vec![found],
            None => names
                .iter()
                .filter(|(known, _)| is_tail(known, name))
                .collect(),
        };
        found.sort();
        match found[..] {
            [(_, entries)] => {
                let entries = entries.iter().map(|at| *at as usize);
                let entries: Vec<&Entry> = entries.filter_map(|at| self.entries.get(at)).collect();
                self.only(image, name, &entries)
            }
            [] => Err(self.unknown(name)),
            _ => {
                let candidates = found.iter().map(|(known, _)| (*known).clone());
                Err(ambiguous(name, candidates))
            }
        }
    }

    /// Of symbols that have one name the global one; where there is none, or several at other
    /// addresses, as of two files' `static`s, none can be meant.
    fn only(&self, image: &Image, name: &str, entries: &[&Entry]) -> Result<Symbol, NameError> {
        let has_global = entries.iter().any(|entry| entry.global);
        let fitting = entries.iter().filter(|entry| entry.global == has_global);
        let mut fitting: Vec<&Entry> = fitting.copied().collect();
        fitting.sort_by_key(|entry| (entry.address, std::cmp::Reverse(entry.size)));
        fitting.dedup_by_key(|entry| entry.address);
        match fitting[..] {
            [entry] => Ok(self.symbol(image, entry)),
            _ => {
                let candidates = fitting.iter().map(|entry| {
                    let name = demangle(self.raw(entry));
                    format!("{name} at {:#010x}", entry.address)
                });
                Err(ambiguous(name, candidates))
            }
        }
    }

    /// The symbol that has this name in the file, where only one can be meant.
    pub(crate) fn exact(&self, image: &Image, name: &str) -> Option<Symbol> {
        self.exactly(image, name)?.ok()
    }

    fn exactly(&self, image: &Image, name: &str) -> Option<Result<Symbol, NameError>> {
        let is_named = |entry: &&Entry| {
            let rest = self.strings.get(entry.name as usize..).unwrap_or_default();
            let end = rest
                .strip_prefix(name.as_bytes())
                .and_then(|rest| rest.first());
            end == Some(&0)
        };
        let entries: Vec<&Entry> = self.entries.iter().filter(is_named).collect();
        (!entries.is_empty()).then(|| self.only(image, name, &entries))
    }

    pub(crate) fn iter<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = Symbol> + 'a {
        self.entries.iter().map(|entry| self.symbol(image, entry))
    }

    fn unknown(&self, name: &str) -> NameError {
        if let Some(error) = &self.error {
            return error.clone().into();
        }
        let names = self.demangled().keys().map(String::as_str);
        NameError::Unknown {
            name: name.to_owned(),
            similar: similar::to(name, names, SHOWN),
        }
    }

    fn demangled(&self) -> &HashMap<String, Vec<u32>> {
        self.demangled.get_or_init(|| {
            let mut names: HashMap<String, Vec<u32>> = HashMap::new();
            let mut bytes = 0;
            for (at, entry) in (0..).zip(&self.entries) {
                let name = demangle(self.raw(entry)).into_owned();
                bytes += name.len();
                if bytes > MAX_NAMES {
                    break;
                }
                names.entry(name).or_default().push(at);
            }
            names
        })
    }

    fn raw(&self, entry: &Entry) -> &str {
        name_in(&self.strings, entry.name).unwrap_or_default()
    }

    fn symbol(&self, image: &Image, entry: &Entry) -> Symbol {
        let raw = self.raw(entry);
        // Section 0 of the file is none; the list does not have it.
        let section = usize::from(entry.section).checked_sub(1);
        Symbol {
            name: demangle(raw).into_owned(),
            raw_name: raw.to_owned(),
            address: entry.address,
            size: entry.size,
            kind: entry.kind,
            section: section
                .and_then(|at| image.sections.get(at))
                .map(|section| section.name.clone()),
            global: entry.global,
            thumb: entry.thumb,
        }
    }
}

fn entries<Elf>(table: &[u8], image: &Image) -> Vec<Entry>
where
    Elf: object::read::elf::FileHeader<Endian = Endianness>,
{
    let endian = if image.little_endian {
        Endianness::Little
    } else {
        Endianness::Big
    };
    let size = size_of::<Elf::Sym>();
    let count = table.len() / size;
    let Ok((symbols, _)) = object::pod::slice_from_bytes::<Elf::Sym>(table, count) else {
        return Vec::new();
    };
    let is_arm = image.architecture == Architecture::Arm;
    symbols
        .iter()
        .filter(|symbol| !symbol.is_undefined(endian))
        .filter_map(|symbol| {
            let kind = match symbol.st_type() {
                elf::STT_FUNC | elf::STT_GNU_IFUNC => SymbolKind::Function,
                elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Object,
                elf::STT_NOTYPE => SymbolKind::Label,
                _ => return None,
            };
            let address: u64 = symbol.st_value(endian).into();
            let is_code = is_arm && kind == SymbolKind::Function;
            Some(Entry {
                address: if is_code { address & !1 } else { address },
                thumb: is_code && address & 1 == 1,
                size: symbol.st_size(endian).into(),
                name: symbol.st_name(endian),
                section: symbol.st_shndx(endian).0,
                kind,
                global: symbol.st_bind() != elf::STB_LOCAL,
            })
        })
        .collect()
}

fn ambiguous(name: &str, candidates: impl Iterator<Item = String>) -> NameError {
    NameError::Ambiguous {
        name: name.to_owned(),
        candidates: candidates.take(SHOWN).collect(),
    }
}

/// Arm's mapping symbols (`$t`, `$d`) and the assembler's local labels tell a reader nothing.
fn is_telling(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.starts_with(".L")
}

fn name_in(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(offset as usize..)?;
    let name = CStr::from_bytes_until_nul(&rest[..rest.len().min(MAX_NAME + 1)]).ok()?;
    name.to_str().ok()
}

/// `module::NAME` is the tail of `crate::module::NAME`.
fn is_tail(known: &str, name: &str) -> bool {
    !name.is_empty()
        && known
            .strip_suffix(name)
            .is_some_and(|head| head.ends_with("::"))
}
