//! Registers of a target whose stub has no description of them, as gdb has them built in.

use crate::target::{Register, Target};

/// MIPS's general registers by their names of the o32 ABI, 0 first.
const MIPS_GENERAL: [&str; 32] = [
    "zero", "at", "v0", "v1", "a0", "a1", "a2", "a3", "t0", "t1", "t2", "t3", "t4", "t5", "t6",
    "t7", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "t8", "t9", "k0", "k1", "gp", "sp", "s8",
    "ra",
];

/// Those that follow, of the core and of co-processor 0.
const MIPS_SYSTEM: [&str; 6] = ["status", "lo", "hi", "badvaddr", "cause", "pc"];

impl Target {
    /// The registers of an architecture (QEMU's name of it, as `query-target` has it) whose stub
    /// describes none; `None` where they are not known, either.
    ///
    /// They are MIPS's alone: QEMU sends those that gdb expects of every MIPS stub, up to the
    /// floating point ones, each as wide as the core. Seen with QEMU 7.2 and 10.0.
    #[must_use]
    pub fn undescribed(architecture: &str) -> Option<Self> {
        let bits = match architecture {
            "mips" | "mipsel" => 32,
            "mips64" | "mips64el" => 64,
            _ => return None,
        };
        let floats = (0..32).map(|number| format!("f{number}"));
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let names = named(&MIPS_GENERAL)
            .into_iter()
            .chain(named(&MIPS_SYSTEM))
            .chain(floats)
            .chain(named(&["fsr", "fir"]));
        let registers = names.zip(0..).map(|(name, number)| Register {
            feature: match number {
                38.. => "org.gnu.gdb.mips.fpu",
                32 | 35 | 36 => "org.gnu.gdb.mips.cp0",
                _ => "org.gnu.gdb.mips.cpu",
            }
            .to_owned(),
            name,
            bits,
            number,
        });
        Some(Self {
            architecture: Some("mips".to_owned()),
            registers: registers.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that gdb's manual has for the features of MIPS.
    #[test]
    fn mips_has_the_numbers_that_gdb_expects() {
        let target = Target::undescribed("mipsel").unwrap();
        for (name, number) in [
            ("zero", 0),
            ("sp", 29),
            ("ra", 31),
            ("status", 32),
            ("cause", 36),
            ("pc", 37),
            ("f0", 38),
            ("fsr", 70),
            ("fir", 71),
        ] {
            let register = target.register(name).unwrap();
            assert_eq!((register.number, register.bits), (number, 32), "{name}");
        }
        let wide = Target::undescribed("mips64").unwrap();
        assert!(wide.registers.iter().all(|register| register.bits == 64));
        assert_eq!(Target::undescribed("xtensa"), None);
    }
}
