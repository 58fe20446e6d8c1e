//! AArch64: the exception syndrome register.

use super::armv7::long_status;
use super::{Cause, FaultReport};

/// ESR and FAR of an exception level in words.
#[must_use]
pub fn armv8_exception(esr: u64, far: u64) -> FaultReport {
    let class = esr >> 26 & 0x3f;
    let (exception, name, meaning) = match class {
        0x20 | 0x21 => with_status("instruction abort", esr),
        0x24 | 0x25 => with_status("data abort", esr),
        0x00 => (
            "exception",
            "unknown reason",
            "an undefined instruction, or one that this level may not use",
        ),
        0x07 => (
            "exception",
            "FP or SIMD",
            "a floating-point instruction, and CPACR_EL1.FPEN or CPTR forbids them",
        ),
        0x0d => ("exception", "BTI", "a branch to where no BTI is"),
        0x0e => ("exception", "illegal state", "an illegal return or state"),
        0x18 => (
            "exception",
            "MSR or MRS",
            "a system register that is trapped",
        ),
        0x22 => ("exception", "PC alignment", "a program counter not aligned"),
        0x26 => ("exception", "SP alignment", "a stack pointer not aligned"),
        0x2c => (
            "exception",
            "FP",
            "a floating-point operation that is trapped",
        ),
        0x2f => ("SError", "SError", "an earlier access that failed"),
        0x3c => ("exception", "BRK", "a breakpoint instruction"),
        _ => ("exception", "EC", "a class that tells of no fault"),
    };
    let is_data = matches!(class, 0x24 | 0x25);
    // FnV: FAR holds nothing.
    let has_address = matches!(class, 0x20..=0x22 | 0x24 | 0x25) && esr >> 10 & 1 == 0;
    let access = match esr >> 6 & 1 {
        1 => "it was a write",
        _ => "it was a read",
    };
    FaultReport {
        causes: vec![Cause::new(exception, name, meaning)],
        address: has_address.then_some(far),
        notes: is_data.then(|| access.to_owned()).into_iter().collect(),
        registers: vec![("ESR", esr), ("FAR", far)],
        ..FaultReport::default()
    }
}

fn with_status(exception: &'static str, esr: u64) -> (&'static str, &'static str, &'static str) {
    let (name, meaning) = long_status((esr & 0x3f) as u32);
    (exception, name, meaning)
}

#[cfg(test)]
mod tests {
    use super::armv8_exception;

    #[test]
    fn exceptions_in_words() {
        for (esr, wanted) in [
            (
                0x9600_0050,
                "data abort: an access that nothing answered (synchronous external) at 0x08f00000",
            ),
            (
                0x8600_0010,
                "instruction abort: an access that nothing answered (synchronous external) at 0x08f00000",
            ),
            (
                0x9600_0410,
                "data abort: an access that nothing answered (synchronous external)",
            ),
            (
                0x0200_0000,
                "exception: an undefined instruction, or one that this level may not use (unknown reason)",
            ),
            (u64::MAX, "exception: a class that tells of no fault (EC)"),
        ] {
            assert_eq!(armv8_exception(esr, 0x8f0_0000).to_string(), wanted);
        }
        assert_eq!(armv8_exception(0x9600_0050, 0).notes, ["it was a write"]);
    }
}
