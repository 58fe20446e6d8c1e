//! Checks of the firmware before QEMU starts.
//!
//! QEMU takes a file for `-kernel` that is not an ELF for a raw image, and runs it; an empty one,
//! or one for another CPU, ends in a lockup. Only a check before the start gives a clear error.

pub(crate) mod architecture;
mod cortex_m;
pub(crate) mod elf;
mod error;
mod fitting;
pub(crate) mod format;
mod intel_hex;
mod loaded;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use object::{ReadCache, ReadRef};

pub use error::{Advice, FirmwareError};
pub use fitting::{FittingMachine, fitting_machines};

use crate::argv::option::loader_in;
use crate::discover::install::target_of;
use crate::spec::MachineSpec;
use crate::spec::image::{Bios, LoadedImage};
use crate::target::Target;
use architecture::Architecture;
use elf::{Bad, Elf};
use format::Format;
use intel_hex::IntelHex;
use loaded::{Loaded, Loader};

/// Checks that the QEMU of this name (`qemu-system-arm`) can run this ELF file on this CPU, as a
/// start does.
///
/// For a CPU whose name begins with `cortex-m` the vector table is checked: at the beginning of any
/// segment, since which board it is for is not known here. A program whose name does not begin with
/// `qemu-system-` does not tell its architecture, so that is not checked.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(path: &Path, program: &str, cpu: Option<&str>) -> Result<(), FirmwareError> {
    let elf = read_elf(path, program, cpu)?;
    let mut loaded = Loaded::default();
    loaded.add_elf(path, &elf);
    match cpu {
        Some(cpu) if cortex_m::is_one(cpu) => cortex_m::check_vectors("", &loaded, path),
        _ => Ok(()),
    }
}

/// Checks that this is an ELF file of an architecture that the QEMU of this name runs, and no more:
/// for a file whose symbols are wanted.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_symbols(path: &Path, program: &str) -> Result<(), FirmwareError> {
    let (_, elf, _) = read_headers(path)?;
    check_architecture(path, elf.architecture, program)
}

/// A file that QEMU would misread, and what it gets in its place.
pub(crate) struct Rewritten {
    /// The image's place among the machine's images.
    pub(crate) image: usize,
    pub(crate) contents: String,
}

/// What the check of a machine's files found to be changed before QEMU starts.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) rewritten: Vec<Rewritten>,
    /// The firmware is where QEMU would load its own as well, which it then refuses to do ("Some
    /// ROM regions are overlapping").
    pub(crate) replaces_bios: bool,
}

/// Where RISC-V boards have their memory, and QEMU loads OpenSBI unless it is told `-bios none`.
const RISCV_MEMORY: u64 = 0x8000_0000;

/// Checks everything that the machine loads.
pub(crate) fn check_all(spec: &MachineSpec, program: &Path) -> Result<Checked, FirmwareError> {
    let target = Target::of(spec, program);
    let cpu = spec
        .cpu_model()
        .or_else(|| cortex_m::of_board(spec.board_name()));
    let cpu = cpu.map(|cpu| cpu.split(',').next().unwrap_or(cpu));
    let (mut loaded, mut rewritten) = (Loaded::default(), Vec::new());
    let mut firmware = None;
    for kernel in &spec.kernels {
        if kernel.checked && spec.checked {
            let elf = read_elf(&kernel.path, target.program(), cpu)?;
            check_size(&kernel.path, &elf, spec, cpu)?;
            loaded.add_elf(&kernel.path, &elf);
        } else {
            open(&kernel.path)?;
            loaded.has_unknown = true;
        }
        firmware = Some(&*kernel.path);
    }
    for (number, image) in spec.images.iter().enumerate() {
        let path = image.path();
        match image {
            LoadedImage::Raw { address, .. } => {
                let (_, size) = open(path)?;
                if address.checked_add(size - 1).is_none() {
                    // QEMU would go on at 0.
                    let message = format!("has {size} bytes, which do not fit at {address:#x}");
                    return Err(FirmwareError::not_runnable(path, message));
                }
                loaded.add_raw(path, *address, size);
            }
            LoadedImage::IntelHex { .. } if !spec.checked => drop(open(path)?),
            LoadedImage::IntelHex { .. } => {
                let mut hex = read_hex(path)?;
                let contents = hex.rewritten.take();
                rewritten.extend(contents.map(|contents| Rewritten {
                    image: number,
                    contents,
                }));
                loaded.add_hex(path, hex);
            }
        }
        firmware = firmware.or(Some(path));
    }
    if let Some(Bios::File(path)) = &spec.bios {
        match spec.checked {
            true => check_bios(path, &target)?,
            false => drop(open(path)?),
        }
        // On some boards it is what the CPU begins with.
        loaded.has_unknown = true;
    }
    add_loaders(spec, &mut loaded)?;
    check_named_files(spec)?;
    match (cpu, firmware) {
        (Some(cpu), Some(firmware)) if spec.checked && cortex_m::is_one(cpu) => {
            cortex_m::check_vectors(spec.board_name(), &loaded, firmware)?;
        }
        _ => {}
    }
    Ok(Checked {
        rewritten,
        replaces_bios: target.has_own_bios()
            && !spec.has_bios()
            && loaded.starts().any(|(start, _)| start == RISCV_MEMORY),
    })
}

/// QEMU takes whatever `-bios` names, as it is where it is no ELF file that the board loads.
fn check_bios(path: &Path, target: &Target) -> Result<(), FirmwareError> {
    match Format::of(path)? {
        Format::Elf if target.has_raw_bios() => Err(FirmwareError::not_runnable(
            path,
            "is an ELF file, which the ROM of this QEMU's boards cannot be: name it as the firmware, \
             or make a raw image of it (objcopy -O binary)"
                .to_owned(),
        )),
        Format::Elf => check_architecture(path, read_headers(path)?.1.architecture, target.program()),
        Format::Unknown | Format::LinuxKernel | Format::WindowsProgram => Ok(()),
        other => Err(FirmwareError::not_runnable(
            path,
            format!("is {other}, which is no ROM: a raw image or an ELF file was wanted"),
        )),
    }
}

/// The files that extra arguments name. What else is wrong with them is QEMU's to say.
fn check_named_files(spec: &MachineSpec) -> Result<(), FirmwareError> {
    let names = |word: &OsStr| {
        let word = word.to_str()?;
        let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
        matches!(name, "bios" | "dtb" | "initrd").then_some(())
    };
    let mut pairs = spec.extra_args.windows(2);
    pairs.try_for_each(|pair| match names(&pair[0]) {
        Some(()) => refuse_pipe(Path::new(&pair[1])),
        None => Ok(()),
    })
}

const NO_FILE: &str = "is a device, pipe or socket; a file was wanted";

/// QEMU would wait for ever to open a pipe that nobody writes.
fn refuse_pipe(path: &Path) -> Result<(), FirmwareError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            Err(FirmwareError::unreadable(path, NO_FILE))
        }
        _ => Ok(()),
    }
}

/// What generic loaders among devices and extra arguments put into memory. What else is wrong
/// with them is QEMU's to say.
fn add_loaders(spec: &MachineSpec, loaded: &mut Loaded) -> Result<(), FirmwareError> {
    let devices = spec
        .devices
        .iter()
        .filter(|device| device.driver == "loader");
    let by_device = devices.map(|device| {
        let properties = device.properties.iter();
        properties
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    });
    let by_argument = spec
        .extra_args
        .windows(2)
        .filter(|pair| matches!(pair[0].to_str(), Some("-device" | "--device")))
        .filter_map(|pair| loader_in(&pair[1]));
    let all: Vec<Vec<_>> = by_device.chain(by_argument).collect();
    for properties in &all {
        let pairs = properties.iter().map(|(key, value)| (&**key, &**value));
        let loader = Loader::of(pairs);
        if let Some(loader) = &loader {
            refuse_pipe(Path::new(loader.file))?;
        }
        let known = loader.and_then(|loader| add_loader(&loader, loaded));
        loaded.has_unknown |= known.is_none();
    }
    Ok(())
}

/// As QEMU does: an ELF file or Intel HEX goes where it says, anything else to the address.
fn add_loader(loader: &Loader<'_>, loaded: &mut Loaded) -> Option<()> {
    let path = Path::new(loader.file);
    let (file, length) = open(path).ok()?;
    match Format::of(path).ok()? {
        Format::Elf if !loader.is_raw => {
            let elf = elf::read(&ReadCache::new(file)).ok()?;
            loaded.add_elf(path, &elf);
        }
        Format::IntelHex if !loader.is_raw => loaded.add_hex(path, read_hex(path).ok()?),
        _ => loaded.add_raw(path, loader.address?, length),
    }
    Some(())
}

fn read_hex(path: &Path) -> Result<IntelHex, FirmwareError> {
    let (mut file, _) = open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(|error| FirmwareError::io(path, error))?;
    intel_hex::read(&text).map_err(|bad| {
        let message = match bad.line {
            Some(line) => format!("is damaged in line {line}: {}", bad.why),
            None => bad.why,
        };
        FirmwareError::damaged(path, message)
    })
}

/// Opens what must be a file with something in it. Its kind is looked at first: opening a pipe
/// would wait for its writer.
pub(crate) fn open(path: &Path) -> Result<(File, u64), FirmwareError> {
    let io = |error| FirmwareError::io(path, error);
    let metadata = fs::metadata(path).map_err(io)?;
    if is_of_a_process(path) {
        let problem =
            "is a file that this program has open, and QEMU has not: name the file itself";
        return Err(FirmwareError::unreadable(path, problem));
    }
    let problem = if metadata.is_dir() {
        "is a folder; a file was wanted"
    } else if !metadata.is_file() {
        NO_FILE
    } else if metadata.len() == 0 {
        "is empty"
    } else {
        return Ok((File::open(path).map_err(io)?, metadata.len()));
    };
    Err(FirmwareError::unreadable(path, problem))
}

/// Whether it leads through `/proc`, as `/dev/stdin` and `/dev/fd/3` do: QEMU would look into its
/// own, and wait for ever for a stdin that has no firmware.
fn is_of_a_process(path: &Path) -> bool {
    // As many as Linux follows.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(name) = path.file_name() else {
            return false;
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let Ok(folder) = folder.canonicalize() else {
            return false;
        };
        if folder.starts_with("/proc") {
            return true;
        }
        match fs::read_link(folder.join(name)) {
            Ok(target) => path = folder.join(target),
            Err(_) => return false,
        }
    }
    false
}

/// An open ELF file, its headers, and its length.
fn read_headers(path: &Path) -> Result<(ReadCache<File>, Elf, u64), FirmwareError> {
    let (file, length) = open(path)?;
    let cache = ReadCache::new(file);
    let elf = elf::read(&cache).map_err(|bad| match bad {
        Bad::NotElf => not_elf(path, &cache),
        Bad::Headers(what) => cut_off(path, what, length),
    })?;
    Ok((cache, elf, length))
}

fn read_elf(path: &Path, program: &str, cpu: Option<&str>) -> Result<Elf, FirmwareError> {
    let (_, elf, length) = read_headers(path)?;
    check_architecture(path, elf.architecture, program)?;
    check_segments(path, &elf, length)?;
    check_entry(path, &elf, cpu)?;
    Ok(elf)
}

fn not_elf<'data>(path: &Path, data: impl ReadRef<'data>) -> FirmwareError {
    let length = data.len().unwrap_or(0).min(1024);
    let format = Format::of_start(data.read_bytes_at(0, length).unwrap_or_default());
    FirmwareError::WrongFormat {
        path: path.to_owned(),
        found: format.name(),
        advice: format.advice(),
    }
}

fn cut_off(path: &Path, what: &str, length: u64) -> FirmwareError {
    let message = format!("is cut off or damaged: {what} should be within its {length} bytes");
    FirmwareError::damaged(path, message)
}

fn check_architecture(
    path: &Path,
    found: Architecture,
    program: &str,
) -> Result<(), FirmwareError> {
    let Some(runs) = target_of(program).and_then(architecture::run_by) else {
        return Ok(());
    };
    if runs.contains(&found) {
        return Ok(());
    }
    let mut same_machine = runs
        .iter()
        .filter(|runs| runs.machine == found.machine)
        .peekable();
    let problem = if same_machine.peek().is_none() {
        "is for another CPU"
    } else if same_machine.any(|runs| runs.bits == found.bits) {
        "has the wrong byte order"
    } else {
        "has the wrong word size"
    };
    let wanted: Vec<_> = runs.iter().map(ToString::to_string).collect();
    Err(FirmwareError::WrongCpu {
        path: path.to_owned(),
        problem,
        found: found.to_string(),
        wanted: wanted.join(" or "),
        target: program.to_owned(),
    })
}

fn check_segments(path: &Path, elf: &Elf, length: u64) -> Result<(), FirmwareError> {
    for (number, segment) in elf.segments.iter().enumerate() {
        let (offset, size) = (segment.offset, segment.file_size);
        if offset.checked_add(size).is_none_or(|end| end > length) {
            let what = format!("its loadable segment {number} of {size} bytes at offset {offset}");
            return Err(cut_off(path, &what, length));
        }
    }
    if elf.segments.iter().all(|segment| segment.file_size == 0) {
        let why = match elf.relocatable {
            true => ": it is an object file, not linked yet",
            false => "",
        };
        let message = format!("has no loadable segment{why}");
        return Err(FirmwareError::not_runnable(path, message));
    }
    Ok(())
}

/// A microcontroller's memory map gives code and RAM this much each (Armv7-M). Also the least that
/// any board is taken to have.
const LARGEST_SEGMENT: u64 = 512 << 20;

/// QEMU would fill a segment larger than all memory with zeros of its own.
fn check_size(
    path: &Path,
    elf: &Elf,
    spec: &MachineSpec,
    cpu: Option<&str>,
) -> Result<(), FirmwareError> {
    let limit = match spec.memory_size().and_then(bytes_of) {
        Some(memory) => memory.max(LARGEST_SEGMENT),
        None if cpu.is_some_and(cortex_m::is_one) => LARGEST_SEGMENT,
        None => return Ok(()),
    };
    let too_large = elf
        .segments
        .iter()
        .find(|segment| segment.memory_size > limit);
    too_large.map_or(Ok(()), |segment| {
        Err(FirmwareError::not_runnable(
            path,
            format!(
                "has a segment of {} bytes at {:#x}, more than the machine has memory",
                segment.memory_size, segment.address
            ),
        ))
    })
}

/// `64K` and the like, in MiB where there is no suffix.
fn bytes_of(memory: &str) -> Option<u64> {
    let digits = memory.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match memory[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => 10,
        "" | "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Entry 0 outside what is loaded means 'none'. A Cortex-M needs none, and the board's own CPU may
/// be one.
fn check_entry(path: &Path, elf: &Elf, cpu: Option<&str>) -> Result<(), FirmwareError> {
    let none_needed = cpu.is_none_or(cortex_m::is_one);
    let held = elf.segments.iter().any(|segment| segment.holds(elf.entry));
    if held || (elf.entry == 0 && none_needed) {
        return Ok(());
    }
    let message = format!(
        "has its entry at {:#x}, which is in no loadable segment",
        elf.entry
    );
    Err(FirmwareError::not_runnable(path, message))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::path::Path;

    use super::{FirmwareError, check_all};
    use crate::spec::MachineSpec;

    /// `QEMU_SYSTEM_ARM` may name a program of any name.
    #[test]
    fn the_name_that_was_looked_for_tells_the_target_as_well() {
        // A program for this machine; no board of `qemu-system-alpha` has its CPU.
        let spec = MachineSpec::board("clipper").firmware(std::env::current_exe().unwrap());
        let checked =
            |name: &str, found: &str| check_all(&spec.clone().qemu(name), Path::new(found));
        for found in ["/opt/my-qemu", "/usr/bin/qemu-system-alpha"] {
            assert!(matches!(
                checked("qemu-system-alpha", found),
                Err(FirmwareError::WrongCpu { .. })
            ));
        }
        checked("my-qemu", "/opt/my-qemu").unwrap();
    }
}
