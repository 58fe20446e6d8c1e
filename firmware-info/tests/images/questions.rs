//! What a caller asks besides: addresses of a line, ranges of a function, names that are not there,
//! addresses that are nowhere.

use crate::firmware;
use firmware_info::{Architecture, NameError, SymbolKind};

#[test]
fn a_line_has_addresses_and_they_have_the_line() {
    for (name, file, line) in [
        ("c/o0", "main.c", 56),
        ("c/o2", "c/main.c", 91),
        ("c/lto", "/fixtures/c/main.c", 99),
        ("dwarf/dwarf2", "small.c", 11),
        ("rust/debug", "src/main.rs", 79),
        ("rust/release", "main.rs", 97),
        ("riscv/debug", "main.rs", 27),
    ] {
        let firmware = firmware(name);
        let found = firmware.line_addresses(file, line).unwrap().expect(name);
        assert!(!found.addresses.is_empty(), "{name}");
        assert!(
            (line..line + 3).contains(&found.line),
            "{name}: {}",
            found.line
        );
        for address in found.addresses {
            let frames = firmware.source_frames(address).unwrap();
            let location = frames[0].location.as_ref().unwrap();
            assert_eq!(location.line, found.line, "{name} at {address:#x}");
            let file = file.rsplit('/').next().unwrap();
            assert!(location.file.ends_with(file), "{name}: {location}");
        }
        for (file, line) in [("ain.c", 56), ("other.c", 1), ("main.c", 100_000), ("", 1)] {
            assert_eq!(
                firmware.line_addresses(file, line).unwrap(),
                None,
                "{name}: {file}"
            );
        }
    }
}

#[test]
fn the_ranges_of_a_function_are_those_of_its_symbol() {
    for name in [
        "c/o0",
        "c/o2",
        "rust/debug",
        "rust/release",
        "riscv/release",
    ] {
        let firmware = firmware(name);
        let main = firmware.symbol("main").unwrap();
        let function = firmware.function_at(main.address + 2).unwrap().unwrap();
        assert_eq!(function.ranges[0].start, main.address, "{name}");
        assert!(function.ranges[0].end <= main.address + main.size, "{name}");
    }
}

/// GNU as gives them an address with the bit of Thumb. gdb takes that for the address.
#[test]
fn functions_of_assembly_have_the_name_that_they_are_called_by() {
    let firmware = firmware("c/o2");
    let function = firmware.symbol("__aeabi_dmul").unwrap();
    for at in [0, 1, 2, function.size - 1] {
        let frames = firmware.source_frames(function.address + at).unwrap();
        assert_eq!(frames[0].function.as_deref(), Some("__aeabi_dmul"), "{at}");
    }
}

#[test]
fn code_of_no_line_has_the_line_before_it_in_its_function() {
    for (name, address, wanted) in [
        ("aprofile/aarch64", 0x4001_001c, "weigh near main.rs:42:5"),
        // Right behind what was inlined, whose line gdb shows.
        ("rust/release", 0x5b8, "round near main.rs:101:8"),
        // Nothing else of its function is before it.
        ("riscv/release", 0x8000_0014, "weigh at mod.rs"),
    ] {
        let frames = firmware(name).source_frames(address).unwrap();
        let text = frames[0].to_string();
        let (function, place) = text.rsplit_once(' ').unwrap();
        let last = |path: &str| path.rsplit([':', '/']).next().unwrap().to_owned();
        let file = place.rsplit('/').next().unwrap();
        assert_eq!(format!("{} {file}", last(function)), wanted, "{name}");
    }
}

#[test]
fn names_are_found_as_written_and_others_are_proposed() {
    let firmware = firmware("rust/debug");
    let ticks = firmware.symbol("calls::TICKS").unwrap();
    assert_eq!((ticks.kind, ticks.size), (SymbolKind::Object, 4));
    assert_eq!(ticks.section.as_deref(), Some(".bss"));
    for name in ["TICKS", &ticks.raw_name.clone()] {
        assert_eq!(firmware.symbol(name).unwrap(), ticks, "{name}");
    }
    assert_eq!(firmware.symbol("PLAIN_COUNTER").unwrap().size, 8);
    assert_eq!(
        firmware.symbol("numbers::collatz").unwrap().kind,
        SymbolKind::Function
    );
    let error = firmware.symbol("calls::TICK").unwrap_err();
    let NameError::Unknown { similar, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(similar[0], "calls::TICKS");
    assert!(
        error
            .to_string()
            .starts_with("the firmware has no symbol 'calls::TICK'; similar ones: calls::TICKS")
    );
    assert!(matches!(
        firmware.symbol("fmt"),
        Err(NameError::Ambiguous { .. })
    ));
}

#[test]
fn an_address_that_is_nowhere_has_no_symbol() {
    for name in ["c/o2", "rust/debug", "riscv/release"] {
        let firmware = firmware(name);
        for address in [0x4000_0000, 0x5fff_fffe, 0xffff_fffe, u64::MAX, 0x8fff_0000] {
            assert_eq!(firmware.symbol_at(address), None, "{name} at {address:#x}");
            assert_eq!(
                firmware.source_frames(address).unwrap(),
                [],
                "{name} at {address:#x}"
            );
        }
    }
    let firmware = firmware("c/o2");
    assert_eq!(
        firmware.symbol_at(firmware.symbol("_estack").unwrap().address + 8),
        None
    );
    assert_eq!(firmware.architecture(), Architecture::Arm);
    // The literals behind a function belong to it; what fills up to the next one to nobody.
    let hash = firmware.symbol("hash").unwrap();
    let last = firmware.symbol_at(hash.address + hash.size - 1).unwrap();
    assert_eq!(last.symbol, hash);
}

#[test]
fn sections_and_what_is_loaded() {
    let firmware = firmware("c/o2");
    let text = firmware.section_at(0x100).unwrap();
    assert!(text.name == ".text" && text.executable && !text.writable);
    assert!(firmware.section_at(0x2000_0000).unwrap().writable);
    let mut word = [0; 4];
    assert!(firmware.loaded(0, &mut word));
    assert_eq!(u32::from_le_bytes(word), 0x2001_0000);
    assert!(!firmware.loaded(0x3_0000, &mut word) && !firmware.loaded(u64::MAX, &mut word));
}

#[test]
fn the_vector_table_and_the_stack() {
    let firmware = firmware("exceptions/usage");
    let table = firmware.vector_table().unwrap();
    assert_eq!((table.address, table.initial_sp), (0, 0x2040_0000));
    let handler = |number| {
        let vector = table.vectors.iter().find(|vector| vector.number == number);
        vector.and_then(|vector| vector.handler.clone())
    };
    assert_eq!(handler(1).as_deref(), Some("reset_handler"));
    assert_eq!(handler(6).as_deref(), Some("usage_fault_handler"));
    assert_eq!(handler(16).as_deref(), Some("irq0_handler"));
    assert_eq!((handler(7), handler(17)), (None, None));
    let stack = firmware.stack_bounds().unwrap();
    assert_eq!(
        (stack.top, stack.limit.unwrap().1.as_str()),
        (0x2040_0000, "_end")
    );
    let rust = crate::firmware("rust/debug");
    assert_eq!(
        rust.vector_table().unwrap().reset(),
        Some(rust.symbol("Reset").unwrap().address)
    );
    let stack = rust.stack_bounds().unwrap();
    assert!(stack.top == 0x2001_0000 && stack.range().is_some());
    assert_eq!(crate::firmware("riscv/debug").vector_table(), None);
    let stack = crate::firmware("riscv/debug").stack_bounds().unwrap();
    assert_eq!(
        stack.range().map(|range| range.end - range.start),
        Some(0x1000)
    );
}
