//! Checks of the firmware before QEMU starts.
//!
//! QEMU takes a file for `-kernel` that is not an ELF for a raw image, and runs it; an empty one,
//! or one for another CPU, ends in a lockup. Only a check before the start gives a clear error.

pub(crate) mod architecture;
mod cortex_m;
pub(crate) mod elf;
pub(crate) mod format;
mod intel_hex;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use object::{ReadCache, ReadRef};

use crate::discover::install::target_of;
use crate::spec::MachineSpec;
use crate::spec::image::LoadedImage;
use architecture::Architecture;
use elf::{Bad, Elf};
use format::Format;

/// The firmware is not what the chosen QEMU can run. Each error says what was found and what was
/// wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// There is no such file.
    #[error("there is no file {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is a folder.
    #[error("{} is a folder; a file was wanted", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// It is a device, a pipe or a socket.
    #[error("{} is a device, pipe or socket; a file was wanted", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("{} is empty", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not an ELF file.
    #[error("{} is {found}; an ELF file was wanted ({advice})", path.display())]
    NotElf {
        /// The path.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
        /// What can be done about it.
        advice: &'static str,
    },
    /// It is for another CPU.
    #[error("{} is for another CPU: {found}; {target} runs {wanted}", path.display())]
    WrongMachine {
        /// The path.
        path: PathBuf,
        /// What the file is for.
        found: String,
        /// What this QEMU runs.
        wanted: String,
        /// The QEMU that was chosen.
        target: String,
    },
    /// It is for the right CPU in the other byte order.
    #[error("{} has the wrong byte order: {found}; {target} runs {wanted}", path.display())]
    WrongByteOrder {
        /// The path.
        path: PathBuf,
        /// What the file is for.
        found: String,
        /// What this QEMU runs.
        wanted: String,
        /// The QEMU that was chosen.
        target: String,
    },
    /// It is for the right kind of CPU in another word size.
    #[error("{} has the wrong word size: {found}; {target} runs {wanted}", path.display())]
    WrongClass {
        /// The path.
        path: PathBuf,
        /// What the file is for.
        found: String,
        /// What this QEMU runs.
        wanted: String,
        /// The QEMU that was chosen.
        target: String,
    },
    /// Its end is missing, or its headers point outside it.
    #[error("{} is cut off or damaged: {what} should be within its {length} bytes", path.display())]
    Truncated {
        /// The path.
        path: PathBuf,
        /// What lies outside the file.
        what: String,
        /// The file's length in bytes.
        length: u64,
    },
    /// There is nothing in it to load.
    #[error("{} has no loadable segment{}", path.display(), if *relocatable { ": it is an object file, not linked yet" } else { "" })]
    NothingToLoad {
        /// The path.
        path: PathBuf,
        /// It is a relocatable object file (`.o`).
        relocatable: bool,
    },
    /// It is an Intel HEX file with a line that is no whole record. QEMU would run its text as
    /// machine code.
    #[error("{} is damaged in line {line}: {why}", path.display())]
    BadRecord {
        /// The path.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is an Intel HEX file without the record that ends it.
    #[error("{} is cut off: the record that ends an Intel HEX file is missing", path.display())]
    NoEndOfFile {
        /// The path.
        path: PathBuf,
    },
    /// Execution would begin outside what is loaded.
    #[error("{} has its entry at {entry:#x}, which is in no loadable segment", path.display())]
    NoEntry {
        /// The path.
        path: PathBuf,
        /// The entry.
        entry: u64,
    },
    /// What stands where a Cortex-M looks for its vectors can't be them: it would lock up at once.
    #[error("{} has no vector table for a Cortex-M at {address:#x}: {why}", path.display())]
    NoVectorTable {
        /// The path.
        path: PathBuf,
        /// Where the table was looked for.
        address: u64,
        /// What is wrong with what stands there.
        why: String,
    },
}

/// Checks that the QEMU of this name (`qemu-system-arm`) can run this ELF file on this CPU, as a
/// start does.
///
/// For a CPU whose name begins with `cortex-m` the vector table is looked at: at address 0 where
/// something is loaded there, else at the start of any segment, since boards alias their flash. One
/// with a secure state may have it at the start of any segment in any case. A program whose name
/// does not begin with `qemu-system-` can't be told its architecture by, so that is not checked.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(path: &Path, program: &str, cpu: Option<&str>) -> Result<(), FirmwareError> {
    let (file, length) = open(path)?;
    let cache = ReadCache::new(file);
    let elf = check_elf(path, &cache, length, program, cpu)?;
    cortex_m::check_vectors(path, &cache, &elf, cpu)
}

/// Checks everything that the machine loads.
pub(crate) fn check_all(spec: &MachineSpec, program: &Path) -> Result<(), FirmwareError> {
    let target = target_name(spec, program);
    let cpu = spec
        .cpu_model()
        .or_else(|| cortex_m::of_board(&spec.machine));
    for kernel in &spec.kernels {
        if kernel.checked {
            let (file, length) = open(&kernel.path)?;
            let cache = ReadCache::new(file);
            let elf = check_elf(&kernel.path, &cache, length, &target, cpu)?;
            // Another image may bring the vectors, as a boot loader's does.
            if spec.images.is_empty() {
                cortex_m::check_vectors(&kernel.path, &cache, &elf, cpu)?;
            }
        } else {
            open(&kernel.path)?;
        }
    }
    spec.images.iter().try_for_each(check_image)?;
    spec.bios
        .as_deref()
        .map_or(Ok(()), |path| open(path).map(drop))
}

fn check_image(image: &LoadedImage) -> Result<(), FirmwareError> {
    let path = image.path();
    let (file, _) = open(path)?;
    let LoadedImage::IntelHex { .. } = image else {
        return Ok(());
    };
    let path = path.to_owned();
    intel_hex::check(BufReader::new(file)).map_err(|bad| match bad {
        intel_hex::Bad::Unreadable(source) => FirmwareError::Unreadable { path, source },
        intel_hex::Bad::Record { line, why } => FirmwareError::BadRecord { path, line, why },
        intel_hex::Bad::NoEnd => FirmwareError::NoEndOfFile { path },
    })
}

/// The name that tells the target: the found program's, or the one that was looked for, where an
/// environment variable has named a program of another name.
fn target_name(spec: &MachineSpec, program: &Path) -> String {
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let found = name(program);
    if target_of(&found).is_some() {
        found
    } else {
        name(&spec.program)
    }
}

/// Opens what must be a file with something in it. Looked at first: opening a pipe would wait for
/// its writer.
pub(crate) fn open(path: &Path) -> Result<(File, u64), FirmwareError> {
    let path_buf = || path.to_owned();
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => FirmwareError::Missing {
            path: path.to_owned(),
        },
        _ => FirmwareError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(FirmwareError::Folder { path: path_buf() });
    }
    if !metadata.is_file() {
        return Err(FirmwareError::NotAFile { path: path_buf() });
    }
    if metadata.len() == 0 {
        return Err(FirmwareError::Empty { path: path_buf() });
    }
    Ok((File::open(path).map_err(unreadable)?, metadata.len()))
}

fn check_elf<'data>(
    path: &Path,
    data: impl ReadRef<'data>,
    length: u64,
    program: &str,
    cpu: Option<&str>,
) -> Result<Elf, FirmwareError> {
    let elf = elf::read(data).map_err(|bad| match bad {
        Bad::NotElf => not_elf(path, data),
        Bad::Headers(what) => FirmwareError::Truncated {
            path: path.to_owned(),
            what: what.to_owned(),
            length,
        },
    })?;
    check_architecture(path, elf.architecture, program)?;
    check_segments(path, &elf, length)?;
    check_entry(path, &elf, cpu)?;
    Ok(elf)
}

fn not_elf<'data>(path: &Path, data: impl ReadRef<'data>) -> FirmwareError {
    let length = data.len().unwrap_or(0).min(1024);
    let start = data.read_bytes_at(0, length).unwrap_or_default();
    let text = start
        .iter()
        .all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let (found, advice) = match start {
        _ if is_linux(start) => ("a Linux kernel's image", "say `unchecked_firmware`"),
        _ if Format::of_start(start) == Format::IntelHex => {
            ("an Intel HEX file", "or say `intel_hex`")
        }
        [b'S', b'0'..=b'9', ..] if text => ("a Motorola S-record file", "convert it with objcopy"),
        _ if text => (
            "a text file",
            "is it the source instead of the build's result?",
        ),
        [b'M', b'Z', ..] => ("a Windows program", "build for the bare-metal target"),
        _ => (
            "no ELF file",
            "or say `raw_image` with its address, if that is what it is",
        ),
    };
    FirmwareError::NotElf {
        path: path.to_owned(),
        found,
        advice,
    }
}

/// By the magic words of `Documentation/arch/*/` in Linux: 32-bit Arm's zImage, the Images of
/// AArch64 and RISC-V, and x86's bzImage. Some of them begin like a Windows program, for EFI's
/// sake.
fn is_linux(start: &[u8]) -> bool {
    let has = |at: usize, magic: &[u8]| start.get(at..at + magic.len()) == Some(magic);
    has(0x24, &0x016f_2818_u32.to_le_bytes())
        || has(0x38, b"ARMd")
        || has(0x38, b"RSC\x05")
        || has(0x202, b"HdrS")
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
    let wanted = runs
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" or ");
    let (path, found_text, target) = (path.to_owned(), found.to_string(), program.to_owned());
    let same_machine: Vec<_> = runs
        .iter()
        .filter(|runs| runs.machine == found.machine)
        .collect();
    Err(if same_machine.is_empty() {
        FirmwareError::WrongMachine {
            path,
            found: found_text,
            wanted,
            target,
        }
    } else if same_machine.iter().any(|runs| runs.bits == found.bits) {
        FirmwareError::WrongByteOrder {
            path,
            found: found_text,
            wanted,
            target,
        }
    } else {
        FirmwareError::WrongClass {
            path,
            found: found_text,
            wanted,
            target,
        }
    })
}

fn check_segments(path: &Path, elf: &Elf, length: u64) -> Result<(), FirmwareError> {
    for (number, segment) in elf.segments.iter().enumerate() {
        if segment
            .offset
            .checked_add(segment.file_size)
            .is_none_or(|end| end > length)
        {
            let what = format!(
                "its loadable segment {number} of {} bytes at offset {}",
                segment.file_size, segment.offset
            );
            return Err(FirmwareError::Truncated {
                path: path.to_owned(),
                what,
                length,
            });
        }
    }
    if elf.segments.iter().all(|segment| segment.file_size == 0) {
        return Err(FirmwareError::NothingToLoad {
            path: path.to_owned(),
            relocatable: elf.relocatable,
        });
    }
    Ok(())
}

/// Entry 0 outside what is loaded says 'none'. A Cortex-M needs none, and the board's own CPU may
/// be one.
fn check_entry(path: &Path, elf: &Elf, cpu: Option<&str>) -> Result<(), FirmwareError> {
    let none_needed = cpu.is_none_or(cortex_m::is_one);
    let held = elf.segments.iter().any(|segment| segment.holds(elf.entry));
    if held || (elf.entry == 0 && none_needed) {
        Ok(())
    } else {
        Err(FirmwareError::NoEntry {
            path: path.to_owned(),
            entry: elf.entry,
        })
    }
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
                Err(FirmwareError::WrongMachine { .. })
            ));
        }
        checked("my-qemu", "/opt/my-qemu").unwrap();
    }
}
