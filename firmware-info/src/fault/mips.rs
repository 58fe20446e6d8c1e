//! MIPS: the code in CP0's Cause.

use super::{Cause, FaultReport};

/// Cause and EPC in words; `None` for an interrupt.
#[must_use]
pub fn mips_exception(cause: u64, epc: u64) -> Option<FaultReport> {
    let (name, meaning) = match cause >> 2 & 0x1f {
        0 => return None,
        1 => ("Mod", "a write to a page that is not dirty"),
        2 => ("TLBL", "a read or fetch that no TLB entry maps"),
        3 => ("TLBS", "a write that no TLB entry maps"),
        4 => (
            "AdEL",
            "a read or fetch at an unaligned or forbidden address",
        ),
        5 => ("AdES", "a write at an unaligned or forbidden address"),
        6 => ("IBE", "a fetch that nothing answered"),
        7 => ("DBE", "an access that nothing answered"),
        8 => ("Sys", "a system call"),
        9 => ("Bp", "a breakpoint instruction"),
        10 => ("RI", "a reserved instruction"),
        11 => ("CpU", "an instruction of a coprocessor that is not enabled"),
        12 => ("Ov", "an arithmetic overflow"),
        13 => ("Tr", "a trap instruction"),
        15 => ("FPE", "a floating-point exception"),
        19 => ("TLBRI", "a read that the page forbids"),
        20 => ("TLBXI", "a fetch that the page forbids"),
        23 => ("WATCH", "a watchpoint"),
        24 => ("MCheck", "a machine check"),
        _ => ("ExcCode", "a code that is not common to all cores"),
    };
    Some(FaultReport {
        causes: vec![Cause::new("exception", name, meaning)],
        notes: vec![format!("taken at {epc:#010x}")],
        registers: vec![("Cause", cause), ("EPC", epc)],
        ..FaultReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::mips_exception;

    #[test]
    fn exceptions_in_words() {
        let report = mips_exception(0x10, 0x8010_0004).unwrap();
        assert_eq!(
            report.to_string(),
            "exception: a read or fetch at an unaligned or forbidden address (AdEL)"
        );
        assert_eq!(report.notes, ["taken at 0x80100004"]);
        assert_eq!(mips_exception(0x8000, 0), None);
        assert!(mips_exception(u64::MAX, u64::MAX).is_some());
    }
}
