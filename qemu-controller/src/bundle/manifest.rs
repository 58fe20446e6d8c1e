//! `bundle.json`: what is written there, and what is believed of what is read.

use std::collections::BTreeMap;

use qemu_launch::{Icount, LoadedAs, MachineSpec, PlainMachine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The number of the format. A reader refuses a higher one; a field that is added does not change it.
pub const FORMAT_VERSION: u64 = 1;

/// What says that it is a bundle.
pub(super) const FORMAT: &str = "qemu-controller bundle";

/// The properties of boards that change the machine and name no file. QEMU has some that write one.
const BOARD_PROPERTIES: [&str; 14] = [
    "secure",
    "virtualization",
    "gic-version",
    "highmem",
    "its",
    "mte",
    "ras",
    "aclint",
    "aia",
    "aia-guests",
    "acpi",
    "iommu",
    "graphics",
    "usb",
];

/// The largest memory that is taken from a bundle, in MiB.
const MOST_MEMORY: u64 = 2048;

/// The longest name.
const NAME: usize = 64;

/// How many files are loaded, serial ports there are and CPUs, at the most.
const LOADED: usize = 8;
const SERIALS: usize = 8;
const CPUS: u32 = 64;

/// What a guest was about to do when its state was saved.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MomentKind {
    /// To run the first instruction of a fault's handler: registers and memory are as the fault
    /// left them.
    Fault,
    /// To run the first instruction of the function that a panic comes to.
    Panic,
    /// To exit, by semihosting.
    Exit,
    /// It was wherever it was at the deadline.
    Deadline,
    /// It was wherever it was when somebody wanted to know.
    End,
}

impl MomentKind {
    /// In words, behind "the machine is".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Fault => "at the first instruction of the fault's handler",
            Self::Panic => "at the first instruction of the function that the panic came to",
            Self::Exit => "at the semihosting call by which it exited",
            Self::Deadline => "where it was when its time had passed",
            Self::End => "where it was when the run was ended",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) version: u64,
    /// Which program wrote it.
    pub(super) written_by: String,
    pub(super) name: String,
    pub(super) verdict: String,
    pub(super) message: String,
    pub(super) qemu: QemuNote,
    pub(super) machine: MachineNote,
    #[serde(default)]
    pub(super) moment: Option<MomentNote>,
    /// What is not in it that could have been, and why.
    #[serde(default)]
    pub(super) missing: Vec<String>,
    /// Why there is no state of the machine; it is in `missing`, too.
    #[serde(default)]
    pub(super) no_state: Option<String>,
}

/// What ran. It is for reading: nothing of it is run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct QemuNote {
    pub(super) version: String,
    pub(super) argv: Vec<String>,
}

/// The machine in names and numbers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct MachineNote {
    pub(super) program: String,
    pub(super) board: String,
    #[serde(default)]
    pub(super) board_properties: Vec<(String, String)>,
    #[serde(default)]
    pub(super) cpu: Option<String>,
    #[serde(default)]
    pub(super) cpu_properties: Vec<(String, String)>,
    #[serde(default)]
    pub(super) memory: Option<String>,
    #[serde(default)]
    pub(super) cpus: Option<u32>,
    #[serde(default)]
    pub(super) icount_shift: Option<u8>,
    #[serde(default)]
    pub(super) serials: usize,
    #[serde(default)]
    pub(super) without_bios: bool,
    #[serde(default)]
    pub(super) loaded: Vec<LoadedNote>,
    /// The hash of all of them.
    #[serde(default)]
    pub(super) hash: String,
    /// What else the machine had. It is for reading: nothing of it is passed on.
    #[serde(default)]
    pub(super) beyond: Vec<String>,
    /// The firmware could make semihosting calls.
    #[serde(default)]
    pub(super) semihosting: bool,
}

/// A file that the machine loads.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct LoadedNote {
    #[serde(rename = "as")]
    pub(super) way: Way,
    /// What it was called.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// It is in the bundle.
    pub(super) is_here: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    Kernel,
    UncheckedKernel,
    Raw(u64),
    IntelHex,
    Bios,
}

/// The machine at the moment of the state.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct MomentNote {
    pub(super) kind: MomentKind,
    pub(super) has_state: bool,
    /// The general registers of the core that stopped, in hexadecimal digits of the guest's bytes.
    pub(super) registers: BTreeMap<String, String>,
    /// Which core that is.
    pub(super) core: usize,
    /// The exception that it took, or the function by which it panicked.
    #[serde(default)]
    pub(super) exception: Option<String>,
    #[serde(default)]
    pub(super) panicked_in: Option<String>,
    /// What each core was doing, in words and as objects.
    pub(super) words: Vec<String>,
    pub(super) cores: Vec<Value>,
}

/// The name of a file that the machine loads, in the bundle.
pub(super) fn loaded_name(index: usize) -> String {
    match index {
        0 => "firmware".to_owned(),
        index => format!("loaded-{index}"),
    }
}

/// How many files of symbols there are at the most.
pub(super) const SYMBOLS: usize = 8;

/// The name of a file with symbols alone.
pub(super) fn symbols_name(index: usize) -> String {
    match index {
        0 => "symbols".to_owned(),
        index => format!("symbols-{index}"),
    }
}

impl MachineNote {
    pub(super) fn of(plain: PlainMachine) -> Self {
        let loaded = plain.loaded.iter().map(|(way, path)| LoadedNote {
            way: match way {
                LoadedAs::Raw(address) => Way::Raw(*address),
                LoadedAs::IntelHex => Way::IntelHex,
                LoadedAs::Bios => Way::Bios,
                LoadedAs::Kernel => Way::Kernel,
                _ => Way::UncheckedKernel,
            },
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            bytes: path.metadata().map_or(0, |metadata| metadata.len()),
            is_here: false,
        });
        Self {
            loaded: loaded.collect(),
            program: plain.program,
            board: plain.machine,
            board_properties: plain.machine_properties,
            cpu: plain.cpu,
            cpu_properties: plain.cpu_properties,
            memory: plain.memory,
            cpus: plain.cpus,
            icount_shift: plain.icount_shift,
            serials: plain.serials,
            without_bios: plain.without_bios,
            beyond: plain.beyond,
            hash: String::new(),
            semihosting: false,
        }
    }

    /// Why no machine is made of it.
    pub(super) fn refusal(&self) -> Option<String> {
        let plain = |what: &str, text: &str| {
            (!is_plain(text)).then(|| format!("its {what} is {text:?}, which is no plain name"))
        };
        if !self.program.starts_with("qemu-system-") || !is_plain(&self.program) {
            return Some(format!(
                "its program is {:?}, which is no QEMU",
                self.program
            ));
        }
        let cpu = self.cpu.as_deref().and_then(|cpu| plain("CPU", cpu));
        if let Some(why) = plain("board", &self.board).or(cpu) {
            return Some(why);
        }
        for (key, value) in &self.board_properties {
            if !BOARD_PROPERTIES.contains(&&**key) || !is_plain(value) {
                return Some(format!(
                    "its board has {key:?} set to {value:?}, which is not taken from a bundle"
                ));
            }
        }
        for (key, value) in &self.cpu_properties {
            if let Some(why) = plain("CPU property", key).or(plain("CPU property", value)) {
                return Some(why);
            }
        }
        let memory = self.memory.as_deref().map(mebibytes);
        if memory.is_some_and(|memory| memory.is_none_or(|memory| memory > MOST_MEMORY)) {
            return Some(format!(
                "its memory is {:?}, and {MOST_MEMORY}M is the most that is taken",
                self.memory.as_deref().unwrap_or_default()
            ));
        }
        let counts = self.cpus.unwrap_or(1) <= CPUS
            && self.serials <= SERIALS
            && self.loaded.len() <= LOADED
            && self.icount_shift.is_none_or(|shift| shift <= 10);
        (!counts).then(|| "a number in it is beyond what a machine has".to_owned())
    }

    /// The machine, which loads these files, one for each that is noted.
    pub(super) fn spec(&self, files: &[std::path::PathBuf]) -> MachineSpec {
        let mut spec = MachineSpec::new(&self.program, &self.board);
        for (key, value) in &self.board_properties {
            spec = spec.machine_property(key, value);
        }
        if let Some(cpu) = &self.cpu {
            spec = spec.cpu(cpu);
        }
        for (key, value) in &self.cpu_properties {
            spec = spec.cpu_property(key, value);
        }
        if let Some(memory) = &self.memory {
            spec = spec.memory(memory);
        }
        if let Some(cpus) = self.cpus {
            spec = spec.smp(cpus);
        }
        if let Some(shift) = self.icount_shift {
            spec = spec.icount(Icount::shift(shift).without_sleep());
        }
        for _ in 0..self.serials {
            spec = spec.serial(qemu_launch::Endpoint::Inherited);
        }
        if self.without_bios {
            spec = spec.without_bios();
        }
        for (note, file) in self.loaded.iter().zip(files) {
            spec = match note.way {
                Way::Kernel => spec.firmware(file),
                Way::UncheckedKernel => spec.unchecked_firmware(file),
                Way::Raw(address) => spec.raw_image(file, address),
                Way::IntelHex => spec.intel_hex(file),
                Way::Bios => spec.bios(file),
            };
        }
        spec
    }
}

/// A name and nothing else: no path, no option, no second property.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !text.is_empty() && text.len() <= NAME && !text.starts_with('-') && text.bytes().all(is_plain)
}

/// An amount of memory as QEMU writes it, rounded up.
fn mebibytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => Some(number.div_ceil(1024)),
        "" | "M" => Some(number),
        "G" => number.checked_mul(1024),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineNote {
        MachineNote::of(MachineSpec::default().firmware("a.elf").plain())
    }

    #[test]
    fn a_machine_is_made_of_its_note() {
        let note = machine();
        assert_eq!(note.refusal(), None);
        let again = MachineNote::of(note.spec(&["/b/firmware".into()]).plain());
        assert_eq!((&again.board, &again.cpu), (&note.board, &note.cpu));
        assert_eq!(
            (&again.memory, &again.serials),
            (&note.memory, &note.serials)
        );
        assert_eq!(again.loaded[0].way, Way::Kernel);
    }

    #[test]
    fn what_names_programs_files_or_too_much_is_refused() {
        type Change = fn(&mut MachineNote);
        let changes: [(Change, &str); 14] = [
            (|m| m.program = "/tmp/qemu-system-arm".into(), "no QEMU"),
            (|m| m.program = "sh".into(), "no QEMU"),
            (|m| m.program = "qemu-system-arm;sh".into(), "no QEMU"),
            (|m| m.board = "virt,dumpdtb=x".into(), "no plain name"),
            (|m| m.board = "-monitor".into(), "no plain name"),
            (|m| m.board = String::new(), "no plain name"),
            (
                |m| m.board_properties = vec![("dumpdtb".into(), "x".into())],
                "not taken",
            ),
            (
                |m| m.board_properties = vec![("secure".into(), "on,kernel=/x".into())],
                "not taken",
            ),
            (
                |m| m.cpu = Some("max,x=/etc/passwd".into()),
                "no plain name",
            ),
            (
                |m| m.cpu_properties = vec![("a".into(), "b/c".into())],
                "no plain name",
            ),
            (|m| m.memory = Some("64G".into()), "the most"),
            (|m| m.memory = Some("64K,slots=2".into()), "the most"),
            (|m| m.serials = 1000, "beyond"),
            (|m| m.loaded = vec![m.loaded[0].clone(); 9], "beyond"),
        ];
        for (change, expected) in changes {
            let mut note = machine();
            change(&mut note);
            let why = note.refusal().unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn amounts_of_memory() {
        let rows = [
            ("64K", Some(1)),
            ("16", Some(16)),
            ("3g", Some(3072)),
            ("1T", None),
            ("", None),
            ("18446744073709551615G", None),
        ];
        for (text, expected) in rows {
            assert_eq!(mebibytes(text), expected, "{text}");
        }
    }
}
