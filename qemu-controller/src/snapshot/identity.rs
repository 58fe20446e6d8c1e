//! What a snapshot was taken with, so that one that cannot fit is refused in words.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use qmp_proto::Command;
use qmp_proto::commands::{QomGet, QueryCpusFast};
use serde::{Deserialize, Serialize};

use crate::client::transaction::Transaction;
use crate::error::CommandError;

/// How long a text may be: with the longest name, all of it fits into QEMU's 255 bytes for a tag.
const LONGEST_FIELD: usize = 32;

/// The machine that a snapshot was taken of. A snapshot fits where all of this is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The board, as QEMU names it.
    pub machine: String,
    /// The CPU model and, where there are several, how many: `cortex-a15 x 2`.
    pub cpu: String,
    /// The guest's memory in bytes, as QEMU counts it: boards with a memory of their own ignore it.
    pub memory: u64,
    /// QEMU's version.
    pub qemu: String,
    /// A hash of the firmware and whatever else QEMU loaded at its start; empty where there is
    /// nothing or it is not known, as for a session that was attached, and then it is not compared.
    pub firmware: String,
}

/// In what a snapshot and the machine that it is to be loaded into differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Of what: `machine`, `CPU`, `memory`, `QEMU` or `firmware`.
    pub what: &'static str,
    /// As it was saved.
    pub saved: String,
    /// As it is in this session.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} and not {}", self.what, self.saved, self.now)
    }
}

impl Identity {
    /// Asks QEMU what it is.
    pub(crate) async fn ask(
        operation: &Transaction,
        firmware: LoadedFiles,
    ) -> Result<Self, CommandError> {
        let firmware = tokio::task::spawn_blocking(move || firmware.hash());
        let machine = kind(operation, "/machine").await?;
        let machine = machine.strip_suffix("-machine").unwrap_or(&machine);
        let cpus = operation.command(&QueryCpusFast).await?;
        let mut cpu = match cpus.first() {
            Some(cpu) => model(&kind(operation, &cpu.qom_path).await?).to_owned(),
            None => String::new(),
        };
        if cpus.len() > 1 {
            cpu = format!("{cpu} x {}", cpus.len());
        }
        let memory = operation
            .command(&QueryMemorySizeSummary {})
            .await?
            .base_memory;
        let qemu = operation.qemu_version();
        let firmware = firmware.await.ok().flatten().unwrap_or_default();
        Ok(Self {
            machine: field(machine),
            cpu: field(&cpu),
            memory,
            qemu: field(&qemu),
            firmware,
        })
    }

    /// Where the machine of now differs from this, which was saved.
    pub(crate) fn differences(&self, now: &Self) -> Vec<Difference> {
        let (memory, memory_now) = (self.memory.to_string(), now.memory.to_string());
        let both_known = !self.firmware.is_empty() && !now.firmware.is_empty();
        let parts = [
            ("machine", &self.machine, &now.machine),
            ("CPU", &self.cpu, &now.cpu),
            ("memory", &memory, &memory_now),
            ("QEMU", &self.qemu, &now.qemu),
            (
                "firmware",
                &self.firmware,
                if both_known {
                    &now.firmware
                } else {
                    &self.firmware
                },
            ),
        ];
        let differ = parts.into_iter().filter(|(_, saved, now)| saved != now);
        differ
            .map(|(what, saved, now)| Difference {
                what,
                saved: saved.clone(),
                now: now.clone(),
            })
            .collect()
    }

    /// Reads what [`Display`](fmt::Display) wrote.
    pub(crate) fn read(note: &str) -> Option<Self> {
        let parts: Vec<_> = note.split(';').collect();
        let [machine, cpu, memory, qemu, firmware] = parts[..] else {
            return None;
        };
        let memory = memory.parse().ok()?;
        let [machine, cpu, qemu, firmware] = [machine, cpu, qemu, firmware].map(str::to_owned);
        Some(Self {
            machine,
            cpu,
            memory,
            qemu,
            firmware,
        })
    }
}

/// As it stands in a tag.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{};{};{};{};{}",
            self.machine, self.cpu, self.memory, self.qemu, self.firmware
        )
    }
}

/// Short enough for a tag, and without what parts its fields: QEMU's own names are both.
fn field(text: &str) -> String {
    let plain = |c: char| {
        if c == ' ' || c.is_ascii_graphic() && c != ';' {
            c
        } else {
            '_'
        }
    };
    text.chars().take(LONGEST_FIELD).map(plain).collect()
}

async fn kind(operation: &Transaction, path: &str) -> Result<String, CommandError> {
    let kind = operation
        .command(&QomGet {
            path,
            property: "type",
        })
        .await?;
    Ok(kind.parse().unwrap_or_default())
}

/// The CPU model of a type such as `cortex-m3-arm-cpu`.
fn model(kind: &str) -> &str {
    kind.strip_suffix("-cpu")
        .and_then(|kind| kind.rsplit_once('-'))
        .map_or(kind, |(model, _)| model)
}

/// `query-memory-size-summary`.
#[derive(Serialize)]
struct QueryMemorySizeSummary {}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MemorySizeSummary {
    base_memory: u64,
}

impl Command for QueryMemorySizeSummary {
    const NAME: &'static str = "query-memory-size-summary";
    type Return = MemorySizeSummary;
}

/// What QEMU loaded at its start, as it was then: the files may be built anew while the session
/// lasts.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadedFiles {
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Tells a file that was written since from one that was not.
type Stamp = (u64, SystemTime);

impl LoadedFiles {
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        Self {
            files: files
                .into_iter()
                .map(|file| (file.to_owned(), stamp(file)))
                .collect(),
        }
    }

    /// `None` where there is nothing, or where a file is not what it was at the start.
    fn hash(&self) -> Option<String> {
        let mut hash = Fnv::default();
        for (path, stamped) in &self.files {
            let bytes = std::fs::read(path).ok()?;
            if stamped.is_none() || stamp(path) != *stamped {
                return None;
            }
            hash.write(&bytes);
        }
        (!self.files.is_empty()).then(|| hash.to_string())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// FNV-1a of 128 bits, taken over words of eight bytes: it tells files apart that differ by chance,
/// stays the same in every version of everything, and needs no crate. It is no defence against one
/// made to collide.
pub(crate) struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn word(&mut self, word: u64) {
        self.0 =
            (self.0 ^ u128::from(word)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }

    /// A file, and where it ends.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }
}

impl fmt::Display for Fnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl Identity {
        pub(crate) fn sample() -> Self {
            let [machine, cpu, qemu] = ["m", "c", "v"].map(|text| field(&text.repeat(100)));
            Self {
                machine,
                cpu,
                memory: u64::MAX,
                qemu,
                firmware: "f".repeat(32),
            }
        }
    }

    #[test]
    fn a_difference_is_named_with_both_sides() {
        let saved = Identity::sample();
        assert_eq!(saved.differences(&saved), []);
        let now = Identity {
            cpu: "cortex-m4".to_owned(),
            firmware: String::new(),
            ..saved.clone()
        };
        let differences = saved.differences(&now);
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!(
            differences[0].to_string(),
            format!("CPU {} and not cortex-m4", saved.cpu)
        );
        let now = Identity {
            firmware: "0".repeat(32),
            memory: 1,
            ..saved.clone()
        };
        let what: Vec<_> = saved
            .differences(&now)
            .iter()
            .map(|difference| difference.what)
            .collect();
        assert_eq!(what, ["memory", "firmware"]);
    }

    #[test]
    fn models() {
        assert_eq!(
            ["cortex-m3-arm-cpu", "max-arm-cpu", "odd"].map(model),
            ["cortex-m3", "max", "odd"]
        );
    }

    #[test]
    fn fields_are_short_and_plain() {
        assert_eq!(field("cortex-a15 x 2"), "cortex-a15 x 2");
        assert_eq!(field("a;b\nc\u{e9}"), "a_b_c_");
        assert_eq!(field(&"m".repeat(100)).len(), LONGEST_FIELD);
    }

    #[test]
    fn firmware_is_what_it_was_at_the_start_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let hash = |contents: [&str; 2]| {
            for (path, content) in paths.iter().zip(contents) {
                std::fs::write(path, content).unwrap();
            }
            LoadedFiles::of(paths.iter().map(PathBuf::as_path))
                .hash()
                .unwrap()
        };
        let first = hash(["firmware", "more"]);
        assert_eq!((first.len(), &first), (32, &hash(["firmware", "more"])));
        let others = [
            ["firmwarf", "more"],
            ["firmware", "mor"],
            ["firmwar", "emore"],
            ["more", "firmware"],
        ];
        for other in others {
            assert_ne!(hash(other), first, "{other:?}");
        }
        let firmware = LoadedFiles::of([paths[0].as_path()]);
        std::fs::write(&paths[0], "built anew").unwrap();
        assert_eq!(firmware.hash(), None);
        assert_eq!(LoadedFiles::default().hash(), None);
        assert_eq!(
            LoadedFiles::of([folder.path().join("absent").as_path()]).hash(),
            None
        );
    }
}
