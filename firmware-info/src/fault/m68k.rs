//! m68k and ColdFire: the exception vectors.

use super::{Cause, FaultReport};

/// The exception of a vector in words, with the program counter of its stack frame; `None` for an
/// interrupt.
#[must_use]
pub fn m68k_exception(vector: u16, pc: u64) -> Option<FaultReport> {
    let (name, meaning) = match vector {
        2 => ("vector 2", "an access that nothing answered"),
        3 => ("vector 3", "an unaligned address"),
        4 => ("vector 4", "an illegal instruction"),
        5 => ("vector 5", "a division by zero"),
        6 => ("vector 6", "a bound that CHK found exceeded"),
        7 => ("vector 7", "a trap on overflow or condition"),
        8 => ("vector 8", "an instruction of supervisor mode in user mode"),
        9 => ("vector 9", "a traced instruction"),
        10 => ("vector 10", "an unimplemented instruction of line A"),
        11 => ("vector 11", "an unimplemented instruction of line F"),
        14 => ("vector 14", "a bad stack frame to return from"),
        32..=47 => ("vectors 32 to 47", "a TRAP instruction"),
        48..=54 => ("vectors 48 to 54", "a floating-point exception"),
        56..=58 => ("vectors 56 to 58", "an exception of the MMU"),
        61 => ("vector 61", "an unsupported instruction"),
        _ => return None,
    };
    Some(FaultReport {
        causes: vec![Cause::new("exception", name, meaning)],
        notes: vec![format!("the stacked pc is {pc:#010x}")],
        registers: vec![("vector", vector.into())],
        ..FaultReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::m68k_exception;

    #[test]
    fn exceptions_in_words() {
        let report = m68k_exception(4, 0x4000_0012).unwrap();
        assert_eq!(
            report.to_string(),
            "exception: an illegal instruction (vector 4)"
        );
        assert_eq!(report.notes, ["the stacked pc is 0x40000012"]);
        // A spurious, an autovectored and a device's interrupt.
        assert!([24, 30, 64].map(|vector| m68k_exception(vector, 0)) == [None, None, None]);
    }
}
