//! A guest's registers, read from the text in which QEMU prints them.

/// Registers by the names that QEMU gives them, in its order: from a lockup's dump, or from the
/// human monitor's `info registers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registers(Vec<(String, u64)>);

impl Registers {
    /// Reads every word of the form `NAME=hex`, as in `R15=0000010a` and ` PC=0000000040000000`,
    /// and RISC-V's lines of `name hex` pairs. What is neither is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut registers = Vec::new();
        for line in text.lines() {
            let assigned: Vec<_> = line.split_whitespace().filter_map(assignment).collect();
            if assigned.is_empty() {
                registers.extend(pairs(line))
            } else {
                registers.extend(assigned)
            }
        }
        Self(registers)
    }

    /// A register by the name that QEMU gives it, such as `R15` or `XPSR`; case does not matter.
    #[must_use]
    pub fn register(&self, name: &str) -> Option<u64> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    /// All registers, in QEMU's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The program counter: `R15` or `PC` on Arm, `pc` on RISC-V.
    #[must_use]
    pub fn pc(&self) -> Option<u64> {
        self.register("R15").or_else(|| self.register("PC"))
    }
}

/// `R00=0000001f` and `FPSCR:` alike begin with a name; only the first has a value in the same
/// word.
fn assignment(word: &str) -> Option<(String, u64)> {
    let (name, value) = word.split_once('=')?;
    let value = u64::from_str_radix(value, 16).ok()?;
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then(|| (name.to_owned(), value))
}

/// ` x0/zero 0000000000000000 x1/ra    0000000080000000`, and ` pc       0000000080000000` on a
/// line of its own.
fn pairs(line: &str) -> impl Iterator<Item = (String, u64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let pair = |pair: &[&str]| {
        let [name, value] = pair else { return None };
        let wide = matches!(value.len(), 8 | 16) && !name.ends_with(':');
        let value = u64::from_str_radix(value, 16).ok().filter(|_| wide)?;
        Some((name.rsplit('/').next()?.to_owned(), value))
    };
    words
        .chunks(2)
        .filter_map(pair)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::Registers;

    #[test]
    fn as_each_architecture_prints_them() {
        let arm = "\r\nCPU#0\r\nR14=fffffff9 R15=00000010\r\nXPSR=40000003 -Z-- A handler\r\nFPSCR: 00000000\r\n";
        let arm = Registers::parse(arm);
        assert_eq!(
            (arm.pc(), arm.register("xpsr"), arm.register("FPSCR")),
            (Some(0x10), Some(0x4000_0003), None)
        );
        assert_eq!(arm.iter().count(), 3);
        let aarch64 = " PC=0000000040000000 X00=0000000000000000\nPSTATE=400003c5 -Z-- EL1h    FPU disabled\n";
        assert_eq!(Registers::parse(aarch64).pc(), Some(0x4000_0000));
        let riscv = " V      =   0\n pc       0000000080000010\n mhartid  0000000000000000\n x1/ra    0000000080000124 x2/sp    0000000080200000\n";
        let riscv = Registers::parse(riscv);
        assert_eq!(
            (riscv.pc(), riscv.register("sp")),
            (Some(0x8000_0010), Some(0x8020_0000))
        );
    }
}
