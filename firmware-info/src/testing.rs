//! For this project's own tests: the body of the fuzz target. No part of the interface.

use crate::Firmware;

/// Any bytes end in an answer or an error, within the limits.
pub fn ask_everything(bytes: &[u8]) {
    let Ok(firmware) = Firmware::parse(bytes) else {
        return;
    };
    let mut addresses = vec![0, 0x400, 0x8000, u64::MAX, firmware.entry()];
    for symbol in firmware.symbols().take(64) {
        assert!(symbol.name.len() <= 8192 && symbol.raw_name.len() <= 4096);
        addresses.extend([symbol.address, symbol.address.wrapping_add(symbol.size / 2)]);
        let _ = firmware.symbol(&symbol.name);
    }
    for section in firmware
        .sections()
        .iter()
        .filter(|section| section.executable)
        .take(4)
    {
        let step = usize::try_from(section.size / 64).unwrap_or(1).max(2);
        let end = section.address.saturating_add(section.size);
        addresses.extend((section.address..end).step_by(step).take(64));
    }
    for address in addresses {
        let _ = firmware.symbol_at(address);
        let _ = firmware.function_at(address);
        for frame in firmware.source_frames(address).unwrap_or_default() {
            let _ = frame.to_string();
        }
    }
    for file in ["main.c", "main.rs", "small.c"] {
        let _ = firmware.line_addresses(file, 10);
    }
    let _ = firmware.symbol("no such name");
}
