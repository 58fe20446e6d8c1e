//! Xtensa: EXCCAUSE, EXCVADDR and EPC1.

use super::{Cause, FaultReport};

/// EXCCAUSE, EXCVADDR and EPC1 in words; `None` for an interrupt.
#[must_use]
pub fn xtensa_exception(exccause: u64, excvaddr: u64, epc1: u64) -> Option<FaultReport> {
    let (name, meaning) = match exccause {
        0 => ("IllegalInstruction", "an illegal instruction"),
        1 => ("Syscall", "a system call"),
        2 => ("InstructionFetchError", "a fetch that nothing answered"),
        3 => ("LoadStoreError", "an access that nothing answered"),
        4 => return None,
        5 => ("Alloca", "a MOVSP of a caller whose registers are spilled"),
        6 => ("IntegerDivideByZero", "a division by zero"),
        8 => ("Privileged", "an instruction of ring 0 in another ring"),
        9 => ("LoadStoreAlignment", "an unaligned access"),
        12 | 14 => ("InstrPIF", "a fetch that the bus refused"),
        13 | 15 => ("LoadStorePIF", "an access that the bus refused"),
        16 => ("InstTLBMiss", "a fetch that no TLB entry maps"),
        17 => ("InstTLBMultiHit", "a fetch that several TLB entries map"),
        18 => ("InstFetchPrivilege", "a fetch that the ring forbids"),
        20 => ("InstFetchProhibited", "a fetch from where it is forbidden"),
        24 => ("LoadStoreTLBMiss", "an access that no TLB entry maps"),
        25 => (
            "LoadStoreTLBMultiHit",
            "an access that several TLB entries map",
        ),
        26 => ("LoadStorePrivilege", "an access that the ring forbids"),
        28 => ("LoadProhibited", "a read that is forbidden there"),
        29 => ("StoreProhibited", "a write that is forbidden there"),
        32..=39 => (
            "CoprocessorDisabled",
            "an instruction of a coprocessor that is not enabled",
        ),
        _ => ("EXCCAUSE", "a cause that is not common to all cores"),
    };
    Some(FaultReport {
        causes: vec![Cause::new("exception", name, meaning)],
        // The causes of an access.
        address: matches!(exccause, 3 | 9 | 13 | 15 | 24..=29).then_some(excvaddr),
        notes: vec![format!("taken at {epc1:#010x}")],
        registers: vec![
            ("EXCCAUSE", exccause),
            ("EXCVADDR", excvaddr),
            ("EPC1", epc1),
        ],
        ..FaultReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::xtensa_exception;

    #[test]
    fn exceptions_in_words() {
        let report = xtensa_exception(29, 0x1000, 0xd000_0012).unwrap();
        assert_eq!(
            report.to_string(),
            "exception: a write that is forbidden there (StoreProhibited) at 0x00001000"
        );
        assert_eq!(report.notes, ["taken at 0xd0000012"]);
        assert_eq!(xtensa_exception(4, 0, 0), None);
        assert!(xtensa_exception(u64::MAX, u64::MAX, u64::MAX).is_some());
    }
}
