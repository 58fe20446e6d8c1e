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
    /// Of MIPS, those that gdb expects of every stub, up to the floating point ones, each as wide
    /// as the core. Of Xtensa, whose registers depend on the core's configuration, the one that is
    /// first in each: `pc`. Seen with QEMU 7.2 and 10.0.
    #[must_use]
    pub fn undescribed(architecture: &str) -> Option<Self> {
        let registers = match architecture {
            "mips" | "mipsel" => mips(32),
            "mips64" | "mips64el" => mips(64),
            "xtensa" | "xtensaeb" => vec![Register {
                name: "pc".to_owned(),
                bits: 32,
                number: 0,
                feature: "org.gnu.gdb.xtensa.core".to_owned(),
            }],
            _ => return None,
        };
        Some(Self {
            architecture: None,
            registers,
        })
    }
}

fn mips(bits: u32) -> Vec<Register> {
    let general = MIPS_GENERAL.map(str::to_owned).into_iter();
    let system = MIPS_SYSTEM.map(str::to_owned);
    let floats = (0..32).map(|number| format!("f{number}"));
    let names = general.chain(system).chain(floats);
    let names = names.chain(["fsr", "fir"].map(str::to_owned));
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
    registers.collect()
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
        assert_eq!(Target::undescribed("sh4"), None);
    }
}
