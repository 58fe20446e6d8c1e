//! A guest's registers, read from the text in which QEMU prints them.

/// Registers by the names that QEMU gives them, in its order: from a lockup's dump, or from the
/// human monitor's `info registers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpedRegisters(Vec<(String, u64)>);

impl DumpedRegisters {
    /// Reads what each architecture prints: `R15=0000010a`, `PC = 40000000`, `pc=0x80100008`,
    /// AVR's `PC:    027ccc`, x86's `CS =f000 ffff0000` (its second number is `CS.base`), and lines
    /// of `name hex` pairs, as RISC-V's. What is none of these is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut registers = Vec::new();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let assigned = assignments(&words);
            if assigned.is_empty() {
                registers.extend(pairs(&words));
            } else {
                registers.extend(assigned);
            }
        }
        // Only a 32-bit RISC-V core has this. QEMU 10.0 for 64 bit prints its registers with their
        // sign extended; those of floating point have 64 bit.
        if registers.iter().any(|(name, _)| name == "mstatush") {
            let integers = registers
                .iter_mut()
                .filter(|(name, _)| !name.starts_with('f'));
            integers.for_each(|(_, value)| *value &= 0xffff_ffff);
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

    /// The program counter: `PC`, or `R15` on 32-bit Arm; on x86 the linear address.
    #[must_use]
    pub fn pc(&self) -> Option<u64> {
        let x86 = self.register("RIP").or_else(|| self.register("EIP"));
        x86.map(|offset| offset.wrapping_add(self.register("CS.base").unwrap_or(0)))
            .or_else(|| self.register("PC"))
            .or_else(|| self.register("R15"))
    }
}

/// The registers of a line that has an equals sign for each. `FPSCR: 00000000` is none.
fn assignments(mut words: &[&str]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    while let [word, rest @ ..] = words {
        words = rest;
        match (word.split_once('='), rest) {
            (Some((name, value)), _) if !name.is_empty() => found.extend(register(name, value)),
            (None, ["=", value, rest @ ..]) => {
                found.extend(register(word, value));
                words = rest;
            }
            (None, [selector, base, ..]) if selector.starts_with('=') => {
                found.extend(register(word, &selector[1..]));
                found.extend(hex(base).map(|base| (format!("{word}.base"), base)));
            }
            (None, [value, ..]) if *word == "PC:" => found.extend(register("PC", value)),
            _ => {}
        }
    }
    found
}

fn register(name: &str, value: &str) -> Option<(String, u64)> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Some((name.to_owned(), hex(value).filter(|_| is_name)?))
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
}

/// ` x0/zero 0000000000000000 x1/ra    0000000080000000`, and ` pc       0000000080000000` on a
/// line of its own. A word that is no name of a number, such as MIPS's `CP0`, is passed over.
fn pairs(mut words: &[&str]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    while let [name, value, rest @ ..] = words {
        let wide = matches!(value.trim_start_matches("0x").len(), 8 | 16) && !name.ends_with(':');
        match hex(value).filter(|_| wide) {
            Some(value) => {
                let alias = name.rsplit('/').next().unwrap_or(name);
                found.push((alias.to_owned(), value));
                words = rest;
            }
            None => words = &words[1..],
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::DumpedRegisters;

    #[test]
    fn as_each_architecture_prints_them() {
        let arm = "\r\nCPU#0\r\nR14=fffffff9 R15=00000010\r\nXPSR=40000003 -Z-- A handler\r\nFPSCR: 00000000\r\n";
        let arm = DumpedRegisters::parse(arm);
        assert_eq!(
            (arm.pc(), arm.register("xpsr"), arm.register("FPSCR")),
            (Some(0x10), Some(0x4000_0003), None)
        );
        assert_eq!(arm.iter().count(), 3);
        let aarch64 = " PC=0000000040000000 X00=0000000000000000\nPSTATE=400003c5 -Z-- EL1h    FPU disabled\n";
        assert_eq!(DumpedRegisters::parse(aarch64).pc(), Some(0x4000_0000));
        let riscv = " V      =   0\n pc       0000000080000010\n mhartid  0000000000000000\n x1/ra    0000000080000124 x2/sp    0000000080200000\n";
        let riscv = DumpedRegisters::parse(riscv);
        assert_eq!(
            (riscv.pc(), riscv.register("sp")),
            (Some(0x8000_0010), Some(0x8020_0000))
        );
        let rv32 = " pc       ffffffff80000010\n mstatush 0000000000000000\n x1/ra    ffffffff80000124 x2/sp    0000000000200000\n f0/ft0   ffffffff40490fdb\n";
        let rv32 = DumpedRegisters::parse(rv32);
        assert_eq!(
            (rv32.pc(), rv32.register("ra"), rv32.register("ft0")),
            (
                Some(0x8000_0010),
                Some(0x8000_0124),
                Some(0xffff_ffff_4049_0fdb)
            )
        );
        let mips = "pc=0x80100008 HI=0x00000000 LO=0x00000000 ds 10000090 00000000 0\nGPR00: r0 00000000 at 00000001\nCP0 Status  0x00400004 Cause   0x00000010 EPC    0x80100004\n";
        let mips = DumpedRegisters::parse(mips);
        assert_eq!(
            (mips.pc(), mips.register("at"), mips.register("cause")),
            (Some(0x8010_0008), Some(1), Some(0x10))
        );
        let m68k = "D0 = 00000007   A0 = 00000000   F0 = 7fff ffffffffffffffff  (         nan)\nPC = 40000000   SR = 2700 T:0 I:7 SI -----\n";
        let m68k = DumpedRegisters::parse(m68k);
        assert_eq!(
            (m68k.pc(), m68k.register("d0"), m68k.register("SR")),
            (Some(0x4000_0000), Some(7), Some(0x2700))
        );
        let avr = "\nPC:    027ccc\nSP:      08ff\nSREG:    [ - - - - - - - - ]\n";
        assert_eq!(DumpedRegisters::parse(avr).pc(), Some(0x2_7ccc));
        let real_mode =
            "EIP=0000fff0 EFL=00000002 [-------] CPL=0\nCS =f000 ffff0000 0000ffff 00009b00\n";
        assert_eq!(DumpedRegisters::parse(real_mode).pc(), Some(0xffff_fff0));
        let x86 = "R14=0000000000000000 R15=00000000000000aa\nRIP=0000000000101234 RFL=00000002\nCS =0008 0000000000000000 00000000 00209a00\n";
        assert_eq!(DumpedRegisters::parse(x86).pc(), Some(0x10_1234));
    }
}
