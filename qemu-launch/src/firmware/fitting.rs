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
use crate::board::{self, MACHINES, Machine};

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

/// The known machines that this ELF file fits, the likeliest first. It fits where the
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
            && machine.runs(core, &loaded)
            && machine.holds(&elf)
    };
    let fitting = MACHINES.iter().filter(fits).map(|machine| FittingMachine {
        program: format!("qemu-system-{}", machine.target),
        machine: machine.name,
        cpu: machine.cpu,
    });
    Ok(fitting.collect())
}

/// The architectures, by their numbers in `Tag_CPU_arch`, that a Cortex-M runs.
fn run_by_cortex_m(cpu: &str) -> &'static [u64] {
    match cpu {
        "cortex-m0" => V6M,
        "cortex-m3" => &[11, 12, 10],
        "cortex-m4" | "cortex-m7" => &[11, 12, 10, 13],
        "cortex-m33" => &[11, 12, 10, 13, 16, 17],
        "cortex-m55" => &[11, 12, 10, 13, 16, 17, 21],
        _ => &[],
    }
}

const V6M: &[u64] = &[11, 12];

/// The stack pointer of a vector table at the lowest place of what is loaded.
fn vectors(loaded: &Loaded) -> Option<u32> {
    let start = loaded.starts().map(|(start, _)| start).min()?;
    let (vectors, _) = loaded.vectors_at(start)?;
    let is_code = vectors.reset % 2 == 1 && loaded.holds(u64::from(vectors.reset - 1));
    is_code.then_some(vectors.stack)
}

impl Machine {
    /// Whether its core is one that the file is for, by what an Arm ELF file says of it.
    fn runs(&self, said: Option<(u64, u8)>, loaded: &Loaded) -> bool {
        if self.target != "arm" {
            return true;
        }
        match (
            board::known(self.name).and_then(|board| board.cortex_m),
            said,
        ) {
            (Some(cpu), Some((number, b'M'))) => run_by_cortex_m(cpu).contains(&number),
            // Version 6-M says no profile.
            (Some(cpu), Some((number, 0))) => {
                number != 10 && run_by_cortex_m(cpu).contains(&number)
            }
            (Some(_), Some(_)) => false,
            (Some(_), None) => vectors(loaded).is_some(),
            // Nothing said is nothing to go by: the file may be damaged.
            (None, said) => {
                said.is_some_and(|(number, profile)| profile != b'M' && !V6M.contains(&number))
            }
        }
    }

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
    const MAX_SECTIONS: u32 = 1 << 17;
    const MAX_ATTRIBUTES: u32 = 1 << 16;
    let header = FileHeader32::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    // A header may claim any size, and what it claims is read.
    if header.shnum(endian, data).ok()? > MAX_SECTIONS {
        return None;
    }
    let sections = header.sections(endian, data).ok()?;
    let section = sections.iter().find(|section| {
        section.sh_type(endian) == SHT_ARM_ATTRIBUTES && section.sh_size(endian) < MAX_ATTRIBUTES
    })?;
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

    /// Some kilobytes with a hole behind them, which a header says is to be read.
    #[test]
    fn headers_that_claim_gigabytes_are_not_believed() {
        const HOLE: u32 = 3_000_000_000;
        let elf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-info/fixtures/c/o2.elf");
        let elf = std::fs::read(elf).unwrap();
        let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
        let sections = word(32) as usize;
        let is_attributes = |at: &usize| word(at + 4) == SHT_ARM_ATTRIBUTES.0;
        let attributes = (sections..).step_by(40).find(is_attributes).unwrap();
        let size = HOLE.to_le_bytes();
        // The size of the attributes; the count of sections, which is that of the first.
        for changes in [
            vec![(attributes + 20, &size[..])],
            vec![
                (48, &[0, 0][..]),
                (sections + 20, &(HOLE / 40).to_le_bytes()[..]),
            ],
        ] {
            let mut damaged = elf.clone();
            for (at, bytes) in changes {
                damaged[at..at + bytes.len()].copy_from_slice(bytes);
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &damaged).unwrap();
            let length = damaged.len() as u64 + u64::from(HOLE);
            file.as_file().set_len(length).unwrap();
            let start = std::time::Instant::now();
            let fitting = fitting_machines(file.path()).unwrap();
            assert!(start.elapsed() < std::time::Duration::from_secs(5));
            // By its vectors.
            assert_eq!(fitting[0].machine, "lm3s6965evb");
        }
    }

    #[test]
    fn a_table_without_holes() {
        for machine in MACHINES {
            let name = machine.name;
            assert!(architecture::run_by(machine.target).is_some(), "{name}");
            assert!(!machine.memory.is_empty(), "{name}");
            if let Some(cpu) = board::known(name).and_then(|board| board.cortex_m) {
                assert!(!run_by_cortex_m(cpu).is_empty(), "{name}");
            }
            assert!(machine.memory.iter().all(|(from, to)| from < to), "{name}");
        }
    }
}
