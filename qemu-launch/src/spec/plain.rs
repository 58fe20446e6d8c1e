//! A machine in names and numbers: what can be written down and made into a machine again elsewhere,
//! by somebody who trusts none of it.

use std::path::{Path, PathBuf};

use crate::spec::MachineSpec;
use crate::spec::image::{Bios, LoadedImage};

/// What of a machine names and numbers tell; from [`MachineSpec::plain`].
///
/// It has no path but those of the files that are loaded, and no option of QEMU's:
/// [`beyond`](Self::beyond) names what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlainMachine {
    /// The program's name, without its folder.
    pub program: String,
    /// The board.
    pub machine: String,
    /// The properties set of the board.
    pub machine_properties: Vec<(String, String)>,
    /// The CPU model, where it is not the board's own.
    pub cpu: Option<String>,
    /// The properties set of the CPU.
    pub cpu_properties: Vec<(String, String)>,
    /// The memory as QEMU writes it, where it is not the board's own.
    pub memory: Option<String>,
    /// The number of CPUs, where it was said.
    pub cpus: Option<u32>,
    /// The shift of `-icount`, where virtual time is by instructions and the same every time.
    pub icount_shift: Option<u8>,
    /// How many serial ports were asked for.
    pub serials: usize,
    /// The files that are loaded, in the order of [`MachineSpec::files`].
    pub loaded: Vec<(LoadedAs, PathBuf)>,
    /// There is no ROM where the board would have one.
    pub without_bios: bool,
    /// What else the machine has, in QEMU's words as far as there are any.
    pub beyond: Vec<String>,
}

/// How a file is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadedAs {
    /// By `-kernel`, an ELF file that is checked.
    Kernel,
    /// By `-kernel`, whatever it is.
    UncheckedKernel,
    /// At this address, as it is.
    Raw(u64),
    /// An Intel HEX file.
    IntelHex,
    /// The board's ROM.
    Bios,
}

impl MachineSpec {
    /// The machine in names and numbers.
    #[must_use]
    pub fn plain(&self) -> PlainMachine {
        let (machine, machine_properties) = named(&self.machine);
        let (cpu, cpu_properties) = match self.cpu_model() {
            Some(cpu) => {
                let (name, properties) = named(cpu);
                (Some(name), properties)
            }
            None => (None, Vec::new()),
        };
        let set = self.machine_properties.iter();
        let set = set.map(|(key, value)| (key.clone(), value.to_string_lossy().into_owned()));
        let program = self.program.file_name().unwrap_or_default();
        PlainMachine {
            program: program.to_string_lossy().into_owned(),
            machine,
            machine_properties: machine_properties.into_iter().chain(set).collect(),
            cpu,
            cpu_properties: [cpu_properties, self.cpu_properties.clone()].concat(),
            memory: self.memory_size().map(str::to_owned),
            cpus: self.smp,
            icount_shift: self.icount.as_ref().and_then(|icount| icount.shift),
            serials: self.serials.len(),
            loaded: self.loaded_files(),
            without_bios: self.bios == Some(Bios::None),
            beyond: self.beyond(),
        }
    }

    /// The program, as it was named.
    #[must_use]
    pub fn program_path(&self) -> &Path {
        &self.program
    }

    fn loaded_files(&self) -> Vec<(LoadedAs, PathBuf)> {
        let kernels = self.kernels.iter();
        let kernels = kernels.map(|kernel| {
            let way = match kernel.checked && self.checked {
                true => LoadedAs::Kernel,
                false => LoadedAs::UncheckedKernel,
            };
            (way, kernel.path.clone())
        });
        let images = self.images.iter().map(|image| match image {
            LoadedImage::Raw { path, address } => (LoadedAs::Raw(*address), path.clone()),
            LoadedImage::IntelHex { path } => (LoadedAs::IntelHex, path.clone()),
        });
        let bios = self.bios.iter().filter_map(|bios| match bios {
            Bios::None => None,
            Bios::File(path) => Some((LoadedAs::Bios, path.clone())),
        });
        kernels.chain(images).chain(bios).collect()
    }

    fn beyond(&self) -> Vec<String> {
        let counted = [
            ("drive", self.drives.len()),
            ("block node", self.blockdevs.len()),
            ("device", self.devices.len()),
            ("network device", self.nics.len()),
            ("global property", self.globals.len()),
        ];
        let counted = counted.into_iter().filter(|(_, count)| *count > 0);
        let counted = counted.map(|(what, count)| match count {
            1 => format!("a {what}"),
            count => format!("{count} {what}s"),
        });
        let words = self.extra_args.iter();
        let words = words.map(|word| word.to_string_lossy().into_owned());
        counted.chain(words).collect()
    }
}

/// A name, and the properties behind it, as in `virt,secure=on`.
fn named(text: &str) -> (String, Vec<(String, String)>) {
    let mut pieces = text.split(',');
    let name = pieces.next().unwrap_or_default().to_owned();
    let pairs = pieces.map(|piece| piece.split_once('=').unwrap_or((piece, "on")));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    (name, pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Icount;

    #[test]
    fn names_and_numbers_are_told_and_the_rest_is_named() {
        let spec = MachineSpec::new("/opt/bin/qemu-system-arm", "virt,secure=on")
            .cpu("cortex-a15")
            .cpu_property("neon", "off")
            .smp(2)
            .icount(Icount::shift(6).without_sleep())
            .firmware("a.elf")
            .raw_image("b.bin", 0x8000)
            .without_bios()
            .extra_args(["-d", "guest_errors"]);
        let plain = spec.plain();
        assert_eq!(
            (&*plain.program, &*plain.machine),
            ("qemu-system-arm", "virt")
        );
        let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        assert_eq!(plain.machine_properties, pair("secure", "on"));
        assert_eq!(plain.cpu.as_deref(), Some("cortex-a15"));
        assert_eq!(plain.cpu_properties, pair("neon", "off"));
        assert_eq!((plain.cpus, plain.icount_shift), (Some(2), Some(6)));
        let loaded = [
            (LoadedAs::Kernel, "a.elf".into()),
            (LoadedAs::Raw(0x8000), "b.bin".into()),
        ];
        assert_eq!(plain.loaded, loaded);
        assert!(plain.without_bios);
        assert_eq!(plain.beyond, ["-d", "guest_errors"]);
        let default = MachineSpec::default().plain();
        assert_eq!(default.cpu.as_deref(), Some("cortex-m3"));
        assert_eq!(default.memory.as_deref(), Some("64K"));
    }
}
