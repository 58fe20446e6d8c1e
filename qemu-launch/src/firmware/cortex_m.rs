//! The check of a Cortex-M's vector table.

use std::path::Path;

use crate::board;
use crate::firmware::FirmwareError;
use crate::firmware::loaded::{Loaded, Vectors};

/// The board's own CPU, where that is known to be a Cortex-M.
pub(crate) fn of_board(name: &str) -> Option<&'static str> {
    board::known(name)?.cortex_m
}

pub(crate) fn is_one(cpu: &str) -> bool {
    cpu.starts_with("cortex-m")
}

/// Checks the vector table that a Cortex-M on this board would begin with. `firmware` is blamed
/// where nothing is at the board's reset address.
pub(crate) fn check_vectors(
    name: &str,
    loaded: &Loaded,
    firmware: &Path,
) -> Result<(), FirmwareError> {
    if loaded.has_unknown {
        return Ok(());
    }
    let addresses = board::known(name).map_or(&[][..], |board| board.vectors);
    let Some(first) = addresses.first() else {
        return check_any_start(loaded);
    };
    for &address in addresses {
        if let Some((vectors, path)) = loaded.vectors_at(address) {
            return check_table(loaded, address, vectors, path);
        }
    }
    if let Some(&address) = addresses.iter().find(|&&address| loaded.holds(address)) {
        return Err(no_table(firmware, address, SHORT));
    }
    let begins = loaded.starts().map(|(start, _)| start).min().unwrap_or(0);
    Err(FirmwareError::not_runnable(
        firmware,
        format!(
            "begins at {begins:#x}, and nothing is loaded at {first:#x}, where the CPU of {name} looks for \
             its vectors: link it for that address, or load its boot loader as well"
        ),
    ))
}

/// Where the reset address is not known: at 0 if something is loaded there, else at the beginning
/// of any piece.
fn check_any_start(loaded: &Loaded) -> Result<(), FirmwareError> {
    let mut first_bad = None;
    for (start, path) in loaded.starts() {
        let verdict = match loaded.vectors_at(start) {
            Some((vectors, _)) => check_table(loaded, start, vectors, path),
            None => Err(no_table(path, start, SHORT)),
        };
        match verdict {
            Ok(()) => return Ok(()),
            Err(bad) => first_bad = first_bad.or(Some(bad)),
        }
    }
    first_bad.map_or(Ok(()), Err)
}

const SHORT: &str = "it is shorter than a table";

/// The beginning of an ELF file, read as a stack pointer.
const ELF_MAGIC: u32 = u32::from_le_bytes(*b"\x7fELF");

fn check_table(
    loaded: &Loaded,
    address: u64,
    Vectors { stack, reset }: Vectors,
    path: &Path,
) -> Result<(), FirmwareError> {
    let bad = |why: &str| Err(no_table(path, address, why));
    if stack == ELF_MAGIC {
        return bad(
            "the file's own ELF header is loaded there; link with -Wl,--nmagic (ld -n), which keeps \
             it out of the first segment",
        );
    }
    if (stack, reset) == (u32::MAX, u32::MAX) {
        return bad("what is loaded there is erased flash (all ones)");
    }
    // The CPU ignores the low two bits, and FreeRTOS's demos set them.
    if stack & !3 == 0 {
        return bad(&format!("the initial stack pointer would be {stack:#010x}"));
    }
    if reset.is_multiple_of(2) {
        return bad(&format!(
            "the reset vector {reset:#010x} is even, which is not Thumb code"
        ));
    }
    if !loaded.holds(u64::from(reset - 1)) {
        return bad(&format!(
            "the reset vector {reset:#010x} points outside what is loaded"
        ));
    }
    Ok(())
}

fn no_table(path: &Path, address: u64, why: &str) -> FirmwareError {
    FirmwareError::not_runnable(
        path,
        format!("has no vector table for a Cortex-M at {address:#x}: {why}"),
    )
}
