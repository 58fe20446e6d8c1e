//! Where a firmware's semihosting instructions are: by their bytes, in its ELF file's code.
//!
//! Bytes that only look like one, in a table of constants, get a breakpoint that is never reached.

use firmware_info::Firmware;

use super::call::Instruction;

/// More calls than any firmware has: what looks so is data. Each costs a question to the stub.
const MOST_SITES: usize = 4096;

/// More code than any firmware has.
const MOST_CODE: u64 = 64 * 1024 * 1024;

/// The addresses; at the most [`MOST_SITES`].
pub(super) fn find(firmware: &Firmware, instructions: &[Instruction]) -> Vec<u64> {
    let mut sites = Vec::new();
    for section in firmware.sections() {
        if !section.executable || !section.loaded || section.size > MOST_CODE {
            continue;
        }
        let mut code = vec![0; section.size as usize];
        if !firmware.loaded(section.address, &mut code) {
            continue;
        }
        for instruction in instructions {
            sites.extend(places(&code, section.address, instruction));
        }
    }
    sites.sort_unstable();
    sites.dedup();
    sites.truncate(MOST_SITES);
    sites
}

/// The addresses of one instruction in this code.
fn places(code: &[u8], address: u64, instruction: &Instruction) -> impl Iterator<Item = u64> {
    let Instruction {
        bytes,
        at,
        alignment,
        ..
    } = *instruction;
    let windows = code.windows(bytes.len()).enumerate();
    windows.filter_map(move |(offset, window)| {
        let here = address.wrapping_add(offset as u64);
        (here.is_multiple_of(alignment) && window == bytes).then_some(here.wrapping_add(at))
    })
}
