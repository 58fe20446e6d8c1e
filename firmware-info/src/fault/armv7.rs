//! ARMv7-A and R: the data and instruction fault status registers.

use super::{Cause, FaultReport};

/// DFSR and DFAR of a data abort in words. Both descriptor formats of the A-profile and the
/// R-profile's codes.
#[must_use]
pub fn armv7_data_abort(dfsr: u32, dfar: u32) -> FaultReport {
    let (name, meaning) = status(dfsr);
    let access = if dfsr >> 11 & 1 == 1 {
        "it was a write"
    } else {
        "it was a read"
    };
    let mut notes = vec![access.to_owned()];
    notes.extend(external(dfsr));
    FaultReport {
        causes: vec![Cause {
            exception: "data abort",
            name,
            meaning,
        }],
        // An asynchronous abort comes late, and names no address.
        address: (!name.starts_with("asynchronous")).then_some(dfar.into()),
        notes,
        registers: vec![("DFSR", dfsr.into()), ("DFAR", dfar.into())],
        ..FaultReport::default()
    }
}

/// IFSR and IFAR of a prefetch abort in words.
#[must_use]
pub fn armv7_prefetch_abort(ifsr: u32, ifar: u32) -> FaultReport {
    let (name, meaning) = status(ifsr);
    FaultReport {
        causes: vec![Cause {
            exception: "prefetch abort",
            name,
            meaning,
        }],
        address: Some(ifar.into()),
        notes: external(ifsr).into_iter().collect(),
        registers: vec![("IFSR", ifsr.into()), ("IFAR", ifar.into())],
        ..FaultReport::default()
    }
}

fn external(status: u32) -> Option<String> {
    (status >> 12 & 1 == 1).then(|| "the external abort is of the second kind (ExT)".to_owned())
}

/// Name and meaning of a status. Bit 9 says which format: long descriptors, or short ones.
fn status(value: u32) -> (&'static str, &'static str) {
    if value >> 9 & 1 == 1 {
        return long_status(value & 0x3f);
    }
    match value & 0xf | value >> 6 & 0x10 {
        0x00 => ("background", "an address that no MPU region has"),
        0x01 => ("alignment", "an unaligned access"),
        0x02 => ("debug event", "a breakpoint or watchpoint"),
        0x03 | 0x06 => ("access flag", "a page whose access flag is clear"),
        0x04 => (
            "cache maintenance",
            "an instruction cache maintenance operation that failed",
        ),
        0x05 => (
            "translation, section",
            "an address that the page tables do not map",
        ),
        0x07 => (
            "translation, page",
            "an address that the page tables do not map",
        ),
        0x08 => ("synchronous external", "an access that nothing answered"),
        0x09 | 0x0b => ("domain", "an access that the domain forbids"),
        0x0c | 0x0e => ("external on walk", "a page table that nothing answered for"),
        0x0d => ("permission, section", "an access that is forbidden there"),
        0x0f => ("permission, page", "an access that is forbidden there"),
        0x10 => ("TLB conflict", "two TLB entries for one address"),
        0x14 => (
            "lockdown",
            "a fault of the lockdown, as the implementation defines it",
        ),
        0x16 => (
            "asynchronous external",
            "an earlier access that nothing answered",
        ),
        0x18 => (
            "asynchronous parity",
            "an earlier access with a parity error",
        ),
        0x19 => ("parity", "a parity error of the memory"),
        0x1a => ("coprocessor", "an abort of a coprocessor"),
        0x1c | 0x1e => ("parity on walk", "a parity error in a page table"),
        _ => ("reserved", "a status that the architecture does not define"),
    }
}

/// Of the long descriptors' format, which AArch64 has as well.
pub(super) fn long_status(status: u32) -> (&'static str, &'static str) {
    match status {
        0x00..=0x03 => ("address size", "an address that is too large"),
        0x04..=0x07 => ("translation", "an address that the page tables do not map"),
        0x08..=0x0b => ("access flag", "a page whose access flag is clear"),
        0x0c..=0x0f => ("permission", "an access that is forbidden there"),
        0x10 => ("synchronous external", "an access that nothing answered"),
        0x11 => (
            "asynchronous external",
            "an earlier access that nothing answered",
        ),
        0x14..=0x17 => ("external on walk", "a page table that nothing answered for"),
        0x18 => ("parity", "a parity error of the memory"),
        0x19 => (
            "asynchronous parity",
            "an earlier access with a parity error",
        ),
        0x1c..=0x1f => ("parity on walk", "a parity error in a page table"),
        0x21 => ("alignment", "an unaligned access"),
        0x22 => ("debug event", "a breakpoint or watchpoint"),
        0x30 => ("TLB conflict", "two TLB entries for one address"),
        _ => ("reserved", "a status that the architecture does not define"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aborts_in_words() {
        for (dfsr, wanted) in [
            (
                0x805,
                "data abort: an address that the page tables do not map (translation, section) at 0x00001000",
            ),
            (
                0x001,
                "data abort: an unaligned access (alignment) at 0x00001000",
            ),
            // Bit 10 is bit 4 of the status.
            (
                0x406,
                "data abort: an earlier access that nothing answered (asynchronous external)",
            ),
            (
                0x20d,
                "data abort: an access that is forbidden there (permission) at 0x00001000",
            ),
        ] {
            assert_eq!(
                armv7_data_abort(dfsr, 0x1000).to_string(),
                wanted,
                "{dfsr:#x}"
            );
        }
        assert_eq!(armv7_data_abort(0x805, 0).notes, ["it was a write"]);
        let report = armv7_prefetch_abort(0x00d, 0x2000);
        assert_eq!(
            report.to_string(),
            "prefetch abort: an access that is forbidden there (permission, section) at 0x00002000"
        );
    }
}
