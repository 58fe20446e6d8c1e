//! Symbols and source lines as binutils has them, on real images; `fixtures/record-lines.sh`
//! recorded them.

use crate::{firmware, fixture_text};
use firmware_info::SourceFrame;

const LINES: [&str; 13] = [
    "c/o0",
    "c/o2",
    "c/os",
    "c/lto",
    "exceptions/hard",
    "dwarf/dwarf2",
    "dwarf/dwarf3",
    "dwarf/dwarf4",
    "dwarf/dwarf5",
    "dwarf/dwarf64",
    "dwarf/zdebug",
    "dwarf/shapes",
    "rust/release",
];

/// `main at /dir/main.c:12 (discriminator 3)` as function, file name and line.
fn theirs(line: &str) -> (String, String, String) {
    let line = line.trim().trim_start_matches("(inlined by) ");
    let line = line.split(" (discriminator").next().unwrap();
    let (function, place) = line.rsplit_once(" at ").unwrap();
    let (file, line) = place.rsplit_once(':').unwrap();
    let file = file.rsplit('/').next().unwrap();
    let line = if line == "?" { "0" } else { line };
    (letters(function), file.to_owned(), line.to_owned())
}

fn ours(frame: &SourceFrame) -> (String, String, String) {
    let location = frame.location.as_ref().unwrap();
    let file = location.file.rsplit('/').next().unwrap();
    (
        letters(frame.function.as_deref().unwrap()),
        file.to_owned(),
        location.line.to_string(),
    )
}

/// The two demanglers differ in spaces and in how they write a path's generic arguments.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

#[test]
fn lines_and_inlined_functions_are_those_of_addr2line() {
    let (mut compared, mut places_differ) = (0, 0);
    for name in LINES {
        let firmware = firmware(name);
        let text = fixture_text(&format!("{name}.lines.txt"));
        let mut lines = text.lines().skip(1).peekable();
        while let Some(line) = lines.next() {
            let (address, first) = line.split_once(": ").unwrap();
            let mut wanted = vec![theirs(first)];
            while let Some(next) = lines.next_if(|line| line.starts_with(" (inlined by)")) {
                wanted.push(theirs(next));
            }
            let address = u64::from_str_radix(&address[2..], 16).unwrap();
            let found: Vec<_> = firmware
                .source_frames(address)
                .unwrap()
                .iter()
                .map(ours)
                .collect();
            // Of several rows for one address addr2line takes the last, gdb and this crate the last
            // that begins a statement: the innermost place may differ, and nothing else.
            let same_place = (&found[0].1, &found[0].2) == (&wanted[0].1, &wanted[0].2);
            wanted[0] = (wanted[0].0.clone(), found[0].1.clone(), found[0].2.clone());
            // The source's name, where addr2line has the one that the function is exported as.
            let exported = firmware.symbol_at(address).unwrap().symbol.raw_name;
            let (theirs, ours) = (wanted.last_mut().unwrap(), found.last().unwrap());
            if theirs.0 == letters(&exported) {
                theirs.0.clone_from(&ours.0);
            }
            assert_eq!(found, wanted, "{name} at {address:#x}");
            compared += 1;
            places_differ += usize::from(!same_place);
        }
    }
    assert!(compared > 300, "only {compared} addresses were compared");
    assert!(
        places_differ * 10 < compared,
        "{places_differ} of {compared} places differ"
    );
}

#[test]
fn symbols_are_those_of_nm() {
    for name in ["c/o2", "dwarf/shapes", "rust/release", "rust/debug"] {
        let firmware = firmware(name);
        let text = fixture_text(&format!("{name}.symbols.txt"));
        let mut compared = 0;
        for line in text.lines().skip(1) {
            let mut words = line.splitn(4, ' ');
            let (address, size) = (words.next().unwrap(), words.next().unwrap());
            // Without a size the second word is the letter.
            if size.len() == 1 {
                continue;
            }
            let [address, size] = [address, size].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            let is_code = words.next().is_some_and(|letter| "tTwW".contains(letter));
            let wanted = words.next().unwrap();
            // The compiler's own labels, for constants without a name.
            if wanted.starts_with(".L") {
                continue;
            }
            let address = if is_code { address & !1 } else { address };
            let found = firmware.symbols().any(|symbol| {
                symbol.address == address
                    && symbol.size == size
                    && letters(&symbol.name) == letters(&wanted.replace("vtable for", "vtable"))
            });
            assert!(found, "{name}: {line}");
            let last = firmware.symbol_at(address + size - 1);
            let last = last.unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(last.symbol.address < address + size, "{name}: {line}");
            assert!(
                last.symbol.address + last.symbol.size >= address + size,
                "{name}: {line}"
            );
            compared += 1;
        }
        assert!(compared > 5, "{name}: only {compared}");
    }
}
