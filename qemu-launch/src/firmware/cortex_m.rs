//! Boards whose own CPU is a Cortex-M, and the check of its vector table.

use std::path::Path;

use object::ReadRef;

use crate::firmware::FirmwareError;
use crate::firmware::elf::{self, Elf, Segment};

/// Boards of QEMU 7.2 to 10.0 with the CPU that they have where none is named.
const BOARDS: &[(&str, &str)] = &[
    ("ast1030-evb", "cortex-m4"),
    ("b-l475e-iot01a", "cortex-m4"),
    ("emcraft-sf2", "cortex-m3"),
    ("lm3s6965evb", "cortex-m3"),
    ("lm3s811evb", "cortex-m3"),
    ("microbit", "cortex-m0"),
    ("mps2-an385", "cortex-m3"),
    ("mps2-an386", "cortex-m4"),
    ("mps2-an500", "cortex-m7"),
    ("mps2-an505", "cortex-m33"),
    ("mps2-an511", "cortex-m3"),
    ("mps2-an521", "cortex-m33"),
    ("mps3-an524", "cortex-m33"),
    ("mps3-an547", "cortex-m55"),
    ("musca-a", "cortex-m33"),
    ("musca-b1", "cortex-m33"),
    ("netduino2", "cortex-m3"),
    ("netduinoplus2", "cortex-m4"),
    ("olimex-stm32-h405", "cortex-m4"),
    ("stm32vldiscovery", "cortex-m3"),
];

/// The board's own CPU, where that is known to be a Cortex-M.
pub(crate) fn of_board(board: &str) -> Option<&'static str> {
    let row = BOARDS.iter().find(|(name, _)| *name == board);
    row.map(|&(_, cpu)| cpu)
}

pub(crate) fn is_one(cpu: &str) -> bool {
    cpu.starts_with("cortex-m")
}

/// Whether it finds its table at address 0, where something is loaded there. One with a secure
/// state (Armv8-M) has a table for each, and where the secure one is, is the board's affair.
fn begins_at_zero(cpu: &str) -> bool {
    ![
        "cortex-m23",
        "cortex-m33",
        "cortex-m35p",
        "cortex-m52",
        "cortex-m55",
        "cortex-m85",
    ]
    .contains(&cpu)
}

/// Checks the table of a CPU that is known to be a Cortex-M.
pub(crate) fn check_vectors<'data>(
    path: &Path,
    data: impl ReadRef<'data>,
    elf: &Elf,
    cpu: Option<&str>,
) -> Result<(), FirmwareError> {
    let Some(cpu) = cpu.filter(|cpu| is_one(cpu)) else {
        return Ok(());
    };
    let loaded = || elf.segments.iter().filter(|segment| segment.file_size > 0);
    let verdict = |segment: &Segment| match elf::first_words(data, segment) {
        Some((stack, reset)) => vectors(elf, stack, reset),
        None => Err("the segment is shorter than a table".to_owned()),
    };
    let at_zero = loaded().find(|segment| segment.address == 0 && begins_at_zero(cpu));
    let candidates: Vec<&Segment> = match at_zero {
        Some(at_zero) => vec![at_zero],
        None => loaded().collect(),
    };
    let mut first_bad = None;
    for segment in candidates {
        match verdict(segment) {
            Ok(()) => return Ok(()),
            Err(why) => first_bad = first_bad.or(Some((segment.address, why))),
        }
    }
    match first_bad {
        Some((address, why)) => Err(FirmwareError::NoVectorTable {
            path: path.to_owned(),
            address,
            why,
        }),
        None => Ok(()),
    }
}

fn vectors(elf: &Elf, stack: u32, reset: u32) -> Result<(), String> {
    if stack == 0 || !stack.is_multiple_of(4) {
        return Err(format!("the initial stack pointer would be {stack:#010x}"));
    }
    if reset.is_multiple_of(2) {
        return Err(format!(
            "the reset vector {reset:#010x} is even, which is not Thumb code"
        ));
    }
    let code = u64::from(reset - 1);
    if !elf.segments.iter().any(|segment| segment.holds(code)) {
        return Err(format!(
            "the reset vector {reset:#010x} points outside what is loaded"
        ));
    }
    Ok(())
}
