//! Memory as a core sees it, by the human monitor's `x`; and what `x` does not find though it is
//! there.

use std::time::Duration;

use qmp_proto::commands::{HumanMonitorCommand, QueryCpusFast};

use super::memory::MemoryError;
use crate::client::Shared;
use crate::client::command::command;
use crate::cores::{cpu_model, qom_type};
use crate::error::CommandError;

/// The least page of any memory management unit.
const PAGE: u64 = 1024;

/// Reads a core's memory.
pub(crate) struct Examiner<'a> {
    pub(crate) shared: &'a Shared,
    /// Of each command.
    pub(crate) deadline: Duration,
    /// The core's number.
    pub(crate) core: usize,
}

impl Examiner<'_> {
    /// So many numbers of this size (`b`, `h`, `w`, `g`), as the core sees them.
    pub(crate) async fn examine(
        &self,
        address: u64,
        count: u64,
        size: char,
    ) -> Result<Vec<u64>, MemoryError> {
        let found = match self.numbers("x", address, count, size).await {
            Err(MemoryError::Unmapped { address: at }) if is_sign_extended(at) => {
                self.examine_by_page(address, count, size).await
            }
            found => found,
        };
        let Err(MemoryError::Unmapped { .. }) = found else {
            return found;
        };
        let untranslated = self.examine_untranslated(address, count, size).await?;
        untranslated.map_or(found, Ok)
    }

    /// The same where a core has an MPU at most, so that its addresses are the physical ones;
    /// nothing of other cores.
    ///
    /// QEMU asks the MPU about a page by its first address alone, 1 KiB on a Cortex-M: where a
    /// guard of 32 bytes begins one, neither its monitor nor its stub reads the rest (QEMU's issue
    /// 2697, seen with 7.2 and 10.0).
    pub(crate) async fn examine_untranslated(
        &self,
        address: u64,
        count: u64,
        size: char,
    ) -> Result<Option<Vec<u64>>, MemoryError> {
        match self.has_mmu().await? {
            true => Ok(None),
            false => self.numbers("xp", address, count, size).await.map(Some),
        }
    }

    async fn has_mmu(&self) -> Result<bool, CommandError> {
        let cpus = command(self.shared, self.deadline, &QueryCpusFast).await?;
        let Some(cpu) = cpus.get(self.core) else {
            return Ok(true);
        };
        let core = qom_type(self.shared, self.deadline, &cpu.qom_path).await?;
        let model = cpu_model(&core);
        Ok(!["cortex-m", "cortex-r"]
            .iter()
            .any(|kind| model.starts_with(kind)))
    }

    /// The same by physical addresses, as QEMU translates those of the core.
    async fn examine_by_page(
        &self,
        address: u64,
        count: u64,
        size: char,
    ) -> Result<Vec<u64>, MemoryError> {
        let width = width(size);
        let mut numbers = Vec::new();
        while (numbers.len() as u64) < count {
            let at = address + numbers.len() as u64 * width;
            let rest = PAGE - at % PAGE;
            let physical = self.physical(at).await?;
            if rest < width && self.physical(at + rest).await? != physical + rest {
                // One number in two places.
                return Err(MemoryError::Unmapped { address: at + rest });
            }
            let here = (rest / width).clamp(1, count - numbers.len() as u64);
            let read = self.numbers("xp", physical, here, size).await;
            numbers.extend(read.map_err(|error| match error {
                MemoryError::Unmapped { address } => MemoryError::Unmapped {
                    address: at + address.saturating_sub(physical),
                },
                other => other,
            })?);
        }
        Ok(numbers)
    }

    /// Where the core's address is in physical memory.
    async fn physical(&self, address: u64) -> Result<u64, MemoryError> {
        let text = self.monitor(&format!("gva2gpa {address:#x}")).await?;
        // Otherwise it says "Unmapped".
        let physical = text.trim_end().strip_prefix("gpa: 0x");
        physical
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or(MemoryError::Unmapped { address })
    }

    /// So many numbers of this size, as `x` or `xp` shows them.
    async fn numbers(
        &self,
        verb: &str,
        address: u64,
        count: u64,
        size: char,
    ) -> Result<Vec<u64>, MemoryError> {
        let line = format!("{verb} /{count}{size}x {address:#x}");
        let text = self.monitor(&line).await?;
        let values = values(&text)?;
        if values.len() as u64 == count {
            Ok(values)
        } else {
            Err(no_memory(&text))
        }
    }

    async fn monitor(&self, line: &str) -> Result<String, CommandError> {
        let mut line = HumanMonitorCommand::new(line);
        line.cpu_index = i64::try_from(self.core).ok();
        command(self.shared, self.deadline, &line).await
    }
}

/// Numbers of one byte as bytes.
pub(crate) fn bytes(numbers: Vec<u64>) -> Vec<u8> {
    numbers.into_iter().map(|byte| byte as u8).collect()
}

/// Whether QEMU 10.0 may not have found what is at this address: on 32-bit targets it extends the
/// sign of the address that `x` gets.
fn is_sign_extended(address: u64) -> bool {
    (0x8000_0000..=0xffff_ffff).contains(&address)
}

/// The bytes of one number, by the letter that the human monitor has for them.
fn width(size: char) -> u64 {
    match size {
        'b' => 1,
        'h' => 2,
        'w' => 4,
        _ => 8,
    }
}

fn no_memory(answer: &str) -> MemoryError {
    MemoryError::Failed {
        message: format!("QEMU's answer is no memory: {answer}"),
    }
}

/// Reads lines of the form `20000000: 0x0a 0x0b`.
fn values(text: &str) -> Result<Vec<u64>, MemoryError> {
    let mut values = Vec::new();
    for line in text.lines() {
        let not_memory = || no_memory(line);
        let (address, row) = line.split_once(": ").ok_or_else(not_memory)?;
        if row.starts_with("Cannot access memory") {
            let address = u64::from_str_radix(address, 16).map_err(|_| not_memory())?;
            return Err(MemoryError::Unmapped { address });
        }
        for word in row.split_whitespace() {
            let digits = word.strip_prefix("0x").ok_or_else(not_memory)?;
            values.push(u64::from_str_radix(digits, 16).map_err(|_| not_memory())?);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_human_monitor() {
        assert_eq!(
            values("20000000: 0x4d 0x42\r\n20000002: 0x1a\r\n").unwrap(),
            [0x4d, 0x42, 0x1a]
        );
        let unmapped = values("2000fff8: 0x00\r\n20010000: Cannot access memory\r\n").unwrap_err();
        assert!(
            matches!(
                unmapped,
                MemoryError::Unmapped {
                    address: 0x2001_0000
                }
            ),
            "{unmapped}"
        );
        for text in ["garbage", "20000000: garbage", "2000: 0x", "Error: no"] {
            assert!(
                matches!(values(text), Err(MemoryError::Failed { .. })),
                "{text}"
            );
        }
    }
}
