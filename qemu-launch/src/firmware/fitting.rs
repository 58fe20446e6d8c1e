//! Which machines a firmware may be for, by what its ELF file says: the architecture, the core, and
//! where it wants to be loaded.

use std::path::Path;

use object::elf::{FileHeader32, SHT_ARM_ATTRIBUTES};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{Endianness, ReadRef};

use super::architecture;
use super::elf::Elf;
use super::loaded::Loaded;
use super::{FirmwareError, read_headers};

/// A QEMU and a machine that a firmware fits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FittingMachine {
    /// The program, such as `qemu-system-riscv32`.
    pub program: String,
    /// The name for `-machine`.
    pub machine: &'static str,
    /// The name for `-cpu`, where the machine's own would not do.
    pub cpu: Option<&'static str>,
}

/// The machines of the table below that this ELF file fits, the likeliest first. It fits where the
/// QEMU runs its architecture and the machine has memory wherever the file wants to be; on a
/// Cortex-M also where the stack begins. None means that none of these does.
///
/// # Errors
/// The file cannot be read, or is no ELF file.
pub fn fitting_machines(path: &Path) -> Result<Vec<FittingMachine>, FirmwareError> {
    let (cache, elf, _) = read_headers(path)?;
    let core = arm_core(&cache);
    let mut loaded = Loaded::default();
    loaded.add_elf(path, &elf);
    let fits = |machine: &&Machine| {
        architecture::run_by(machine.target)
            .is_some_and(|runs| runs.first() == Some(&elf.architecture))
            && machine.core.runs(core, &loaded)
            && machine.holds(&elf)
    };
    let fitting = MACHINES.iter().filter(fits).map(|machine| FittingMachine {
        program: format!("qemu-system-{}", machine.target),
        machine: machine.name,
        cpu: machine.cpu,
    });
    Ok(fitting.collect())
}

/// A machine, and the memory that it has without options.
struct Machine {
    target: &'static str,
    name: &'static str,
    cpu: Option<&'static str>,
    core: Core,
    /// From where to where.
    memory: &'static [(u64, u64)],
}

/// What an Arm ELF file says of the core: the numbers of `Tag_CPU_arch`.
#[derive(Clone, Copy)]
enum Core {
    /// Any of the architecture.
    Any,
    /// One with a memory management unit.
    ArmA,
    /// A Cortex-M that runs these.
    ArmM(&'static [u64]),
}

const V6M: &[u64] = &[11, 12];
const V7M: &[u64] = &[11, 12, 10];
const V7EM: &[u64] = &[11, 12, 10, 13];
const V8M: &[u64] = &[11, 12, 10, 13, 16, 17];
const V8_1M: &[u64] = &[11, 12, 10, 13, 16, 17, 21];

impl Core {
    fn runs(self, said: Option<(u64, u8)>, loaded: &Loaded) -> bool {
        match (self, said) {
            (Self::Any, _) => true,
            // Nothing said is nothing to go by: the file may be damaged.
            (Self::ArmA, said) => {
                said.is_some_and(|(number, profile)| profile != b'M' && !V6M.contains(&number))
            }
            (Self::ArmM(runs), Some((number, b'M'))) => runs.contains(&number),
            // Version 6-M says no profile.
            (Self::ArmM(runs), Some((number, 0))) => number != 10 && runs.contains(&number),
            (Self::ArmM(_), Some(_)) => false,
            (Self::ArmM(_), None) => vectors(loaded).is_some(),
        }
    }
}

/// The stack pointer of a vector table at the lowest place of what is loaded.
fn vectors(loaded: &Loaded) -> Option<u32> {
    let start = loaded.starts().map(|(start, _)| start).min()?;
    let (vectors, _) = loaded.vectors_at(start)?;
    let is_code = vectors.reset % 2 == 1 && loaded.holds(u64::from(vectors.reset - 1));
    is_code.then_some(vectors.stack)
}

impl Machine {
    fn holds(&self, elf: &Elf) -> bool {
        elf.segments.iter().filter(|s| s.memory_size > 0).all(|s| {
            let in_file = s.file_size == 0 || self.has(s.address, s.file_size);
            in_file && self.has(s.virtual_address, s.memory_size)
        })
    }

    fn has(&self, start: u64, size: u64) -> bool {
        let Some(end) = start.checked_add(size) else {
            return false;
        };
        self.memory
            .iter()
            .any(|&(from, to)| from <= start && end <= to)
    }
}

/// `Tag_CPU_arch` and `Tag_CPU_arch_profile` of an Arm ELF file, where it has them.
fn arm_core<'data>(data: impl ReadRef<'data>) -> Option<(u64, u8)> {
    const CPU_ARCH: u64 = 6;
    const CPU_ARCH_PROFILE: u64 = 7;
    const STRINGS: [u64; 3] = [4, 5, 67];
    const COMPATIBILITY: u64 = 32;
    let header = FileHeader32::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let section = sections
        .iter()
        .find(|section| section.sh_type(endian) == SHT_ARM_ATTRIBUTES)?;
    let mut subsections = section.attributes(endian, data).ok()?.subsections().ok()?;
    let (mut number, mut profile) = (None, 0);
    while let Some(subsection) = subsections.next().ok()? {
        if subsection.vendor() != b"aeabi" {
            continue;
        }
        let mut parts = subsection.subsubsections();
        while let Some(part) = parts.next().ok()? {
            let mut attributes = part.attributes();
            while let Some(tag) = attributes.read_tag().ok()? {
                if tag == COMPATIBILITY {
                    attributes.read_integer().ok()?;
                    attributes.read_string().ok()?;
                } else if STRINGS.contains(&tag) || (tag > COMPATIBILITY && tag % 2 == 1) {
                    attributes.read_string().ok()?;
                } else {
                    match (tag, attributes.read_integer().ok()?) {
                        (CPU_ARCH, value) => number = Some(value),
                        (CPU_ARCH_PROFILE, value) => profile = u8::try_from(value).ok()?,
                        _ => {}
                    }
                }
            }
        }
    }
    Some((number?, profile))
}

const fn machine(
    target: &'static str,
    name: &'static str,
    core: Core,
    memory: &'static [(u64, u64)],
) -> Machine {
    Machine {
        target,
        name,
        cpu: None,
        core,
        memory,
    }
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
/// Where a Cortex-M has its memory.
const RAM: u64 = 0x2000_0000;
/// Where an STM32 has its flash.
const STM32: u64 = 0x0800_0000;

/// As QEMU 7.2 and 10.0 have them.
const MACHINES: &[Machine] = &[
    machine(
        "arm",
        "lm3s6965evb",
        Core::ArmM(V7M),
        &[(0, 256 * K), (RAM, RAM + 64 * K)],
    ),
    machine(
        "arm",
        "mps2-an385",
        Core::ArmM(V7M),
        &[(0, 4 * M), (RAM, RAM + 4 * M)],
    ),
    machine(
        "arm",
        "mps2-an386",
        Core::ArmM(V7EM),
        &[(0, 4 * M), (RAM, RAM + 4 * M)],
    ),
    machine(
        "arm",
        "mps2-an500",
        Core::ArmM(V7EM),
        &[(0, 4 * M), (RAM, RAM + 4 * M)],
    ),
    machine(
        "arm",
        "microbit",
        Core::ArmM(V6M),
        &[(0, 256 * K), (RAM, RAM + 16 * K)],
    ),
    machine(
        "arm",
        "stm32vldiscovery",
        Core::ArmM(V7M),
        &[(STM32, STM32 + 128 * K), (RAM, RAM + 8 * K)],
    ),
    machine(
        "arm",
        "netduino2",
        Core::ArmM(V7M),
        &[(STM32, STM32 + M), (RAM, RAM + 128 * K)],
    ),
    machine(
        "arm",
        "netduinoplus2",
        Core::ArmM(V7EM),
        &[(STM32, STM32 + M), (RAM, RAM + 128 * K)],
    ),
    machine(
        "arm",
        "mps2-an505",
        Core::ArmM(V8M),
        &[
            (0x1000_0000, 0x1000_0000 + 4 * M),
            (0x3000_0000, 0x3000_0000 + 32 * K),
            (0x3800_0000, 0x3800_0000 + 4 * M),
            (0x8000_0000, 0x8000_0000 + 16 * M),
        ],
    ),
    machine(
        "arm",
        "mps3-an547",
        Core::ArmM(V8_1M),
        &[
            (0x1000_0000, 0x1000_0000 + 512 * K),
            (0x1100_0000, 0x1100_0000 + 2 * M),
            (0x3000_0000, 0x3000_0000 + 512 * K),
            (0x3100_0000, 0x3100_0000 + 4 * M),
        ],
    ),
    machine("arm", "virt", Core::ArmA, &[(0x4000_0000, 0x4800_0000)]),
    machine(
        "arm",
        "vexpress-a9",
        Core::ArmA,
        &[(0x6000_0000, 0x6800_0000)],
    ),
    machine(
        "arm",
        "vexpress-a15",
        Core::ArmA,
        &[(0x8000_0000, 0x8800_0000)],
    ),
    machine("arm", "versatilepb", Core::ArmA, &[(0, 128 * M)]),
    machine("arm", "raspi2b", Core::ArmA, &[(0, 960 * M)]),
    Machine {
        cpu: Some("cortex-a57"),
        ..machine("aarch64", "virt", Core::Any, &[(0x4000_0000, 0x4800_0000)])
    },
    machine("aarch64", "raspi3b", Core::Any, &[(0, 960 * M)]),
    machine("riscv32", "virt", Core::Any, &[(0x8000_0000, 0x8800_0000)]),
    machine(
        "riscv32",
        "sifive_e",
        Core::Any,
        &[
            (0x2000_0000, 0x4000_0000),
            (0x8000_0000, 0x8000_0000 + 16 * K),
        ],
    ),
    machine("riscv64", "virt", Core::Any, &[(0x8000_0000, 0x8800_0000)]),
    machine(
        "avr",
        "uno",
        Core::Any,
        &[(0, 32 * K), (0x80_0100, 0x80_0900)],
    ),
    machine(
        "avr",
        "arduino-mega-2560-v3",
        Core::Any,
        &[(0, 256 * K), (0x80_0200, 0x80_2200)],
    ),
    machine(
        "m68k",
        "mcf5208evb",
        Core::Any,
        &[(0x4000_0000, 0x4800_0000), (0x8000_0000, 0x8000_4000)],
    ),
    machine("m68k", "virt", Core::Any, &[(0, 128 * M)]),
    machine(
        "mips",
        "malta",
        Core::Any,
        &[
            (0x8000_0000, 0x8800_0000),
            (0xffff_ffff_8000_0000, 0xffff_ffff_8800_0000),
        ],
    ),
    machine(
        "mipsel",
        "malta",
        Core::Any,
        &[
            (0x8000_0000, 0x8800_0000),
            (0xffff_ffff_8000_0000, 0xffff_ffff_8800_0000),
        ],
    ),
    machine("or1k", "or1k-sim", Core::Any, &[(0, 128 * M)]),
    machine(
        "microblaze",
        "petalogix-s3adsp1800",
        Core::Any,
        &[(0x9000_0000, 0x9800_0000)],
    ),
    machine("sh4", "r2d", Core::Any, &[(0x8c00_0000, 0x9000_0000)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The firmware of this repository, and where each is known to run.
    #[test]
    fn what_is_known_to_run_fits() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let rows = [
            ("xtask/firmware/tick/tick.elf", "arm", "lm3s6965evb"),
            ("firmware-info/fixtures/c/o2.elf", "arm", "lm3s6965evb"),
            (
                "firmware-info/fixtures/rust/debug.elf",
                "arm",
                "lm3s6965evb",
            ),
            ("firmware-info/fixtures/aprofile/arm.elf", "arm", "virt"),
            (
                "firmware-info/fixtures/aprofile/aarch64.elf",
                "aarch64",
                "virt",
            ),
            ("firmware-info/fixtures/riscv/debug.elf", "riscv32", "virt"),
        ];
        for (file, program, machine) in rows {
            let fitting = fitting_machines(&root.join(file)).unwrap();
            let first = fitting
                .first()
                .unwrap_or_else(|| panic!("{file} fits nothing"));
            let program = format!("qemu-system-{program}");
            assert_eq!(
                (&first.program, first.machine),
                (&program, machine),
                "{file}"
            );
        }
    }

    #[test]
    fn a_table_without_holes() {
        for machine in MACHINES {
            let name = machine.name;
            assert!(architecture::run_by(machine.target).is_some(), "{name}");
            assert!(!machine.memory.is_empty(), "{name}");
            assert!(machine.memory.iter().all(|(from, to)| from < to), "{name}");
        }
    }
}
