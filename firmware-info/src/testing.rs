//! For this project's own tests: the body of the fuzz target. No part of the interface.

use crate::{Firmware, Registers};

/// Any bytes end in an answer or an error, within the limits.
pub fn ask_everything(bytes: &[u8]) {
    let Ok(firmware) = Firmware::parse(bytes) else {
        return;
    };
    let mut addresses = vec![0, 0x400, 0x8000, u64::MAX, firmware.entry()];
    for symbol in firmware.symbols().take(64) {
        assert!(symbol.name.len() <= 8192 && symbol.raw_name.len() <= 4096);
        addresses.extend([symbol.address, symbol.address.wrapping_add(symbol.size / 2)]);
        let _ = firmware.static_value(&symbol.name, &mut |at, buffer: &mut [u8]| {
            firmware.loaded(at, buffer)
        });
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
        let mut registers = Registers::arm([address as u32 | 1; 16]);
        (registers.xpsr, registers.psp) = (Some(address as u32), Some(address));
        // Any memory: words that are addresses of this firmware, now and then one that cannot be
        // read.
        let mut count = 0_u64;
        let mut memory = |at: u64, buffer: &mut [u8]| {
            count += 1;
            let word = (address ^ (at >> 3)).to_le_bytes();
            buffer
                .iter_mut()
                .zip(word)
                .for_each(|(byte, value)| *byte = value);
            !count.is_multiple_of(61)
        };
        let backtrace = firmware.backtrace(&registers, &mut memory);
        let _ = backtrace.to_string();
        for frame in backtrace.frames.iter().take(3) {
            let _ = firmware.locals(frame, &mut memory);
        }
    }
    for file in ["main.c", "main.rs", "small.c"] {
        let _ = firmware.line_addresses(file, 10);
    }
    let _ = firmware.symbol("no such name");
    let _ = (firmware.vector_table(), firmware.stack_bounds());
}
