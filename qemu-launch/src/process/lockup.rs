//! The register dump that QEMU writes on stderr when the guest locks up.

use std::fmt;

use crate::process::registers::DumpedRegisters;

/// What QEMU said of a lockup, with the guest's registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterDump {
    reason: String,
    registers: DumpedRegisters,
}

impl RegisterDump {
    /// Finds the last dump in stderr: a line `qemu: fatal: Lockup: …`, or as a 68040 has it
    /// `qemu: fatal: DOUBLE MMU FAULT`, then the registers; an AVR's is a line alone.
    pub(crate) fn parse(stderr: &str) -> Option<Self> {
        if stderr.lines().any(|line| {
            line.starts_with("qemu-system-") && line.ends_with(&format!(": {LEFT_FLASH}"))
        }) {
            return Some(Self {
                reason: LEFT_FLASH.to_owned(),
                registers: DumpedRegisters::default(),
            });
        }
        let (start, _) = stderr
            .rmatch_indices("qemu: fatal: ")
            .find(|(start, fatal)| is_lockup(&stderr[start + fatal.len()..]))?;
        let (reason, rest) = stderr[start..]
            .split_once('\n')
            .unwrap_or((&stderr[start..], ""));
        let reason = reason.trim_start_matches("qemu: fatal: ");
        let reason = reason.trim_start_matches("Lockup: ").trim_end().to_owned();
        Some(Self {
            reason,
            registers: DumpedRegisters::parse(rest),
        })
    }

    /// Why the guest locked up, in QEMU's words, such as `can't escalate 3 to HardFault (current
    /// priority -1)`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The guest's registers.
    #[must_use]
    pub fn registers(&self) -> &DumpedRegisters {
        &self.registers
    }

    /// A register by the name that QEMU gives it, such as `R15` or `XPSR`; case does not matter.
    #[must_use]
    pub fn register(&self, name: &str) -> Option<u64> {
        self.registers.register(name)
    }

    /// The program counter.
    #[must_use]
    pub fn pc(&self) -> Option<u64> {
        self.registers.pc()
    }
}

impl fmt::Display for RegisterDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        for name in ["R13", "R14", "R15", "XPSR", "PC", "SR"] {
            if let Some(value) = self.register(name) {
                write!(f, " {name}={value:08x}")?;
            }
        }
        Ok(())
    }
}

/// What an AVR's QEMU says of a program counter that is in no flash, and aborts.
const LEFT_FLASH: &str = "execution left flash memory";

/// Whether a fatal error of QEMU's is the guest's: its core can do nothing any more.
fn is_lockup(reason: &str) -> bool {
    ["Lockup: ", "DOUBLE MMU FAULT"]
        .iter()
        .any(|lockup| reason.starts_with(lockup))
}

#[cfg(test)]
mod tests {
    use super::RegisterDump;

    /// As QEMU 7.2 prints it.
    const DUMP: &str = "Timer with period zero, disabling
qemu: fatal: Lockup: can't escalate 3 to HardFault (current priority -1)

R00=00000000 R01=0000005a R02=00000000 R03=00000000
R12=00000000 R13=ffffffe0 R14=fffffff9 R15=00000010
XPSR=40000003 -Z-- A handler
FPSCR: 00000000
";

    #[test]
    fn registers_by_name() {
        let dump = RegisterDump::parse(DUMP).unwrap();
        assert_eq!(
            dump.reason(),
            "can't escalate 3 to HardFault (current priority -1)"
        );
        assert_eq!(
            (dump.register("r01"), dump.register("XPSR")),
            (Some(0x5a), Some(0x4000_0003))
        );
        assert_eq!((dump.pc(), dump.register("FPSCR")), (Some(0x10), None));
        assert_eq!(dump.registers().iter().count(), 9);
        assert_eq!(
            dump.to_string(),
            "can't escalate 3 to HardFault (current priority -1) R13=ffffffe0 R14=fffffff9 R15=00000010 XPSR=40000003"
        );
    }

    #[test]
    fn a_68040_s_double_fault() {
        let stderr = "qemu: fatal: DOUBLE MMU FAULT\n\nD0 = 00000000   A0 = 90000000\nPC = 0001000a   SR = 2700 T:0 I:7 SI -----\n";
        let dump = RegisterDump::parse(stderr).unwrap();
        assert_eq!(dump.to_string(), "DOUBLE MMU FAULT PC=0001000a SR=00002700");
        let other = format!("{stderr}qemu: fatal: out of tea\n");
        assert_eq!(RegisterDump::parse(&other).unwrap().pc(), Some(0x1_000a));
    }

    #[test]
    fn an_avr_that_left_its_flash() {
        let stderr = "qemu-system-avr: execution left flash memory\n";
        let dump = RegisterDump::parse(stderr).unwrap();
        assert_eq!(dump.to_string(), "execution left flash memory");
        assert_eq!(dump.pc(), None);
        assert_eq!(RegisterDump::parse("execution left flash memory\n"), None);
    }

    #[test]
    fn cut_off_anywhere_it_does_no_harm() {
        for end in 0..DUMP.len() {
            if let Some(dump) = RegisterDump::parse(&DUMP[..end]) {
                assert!(dump.registers().iter().count() <= 9);
            }
        }
        assert_eq!(
            RegisterDump::parse("qemu: fatal: something else\nR00=1\n"),
            None
        );
    }
}
