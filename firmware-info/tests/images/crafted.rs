//! ELF files made to cost much: each ends soon, in an error that says which limit, or in an answer.

use std::io::Write as _;
use std::time::{Duration, Instant};

use firmware_info::{DebugInfoError, Firmware, NameError, OpenError};

/// Far more than any of them takes, in a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;

struct Section {
    name: &'static str,
    kind: u32,
    /// At address 0x8000, loaded and executable.
    code: bool,
    data: Vec<u8>,
}

fn section(name: &'static str, data: Vec<u8>) -> Section {
    Section {
        name,
        kind: PROGBITS,
        code: false,
        data,
    }
}

fn code() -> Section {
    Section {
        code: true,
        ..section(".text", vec![0; 0x1000])
    }
}

fn elf(sections: Vec<Section>) -> Firmware {
    Firmware::parse(bytes(sections)).unwrap()
}

/// A 32-bit little-endian Arm file with these sections.
fn bytes(sections: Vec<Section>) -> Vec<u8> {
    let mut names = vec![0];
    let mut body = Vec::new();
    let mut headers = vec![[0_u32; 10]];
    let names_section = Section {
        kind: STRTAB,
        ..section(".shstrtab", Vec::new())
    };
    let count = sections.len();
    for (at, section) in sections.into_iter().chain([names_section]).enumerate() {
        let name = names.len() as u32;
        names.extend(section.name.bytes().chain([0]));
        let data = if at == count {
            names.clone()
        } else {
            section.data
        };
        let (flags, address) = if section.code { (6, 0x8000) } else { (0, 0) };
        // A symbol table's strings are the section behind it.
        let (link, entry) = if section.kind == SYMTAB {
            (at as u32 + 2, 16)
        } else {
            (0, 0)
        };
        let offset = 52 + body.len() as u32;
        let size = data.len() as u32;
        headers.push([
            name,
            section.kind,
            flags,
            address,
            offset,
            size,
            link,
            0,
            1,
            entry,
        ]);
        body.extend(data);
    }
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 40] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0x8000, 0, 52 + body.len() as u32, 0x0500_0000] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [
        52,
        32,
        0,
        40,
        headers.len() as u16,
        headers.len() as u16 - 1,
    ] {
        file.extend(u16::to_le_bytes(half));
    }
    file.extend(body);
    file.extend(headers.iter().flatten().flat_map(|word| word.to_le_bytes()));
    file
}

/// A unit of DWARF 4 with these entries behind its root, which is abbreviation 1.
fn unit(abbreviations: u32, entries: &[u8]) -> Vec<u8> {
    let mut rest = 4_u16.to_le_bytes().to_vec();
    rest.extend(abbreviations.to_le_bytes());
    rest.push(4);
    rest.push(1);
    rest.extend(0x8000_u32.to_le_bytes());
    rest.extend(0x1000_u32.to_le_bytes());
    rest.extend(0_u32.to_le_bytes());
    rest.extend(entries);
    let mut unit = (rest.len() as u32).to_le_bytes().to_vec();
    unit.extend(rest);
    unit
}

/// 1: a unit with low_pc, high_pc (its size), stmt_list. 2: a function with low_pc and high_pc. 3:
/// something inlined.
const ABBREVIATIONS: [u8; 28] = [
    1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0, 2, 0x2e, 1, 0x11, 0x01, 0x12, 0x06, 0, 0,
    3, 0x1d, 1, 0x31, 0x13, 0, 0, 0,
];

fn with_dwarf(info: Vec<u8>, abbreviations: Vec<u8>, line: Vec<u8>) -> Firmware {
    elf(vec![
        code(),
        section(".debug_info", info),
        section(".debug_abbrev", abbreviations),
        section(".debug_line", line),
    ])
}

/// What the question ends in, and that it ends soon.
fn limit(firmware: &Firmware) -> DebugInfoError {
    let start = Instant::now();
    let error = firmware.source_frames(0x8000).unwrap_err();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    error
}

#[test]
fn very_many_symbols_with_one_long_name() {
    let mut strings = vec![0];
    strings.extend([b'n'; 4000]);
    strings.push(0);
    let symbol = |at: u32| {
        let words = [1, 0x8000 + at % 0x1000, 1].map(u32::to_le_bytes);
        [&words.concat()[..], &[0x12, 0, 1, 0]].concat()
    };
    let table = (0..655_360).flat_map(symbol).collect();
    let firmware = elf(vec![
        code(),
        Section {
            kind: SYMTAB,
            ..section(".symtab", table)
        },
        Section {
            kind: STRTAB,
            ..section(".strtab", strings)
        },
    ]);
    let start = Instant::now();
    assert_eq!(
        firmware.symbol_at(0x8010).unwrap().symbol.raw_name.len(),
        4000
    );
    assert!(firmware.symbol("other").is_err());
    let several = firmware.symbol(&"n".repeat(4000));
    assert!(matches!(several, Err(NameError::Ambiguous { .. })));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// Version 5; its directories, 2^56 of them, take no byte each: their form is `flag_present`.
#[test]
fn a_line_program_with_endless_directories() {
    let mut rest = vec![5, 0, 4, 0];
    let header = [
        1, 1, 1, 0xfb, 14, 1, 1, 1, 0x19, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0,
    ];
    rest.extend((header.len() as u32).to_le_bytes());
    rest.extend(header);
    let mut line = (rest.len() as u32).to_le_bytes().to_vec();
    line.extend(rest);
    let error = limit(&with_dwarf(unit(0, &[0]), ABBREVIATIONS.to_vec(), line));
    assert_eq!(
        error.to_string(),
        "the debug information exceeds a limit: a line program has more files than bytes"
    );
}

#[test]
fn inlined_functions_that_nest_without_end() {
    let mut entries = vec![2];
    entries.extend(0x8000_u32.to_le_bytes());
    entries.extend(0x1000_u32.to_le_bytes());
    for _ in 0..300_000 {
        entries.push(3);
        entries.extend(0_u32.to_le_bytes());
    }
    let mut line = vec![0; 4];
    line[0] = 17;
    line.extend([4, 0, 11, 0, 0, 0, 1, 1, 1, 0xfb, 14, 1, 0, 0, 0, 0, 0]);
    let error = limit(&with_dwarf(unit(0, &entries), ABBREVIATIONS.to_vec(), line));
    assert_eq!(
        error.to_string(),
        "the debug information exceeds a limit: blocks nest too deep"
    );
}

/// Each unit's table begins one entry further on, so that each is nearly the whole section.
#[test]
fn tables_of_abbreviations_that_overlap() {
    // A number of three bytes.
    let code = |at: u32| {
        [
            at as u8 | 0x80,
            (at >> 7) as u8 | 0x80,
            (at >> 14) as u8 & 0x7f,
        ]
    };
    let entry = |at: u32| [&code(at + 1)[..], &[0x11, 0, 0, 0]].concat();
    let mut table: Vec<u8> = (0..50_000).flat_map(entry).collect();
    table.push(0);
    let unit = |at: u32| {
        let rest = [&[4, 0][..], &(7 * at).to_le_bytes(), &[4], &code(at + 1)].concat();
        [&(rest.len() as u32).to_le_bytes()[..], &rest].concat()
    };
    let units = (0..20_000).flat_map(unit).collect();
    let error = limit(&with_dwarf(units, table, Vec::new()));
    assert_eq!(
        error.to_string(),
        "the debug information exceeds a limit: tables of abbreviations overlap"
    );
}

/// Very many units whose line program is one and the same.
#[test]
fn a_line_program_that_many_units_share() {
    let mut rest = vec![4, 0, 11, 0, 0, 0, 1, 1, 1, 0xfb, 14, 1, 0, 0, 0, 0, 0];
    // Set the address, then a row a byte, then the end.
    rest.extend([0, 5, 2, 0, 0x80, 0, 0]);
    rest.extend([0x20; 100_000]);
    rest.extend([2, 1, 0, 1, 1]);
    let mut line = (rest.len() as u32).to_le_bytes().to_vec();
    line.extend(rest);
    let units = (0..5_000).flat_map(|_| unit(0, &[0])).collect();
    let firmware = with_dwarf(units, ABBREVIATIONS.to_vec(), line);
    let start = Instant::now();
    let error = firmware.line_addresses("a.c", 1).unwrap_err();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(error.to_string().ends_with(" are shared"), "{error}");
}

/// A file of some hundred bytes, with a hole behind them.
fn with_hole(bytes: &[u8], hole: u64) -> Result<Firmware, OpenError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64 + hole).unwrap();
    Firmware::from_file(file)
}

const THREE_GB: u32 = 3_000_000_000;

/// Its table of symbols is the hole. The file opens, and all else in it can be used.
#[test]
fn gigabytes_of_symbols() {
    let start = Instant::now();
    let table = Section {
        kind: SYMTAB,
        ..section(".symtab", Vec::new())
    };
    let strings = Section {
        kind: STRTAB,
        ..section(".strtab", vec![0])
    };
    let mut file = bytes(vec![code(), table, strings]);
    let headers = u32::from_le_bytes(file[32..36].try_into().unwrap()) as usize;
    let (size, table) = (headers + 2 * 40 + 20, THREE_GB.to_le_bytes());
    file[size..size + 4].copy_from_slice(&table);
    let firmware = with_hole(&file, THREE_GB.into()).unwrap();
    assert_eq!(
        firmware.symbol("main").unwrap_err().to_string(),
        "section .symtab cannot be used: no firmware's symbols take 3000000000 bytes"
    );
    assert_eq!(firmware.symbol_at(0x8010), None);
    assert_eq!(firmware.section_at(0x8010).unwrap().name, ".text");
    // It took 32 s when they were read.
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// As many sections as the first one says, which is for more than a header can count.
#[test]
fn gigabytes_of_headers() {
    let start = Instant::now();
    let mut file = bytes(vec![code()]);
    let headers = u32::from_le_bytes(file[32..36].try_into().unwrap()) as usize;
    file[48..50].copy_from_slice(&[0, 0]);
    file[headers + 20..headers + 24].copy_from_slice(&(THREE_GB / 40).to_le_bytes());
    let error = with_hole(&file, THREE_GB.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this is no ELF file that can be read: it claims 75000000 headers, and no file has so many"
    );
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Two files' `static`s: neither can be meant, unless another file's is global.
#[test]
fn a_name_that_several_have_is_told_with_their_addresses() {
    let (local, global) = (0x01, 0x11);
    for (bindings, wanted) in [
        (
            [local, local],
            Err("'count' could be count at 0x00008000 or count at 0x00008010; say which"),
        ),
        ([local, global], Ok(0x8010)),
        ([global, local], Ok(0x8000)),
    ] {
        let symbols = bindings.iter().zip([0x8000_u32, 0x8010]);
        let symbols = symbols.flat_map(|(binding, at)| {
            let words = [1, at, 4].map(u32::to_le_bytes);
            [&words.concat()[..], &[*binding, 0, 1, 0]].concat()
        });
        let firmware = elf(vec![
            code(),
            Section {
                kind: SYMTAB,
                ..section(".symtab", symbols.collect())
            },
            Section {
                kind: STRTAB,
                ..section(".strtab", b"\0count\0".to_vec())
            },
        ]);
        let found = firmware.symbol("count");
        let found = found
            .map(|symbol| symbol.address)
            .map_err(|error| error.to_string());
        assert_eq!(
            found.as_ref().map_err(String::as_str),
            wanted.as_ref().map_err(|text| *text)
        );
    }
}
