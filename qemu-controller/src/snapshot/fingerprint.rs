//! The machine that a snapshot was taken of, so that one that does not fit is refused with the
//! reason.

use std::fmt;

use qmp_proto::Command;
use qmp_proto::commands::QueryCpusFast;
use serde::{Deserialize, Serialize};

use super::loaded_files::LoadedFiles;
use crate::client::transaction::{Transaction, UNATTENDED_DEADLINE};
use crate::cores::{cpu_model, qom_type};
use crate::error::CommandError;

/// The most characters of a field: with the longest name, a tag fits into QEMU's 255 bytes.
const MAX_FIELD: usize = 32;

/// The machine that a snapshot was taken of. A snapshot fits where all of this is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineFingerprint {
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
pub struct MachineMismatch {
    /// Of what: `machine`, `CPU`, `memory`, `QEMU` or `firmware`.
    pub what: &'static str,
    /// As it was saved.
    pub saved: String,
    /// As it is in this session.
    pub now: String,
}

pub(crate) fn joined(mismatches: &[MachineMismatch]) -> String {
    let texts: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl fmt::Display for MachineMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A tag can have any text.
        let (saved, now) = (self.saved.escape_debug(), self.now.escape_debug());
        write!(f, "{} {saved} and not {now}", self.what)
    }
}

impl MachineFingerprint {
    /// Asks QEMU what it is.
    pub(crate) async fn ask(
        transaction: &Transaction,
        firmware: LoadedFiles,
    ) -> Result<Self, CommandError> {
        let firmware = tokio::task::spawn_blocking(move || firmware.hash());
        let (shared, deadline) = (transaction.shared(), UNATTENDED_DEADLINE);
        let machine = qom_type(shared, deadline, "/machine").await?;
        let machine = machine.strip_suffix("-machine").unwrap_or(&machine);
        let cpus = transaction.command(&QueryCpusFast).await?;
        let mut cpu = match cpus.first() {
            Some(cpu) => cpu_model(&qom_type(shared, deadline, &cpu.qom_path).await?).to_owned(),
            None => String::new(),
        };
        if cpus.len() > 1 {
            cpu = format!("{cpu} x {}", cpus.len());
        }
        let memory = transaction
            .command(&QueryMemorySizeSummary {})
            .await?
            .base_memory;
        let qemu = transaction.qemu_version();
        let firmware = firmware.await.ok().flatten().unwrap_or_default();
        Ok(Self {
            machine: field(machine),
            cpu: field(&cpu),
            memory,
            qemu: field(&qemu),
            firmware,
        })
    }

    /// In what the machine of now differs from this one, which was saved.
    pub(crate) fn mismatches(&self, now: &Self) -> Vec<MachineMismatch> {
        let (memory, memory_now) = (self.memory.to_string(), now.memory.to_string());
        let firmware_known = !self.firmware.is_empty() && !now.firmware.is_empty();
        let fields = [
            ("machine", &self.machine, &now.machine),
            ("CPU", &self.cpu, &now.cpu),
            ("memory", &memory, &memory_now),
            ("QEMU", &self.qemu, &now.qemu),
            ("firmware", &self.firmware, &now.firmware),
        ];
        let compared = if firmware_known {
            &fields[..]
        } else {
            &fields[..4]
        };
        let differ = compared.iter().filter(|(_, saved, now)| saved != now);
        differ
            .map(|&(what, saved, now)| MachineMismatch {
                what,
                saved: saved.clone(),
                now: now.clone(),
            })
            .collect()
    }

    /// Parses what [`Display`](fmt::Display) wrote.
    pub(crate) fn parse(note: &str) -> Option<Self> {
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

/// As it is in a tag.
impl fmt::Display for MachineFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{};{};{};{};{}",
            self.machine, self.cpu, self.memory, self.qemu, self.firmware
        )
    }
}

/// A text as a field of a tag: short, and without the separator. QEMU's own names are so already.
fn field(text: &str) -> String {
    let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() && c != ';';
    let chars = text.chars().take(MAX_FIELD);
    chars.map(|c| if is_plain(c) { c } else { '_' }).collect()
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl MachineFingerprint {
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
    fn a_mismatch_is_named_with_both_sides() {
        let saved = MachineFingerprint::sample();
        assert_eq!(saved.mismatches(&saved), []);
        let now = MachineFingerprint {
            cpu: "cortex-m4".to_owned(),
            firmware: String::new(),
            ..saved.clone()
        };
        let mismatches = saved.mismatches(&now);
        assert_eq!(mismatches.len(), 1, "{mismatches:?}");
        assert_eq!(
            mismatches[0].to_string(),
            format!("CPU {} and not cortex-m4", saved.cpu)
        );
        let now = MachineFingerprint {
            firmware: "0".repeat(32),
            memory: 1,
            ..saved.clone()
        };
        let what: Vec<_> = saved
            .mismatches(&now)
            .iter()
            .map(|mismatch| mismatch.what)
            .collect();
        assert_eq!(what, ["memory", "firmware"]);
    }

    #[test]
    fn fields_are_short_and_plain() {
        assert_eq!(field("cortex-a15 x 2"), "cortex-a15 x 2");
        assert_eq!(field("a;b\nc\u{e9}"), "a_b_c_");
        assert_eq!(field(&"m".repeat(100)).len(), MAX_FIELD);
    }
}
