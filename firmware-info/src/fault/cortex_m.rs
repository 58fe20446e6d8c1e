//! Cortex-M: CFSR, HFSR, MMFAR, BFAR, SHCSR, CCR, and the Security fault registers of v8-M.

use super::{Cause, FaultReport};

/// The fault registers of a Cortex-M, as read from the System Control Block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CortexMFaults {
    /// Configurable Fault Status, at 0xE000ED28. v6-M and v8-M Baseline have none: 0.
    pub cfsr: u32,
    /// HardFault Status, at 0xE000ED2C.
    pub hfsr: u32,
    /// MemManage Fault Address, at 0xE000ED34.
    pub mmfar: u32,
    /// BusFault Address, at 0xE000ED38.
    pub bfar: u32,
    /// System Handler Control and State, at 0xE000ED24: which faults have a handler of their own.
    pub shcsr: u32,
    /// Configuration and Control, at 0xE000ED14.
    pub ccr: u32,
    /// Secure Fault Status, at 0xE000EDE4; v8-M with the Security Extension has it.
    pub sfsr: Option<u32>,
    /// Secure Fault Address, at 0xE000EDE8.
    pub sfar: Option<u32>,
}

const MEM: &str = "MemManage";
const BUS: &str = "BusFault";
const USAGE: &str = "UsageFault";
const SECURE: &str = "SecureFault";

/// Bit, exception, name, meaning.
type Bit = (u32, &'static str, &'static str, &'static str);

/// The most telling first: of the bits that are set together the first is the line's.
const CFSR: [Bit; 18] = [
    (
        20,
        USAGE,
        "STKOF",
        "the stack pointer went below its limit register",
    ),
    (25, USAGE, "DIVBYZERO", "a division by zero"),
    (24, USAGE, "UNALIGNED", "an unaligned access"),
    (
        19,
        USAGE,
        "NOCP",
        "an instruction of a coprocessor or FPU that is off or missing",
    ),
    (
        18,
        USAGE,
        "INVPC",
        "an exception return with a bad EXC_RETURN or stacked state",
    ),
    (
        17,
        USAGE,
        "INVSTATE",
        "a branch to an address without the Thumb bit",
    ),
    (16, USAGE, "UNDEFINSTR", "an undefined instruction"),
    (
        12,
        BUS,
        "STKERR",
        "no memory to push an exception's frame to: a stack overflow or a bad stack pointer",
    ),
    (9, BUS, "PRECISERR", "a data access that nothing answered"),
    (
        8,
        BUS,
        "IBUSERR",
        "an instruction fetch that nothing answered",
    ),
    (
        10,
        BUS,
        "IMPRECISERR",
        "an earlier write that nothing took; the stacked PC is behind it",
    ),
    (
        11,
        BUS,
        "UNSTKERR",
        "no memory to pop an exception's frame from",
    ),
    (
        13,
        BUS,
        "LSPERR",
        "no memory to push the floating point registers to",
    ),
    (
        4,
        MEM,
        "MSTKERR",
        "the MPU forbids to push an exception's frame: a stack overflow",
    ),
    (1, MEM, "DACCVIOL", "a data access that the MPU forbids"),
    (
        0,
        MEM,
        "IACCVIOL",
        "an instruction fetch from where execution is forbidden",
    ),
    (
        3,
        MEM,
        "MUNSTKERR",
        "the MPU forbids to pop an exception's frame",
    ),
    (
        5,
        MEM,
        "MLSPERR",
        "the MPU forbids to push the floating point registers",
    ),
];
const MMARVALID: u32 = 1 << 7;
const BFARVALID: u32 = 1 << 15;

const SFSR: [Bit; 7] = [
    (
        3,
        SECURE,
        "AUVIOL",
        "an access from Non-secure state to Secure memory",
    ),
    (
        0,
        SECURE,
        "INVEP",
        "an entry into Secure code not at an SG instruction",
    ),
    (
        1,
        SECURE,
        "INVIS",
        "a bad integrity signature in an exception's frame",
    ),
    (
        2,
        SECURE,
        "INVER",
        "an exception return to the wrong security state",
    ),
    (
        4,
        SECURE,
        "INVTRAN",
        "a branch out of Secure state that was not marked as one",
    ),
    (
        5,
        SECURE,
        "LSPERR",
        "a security violation while the floating point registers were pushed",
    ),
    (7, SECURE, "LSERR", "lazy floating point state was wrong"),
];
const SFARVALID: u32 = 1 << 6;

const HARD: &str = "HardFault";
const HFSR: [Bit; 2] = [
    (
        1,
        HARD,
        "VECTTBL",
        "an exception's vector could not be read: a bad VTOR or table",
    ),
    (
        31,
        HARD,
        "DEBUGEVT",
        "a breakpoint instruction with no debugger to take it",
    ),
];
const FORCED: u32 = 1 << 30;

/// The fault registers of a Cortex-M in words.
#[must_use]
pub fn cortex_m_fault(faults: &CortexMFaults) -> FaultReport {
    let mut causes = Vec::new();
    push(&mut causes, faults.sfsr.unwrap_or(0), &SFSR);
    push(&mut causes, faults.cfsr, &CFSR);
    push(&mut causes, faults.hfsr, &HFSR);
    let first = causes.first().copied();
    let accessed = causes.get(of_the_address(&causes));
    FaultReport {
        address: accessed.and_then(|cause| address(faults, cause.exception)),
        escalation: (faults.hfsr & FORCED != 0).then(|| escalation(faults, first)),
        notes: notes(faults),
        registers: registers(faults),
        causes,
    }
}

fn push(causes: &mut Vec<Cause>, value: u32, bits: &[Bit]) {
    let set = bits.iter().filter(|(bit, ..)| value >> bit & 1 == 1);
    causes.extend(set.map(|(_, exception, name, meaning)| Cause {
        exception,
        name,
        meaning,
    }));
}

/// Which of the causes the address is of. A push of a frame that fails leaves none.
pub(super) fn of_the_address(causes: &[Cause]) -> usize {
    let mut causes = causes.iter();
    let other = causes.position(|cause| !matches!(cause.name, "MSTKERR" | "STKERR"));
    other.unwrap_or(0)
}

/// MMFAR and BFAR may be one register: only the one that is said to be valid holds an address.
fn address(faults: &CortexMFaults, exception: &str) -> Option<u64> {
    let sfsr = faults.sfsr.unwrap_or(0);
    match exception {
        MEM if faults.cfsr & MMARVALID != 0 => Some(faults.mmfar.into()),
        BUS if faults.cfsr & BFARVALID != 0 => Some(faults.bfar.into()),
        SECURE if sfsr & SFARVALID != 0 => faults.sfar.map(u64::from),
        _ => None,
    }
}

fn escalation(faults: &CortexMFaults, cause: Option<Cause>) -> String {
    let Some(cause) = cause else {
        return "escalated to HardFault (FORCED)".to_owned();
    };
    let enabled = match cause.exception {
        MEM => 16,
        BUS => 17,
        USAGE => 18,
        _ => 19,
    };
    let why = if faults.shcsr >> enabled & 1 == 0 {
        "it is not enabled in SHCSR"
    } else {
        "its priority did not allow it there: a handler of the same or a higher one was active, or it was masked"
    };
    format!("escalated to HardFault (FORCED), since {why}")
}

fn notes(faults: &CortexMFaults) -> Vec<String> {
    let mut notes = Vec::new();
    let active = &[(0, MEM), (1, BUS), (2, HARD), (3, USAGE), (4, SECURE)][..];
    let pending = &[(12, USAGE), (13, MEM), (14, BUS), (20, SECURE)];
    for (what, exceptions) in [("active", active), ("pending", pending)] {
        let set = exceptions
            .iter()
            .filter(|(bit, _)| faults.shcsr >> bit & 1 == 1);
        let names: Vec<&str> = set.map(|(_, name)| *name).collect();
        if !names.is_empty() {
            notes.push(format!("{what} by SHCSR: {}", names.join(", ")));
        }
    }
    for (bit, text) in [
        (3, "CCR makes unaligned accesses fault (UNALIGN_TRP)"),
        (4, "CCR makes divisions by zero fault (DIV_0_TRP)"),
        (
            8,
            "CCR ignores bus faults of data accesses in HardFault and NMI (BFHFNMIGN)",
        ),
        (
            10,
            "CCR ignores stack limits in HardFault and NMI (STKOFHFNMIGN)",
        ),
    ] {
        if faults.ccr >> bit & 1 == 1 {
            notes.push(text.to_owned());
        }
    }
    notes
}

fn registers(faults: &CortexMFaults) -> Vec<(&'static str, u64)> {
    let mut registers = vec![
        ("CFSR", faults.cfsr.into()),
        ("HFSR", faults.hfsr.into()),
        ("MMFAR", faults.mmfar.into()),
        ("BFAR", faults.bfar.into()),
        ("SHCSR", faults.shcsr.into()),
        ("CCR", faults.ccr.into()),
    ];
    registers.extend(faults.sfsr.map(|value| ("SFSR", value.into())));
    registers.extend(faults.sfar.map(|value| ("SFAR", value.into())));
    registers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_in_words() {
        for (cfsr, hfsr, shcsr, wanted) in [
            (
                1 << 25,
                1 << 30,
                0,
                "UsageFault: a division by zero (DIVBYZERO); escalated to HardFault (FORCED), since it is not \
                 enabled in SHCSR",
            ),
            (
                1 << 1 | 1 << 4 | 1 << 7,
                0,
                0,
                "MemManage: the MPU forbids to push an exception's frame: a stack overflow (MSTKERR); \
                 MemManage: a data access that the MPU forbids (DACCVIOL) at 0x00003300",
            ),
            (
                1 << 9 | 1 << 15,
                0,
                0,
                "BusFault: a data access that nothing answered (PRECISERR) at 0x0000bf00",
            ),
            // The address is not valid.
            (
                1 << 9,
                0,
                0,
                "BusFault: a data access that nothing answered (PRECISERR)",
            ),
            (
                1 << 1 | 1 << 7,
                0,
                0,
                "MemManage: a data access that the MPU forbids (DACCVIOL) at 0x00003300",
            ),
            (
                1 << 17,
                1 << 30,
                1 << 18,
                "UsageFault: a branch to an address without the Thumb bit (INVSTATE); escalated to HardFault \
                 (FORCED), since its priority did not allow it there: a handler of the same or a higher one was \
                 active, or it was masked",
            ),
            (
                0,
                1 << 1,
                0,
                "HardFault: an exception's vector could not be read: a bad VTOR or table (VECTTBL)",
            ),
            (0, 0, 0, "the registers tell of no fault"),
        ] {
            let faults = CortexMFaults {
                cfsr,
                hfsr,
                shcsr,
                mmfar: 0x3300,
                bfar: 0xbf00,
                ..Default::default()
            };
            assert_eq!(cortex_m_fault(&faults).to_string(), wanted);
        }
    }

    #[test]
    fn a_full_report_has_a_line_for_each_thing() {
        let report = cortex_m_fault(&CortexMFaults {
            cfsr: 1 << 24 | 1 << 12,
            shcsr: 1 << 3,
            ccr: 1 << 3,
            sfsr: Some(1 << 3 | 1 << 6),
            sfar: Some(0x3000_0000),
            ..Default::default()
        });
        assert_eq!(
            format!("{report:#}"),
            "SecureFault: an access from Non-secure state to Secure memory (AUVIOL) at 0x30000000\n\
             UsageFault: an unaligned access (UNALIGNED)\n\
             BusFault: no memory to push an exception's frame to: a stack overflow or a bad stack pointer (STKERR)\n\
             active by SHCSR: UsageFault\n\
             CCR makes unaligned accesses fault (UNALIGN_TRP)\n\
             CFSR 0x01001000, HFSR 0x00000000, MMFAR 0x00000000, BFAR 0x00000000, SHCSR 0x00000008, CCR 0x00000008, \
             SFSR 0x00000048, SFAR 0x30000000"
        );
    }
}
