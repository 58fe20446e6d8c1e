//! RISC-V: mcause and mtval, which scause and stval are alike.

use super::{Cause, FaultReport};

/// mcause and mtval of a trap in words; `bits` is the width of the registers, 32 or 64.
#[must_use]
pub fn riscv_trap(mcause: u64, mtval: u64, bits: u32) -> FaultReport {
    let top = 1_u64 << (bits.clamp(1, 64) - 1);
    let code = mcause & (top - 1);
    let is_interrupt = mcause & top != 0;
    let (name, meaning) = if is_interrupt {
        interrupt(code)
    } else {
        exception(code)
    };
    let has_address = !is_interrupt && matches!(code, 0 | 1 | 3..=7 | 12 | 13 | 15 | 20 | 21 | 23);
    let mut notes = Vec::new();
    if !is_interrupt && code == 2 && mtval != 0 {
        notes.push(format!("the instruction is {mtval:#x}"));
    }
    FaultReport {
        causes: vec![Cause {
            exception: if is_interrupt {
                "interrupt"
            } else {
                "exception"
            },
            name,
            meaning,
        }],
        // An implementation may leave mtval 0, which cannot be distinguished from an access to 0.
        address: (has_address && (mtval != 0 || matches!(code, 5 | 7 | 13 | 15))).then_some(mtval),
        notes,
        registers: vec![("mcause", mcause), ("mtval", mtval)],
        ..FaultReport::default()
    }
}

fn exception(code: u64) -> (&'static str, &'static str) {
    match code {
        0 => (
            "instruction address misaligned",
            "a jump to a misaligned address",
        ),
        1 => (
            "instruction access fault",
            "an instruction fetch that is forbidden or that nothing answered",
        ),
        2 => (
            "illegal instruction",
            "an illegal instruction, or one that this mode may not use",
        ),
        3 => ("breakpoint", "an ebreak or a trigger"),
        4 => ("load address misaligned", "an unaligned read"),
        5 => (
            "load access fault",
            "a read that is forbidden or that nothing answered",
        ),
        6 => ("store address misaligned", "an unaligned write"),
        7 => (
            "store access fault",
            "a write that is forbidden or that nothing answered",
        ),
        8 => ("ecall from U-mode", "an environment call from user mode"),
        9 => (
            "ecall from S-mode",
            "an environment call from supervisor mode",
        ),
        10 => (
            "ecall from VS-mode",
            "an environment call from virtual supervisor mode",
        ),
        11 => ("ecall from M-mode", "an environment call from machine mode"),
        12 => (
            "instruction page fault",
            "an instruction fetch that the page tables do not allow",
        ),
        13 => (
            "load page fault",
            "a read that the page tables do not allow",
        ),
        15 => (
            "store page fault",
            "a write that the page tables do not allow",
        ),
        16 => ("double trap", "a trap while another one was taken"),
        18 => ("software check", "a check of the control flow failed"),
        19 => ("hardware error", "an error of the hardware"),
        20 => (
            "instruction guest-page fault",
            "an instruction fetch that the hypervisor's tables do not allow",
        ),
        21 => (
            "load guest-page fault",
            "a read that the hypervisor's tables do not allow",
        ),
        22 => (
            "virtual instruction",
            "an instruction that a virtual machine may not use",
        ),
        23 => (
            "store guest-page fault",
            "a write that the hypervisor's tables do not allow",
        ),
        24..=31 | 48..=63 => ("custom", "an exception that the implementation defines"),
        _ => ("reserved", "a code that the architecture does not define"),
    }
}

fn interrupt(code: u64) -> (&'static str, &'static str) {
    match code {
        1 | 3 => ("software", "a software interrupt"),
        5 | 7 => ("timer", "a timer interrupt"),
        9 | 11 => ("external", "an external interrupt"),
        2 | 6 | 10 | 12 => ("guest", "an interrupt for a guest"),
        13 => ("counter overflow", "a counter that ran over"),
        16.. => ("platform", "an interrupt that the platform defines"),
        _ => ("reserved", "a code that the architecture does not define"),
    }
}

#[cfg(test)]
mod tests {
    use super::riscv_trap;

    #[test]
    fn traps_in_words() {
        for (mcause, mtval, bits, wanted) in [
            (
                5,
                0,
                32,
                "exception: a read that is forbidden or that nothing answered (load access fault) at 0x00000000",
            ),
            (
                2,
                0xffff,
                32,
                "exception: an illegal instruction, or one that this mode may not use (illegal instruction)",
            ),
            (0x8000_0007, 0, 32, "interrupt: a timer interrupt (timer)"),
            (
                0x8000_0007,
                0,
                64,
                "exception: a code that the architecture does not define (reserved)",
            ),
            (
                1 << 63 | 11,
                0,
                64,
                "interrupt: an external interrupt (external)",
            ),
        ] {
            assert_eq!(riscv_trap(mcause, mtval, bits).to_string(), wanted);
        }
        assert_eq!(
            riscv_trap(2, 0xffff, 32).notes,
            ["the instruction is 0xffff"]
        );
        let _ = (riscv_trap(u64::MAX, 0, 0), riscv_trap(u64::MAX, 0, 99));
    }
}
