//! What is at an address, as `addr2line -fip` tells it: function, line, and what was inlined.
//!
//! `cargo run -p firmware-info --example where -- firmware.elf 0x1234 …`; without addresses it
//! reads them from stdin.

use std::error::Error;
use std::io::{BufWriter, Write, stdin, stdout};

use firmware_info::Firmware;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: where ELF [ADDRESS]...")?;
    let firmware = Firmware::open(path)?;
    let mut out = BufWriter::new(stdout());
    let mut addresses: Vec<String> = arguments.collect();
    if addresses.is_empty() {
        addresses = stdin().lines().collect::<Result<_, _>>()?;
    }
    for text in addresses {
        let address = u64::from_str_radix(text.trim_start_matches("0x"), 16)?;
        let frames = firmware.source_frames(address)?;
        match firmware.symbol_at(address) {
            _ if !frames.is_empty() => {}
            Some(symbol) => writeln!(out, "{address:#x}: {}", symbol.to_string().escape_debug())?,
            None => writeln!(out, "{address:#x}: nothing is known of it")?,
        }
        for (number, frame) in frames.iter().enumerate() {
            let start = if number == 0 {
                format!("{address:#x}:")
            } else {
                " by".to_owned()
            };
            writeln!(out, "{start} {}", frame.to_string().escape_debug())?;
        }
    }
    Ok(())
}
