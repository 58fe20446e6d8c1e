//! A core's registers, as `firmware-info` numbers them, from the names that the stub and the human
//! monitor have for them.

use std::sync::Arc;

use firmware_info::{Architecture, Firmware, Registers};
use tokio::runtime::Handle;

use crate::guest::symbols::ElfFile;

/// RISC-V's registers by their ABI names, x0 first.
const RISCV: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4",
    "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
    "t5", "t6",
];

/// The file whose code a core runs, by its architecture and where the core is, and the core's
/// registers; `None` where no file is for it. It is asked off the runtime's thread.
pub(crate) async fn with_file(
    elf: &Arc<ElfFile>,
    get: impl Fn(&str) -> Option<u64> + Send + 'static,
    runtime: &Handle,
) -> Option<(Arc<Firmware>, Registers)> {
    let elf = Arc::clone(elf);
    let finding = runtime.spawn_blocking(move || {
        let mut fitting = elf.each().filter_map(|firmware| {
            let registers = of(firmware.architecture(), &get)?;
            Some((Arc::clone(firmware), registers))
        });
        let first = fitting.next()?;
        let pc = first.1.pc();
        let knows = |firmware: &Firmware| firmware.symbol_at(pc).is_some();
        let other = match knows(&first.0) {
            true => None,
            false => fitting.find(|(firmware, _)| knows(firmware)),
        };
        Some(other.unwrap_or(first))
    });
    finding.await.ok()?
}

/// The registers of a core; `None` where its program counter is not among them. `get` knows them by
/// the stub's names (`r0`, `sp`, `pc`) or the monitor's (`R00`, `R13`, `R15`), in any case.
pub(crate) fn of(
    architecture: Architecture,
    get: impl Fn(&str) -> Option<u64>,
) -> Option<Registers> {
    let pc = match architecture {
        Architecture::Arm => get("pc").or_else(|| get("r15"))?,
        // x86-64 has another r15. A stub does not tell where the code's segment begins.
        _ => {
            let offset = ["pc", "rip", "eip"].into_iter().find_map(&get)?;
            offset.wrapping_add(get("CS.base").unwrap_or(0))
        }
    };
    let mut registers = match architecture {
        Architecture::Arm => Registers::arm([0; 16].map(|_: u32| 0)),
        _ => Registers::new(pc),
    };
    let numbered = |letter: char, number: usize| {
        let padded = format!("{letter}{number:02}");
        get(&padded).or_else(|| get(&format!("{letter}{number}")))
    };
    match architecture {
        Architecture::Arm => {
            let named = |number: usize| match number {
                13 => get("sp"),
                14 => get("lr"),
                15 => Some(pc),
                _ => None,
            };
            let mut r = [0; 16];
            for (number, value) in r.iter_mut().enumerate() {
                *value = named(number).or_else(|| numbered('r', number))? as u32;
            }
            registers = Registers::arm(r);
            registers.xpsr = get("xpsr").map(|xpsr| xpsr as u32);
            registers.msp = get("msp");
            registers.psp = get("psp");
        }
        Architecture::Aarch64 => {
            let mut x = [0; 31];
            for (number, value) in x.iter_mut().enumerate() {
                *value = numbered('x', number)?;
            }
            registers = Registers::aarch64(pc, get("sp")?, x);
        }
        Architecture::Riscv32 | Architecture::Riscv64 => {
            let mut x = [0; 32];
            for (value, name) in x.iter_mut().zip(RISCV) {
                *value = match name {
                    "s0" => get("s0").or_else(|| get("fp"))?,
                    "zero" => 0,
                    _ => get(name)?,
                };
            }
            registers = Registers::riscv(pc, x);
        }
        _ => {}
    }
    Some(registers)
}
