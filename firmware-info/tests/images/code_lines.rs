//! All code with its lines, and all functions: the same as what single questions are answered.

use std::collections::BTreeSet;

use crate::firmware;

const IMAGES: [&str; 7] = [
    "c/o0",
    "c/o2",
    "c/lto",
    "dwarf/dwarf4",
    "dwarf/dwarf64",
    "rust/release",
    "riscv/debug",
];

#[test]
fn every_piece_of_code_has_the_line_that_its_addresses_have() {
    for name in IMAGES {
        let firmware = firmware(name);
        let pieces = firmware.code_lines().unwrap();
        assert!(pieces.len() > 5, "{name}");
        for piece in &pieces {
            assert!(piece.range.start < piece.range.end && piece.line > 0);
            for address in [piece.range.start, piece.range.end - 1] {
                let frames = firmware.source_frames(address).unwrap();
                let location = frames[0].location.as_ref().unwrap();
                let found = (&location.file, location.line);
                assert_eq!(found, (&piece.file, piece.line), "{name} at {address:#x}");
            }
        }
    }
}

#[test]
fn functions_are_at_their_lines_with_their_code() {
    for name in ["c/o0", "c/o2", "c/lto"] {
        let firmware = firmware(name);
        let functions = firmware.source_functions().unwrap();
        let at = |name: &str| {
            let named = functions.iter().filter(|found| &*found.name == name);
            let lines: BTreeSet<u32> = named.clone().map(|found| found.line).collect();
            let ranges = named.flat_map(|found| found.ranges.clone()).count();
            (lines.into_iter().collect::<Vec<_>>(), ranges)
        };
        assert_eq!(at("hash").0, [43], "{name}");
        let (lines, ranges) = at("mix");
        assert_eq!(lines, [37], "{name}");
        // Where it is inlined it has code as well.
        assert!(ranges >= 2, "{name}");
        // GCC leaves its inlined copies no code of their own.
        let (lines, ranges) = at("rotate");
        assert_eq!((lines, ranges >= 1), (vec![33], name == "c/o0"), "{name}");
    }
    let functions = firmware("rust/release").source_functions().unwrap();
    let square = functions.iter().find(|found| found.name.contains("square"));
    assert!(square.is_some_and(|found| found.file.ends_with("src/main.rs") && found.line > 1));
}
