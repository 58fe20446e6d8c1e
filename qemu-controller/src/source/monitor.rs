//! A look through the human monitor: for a guest that has no debugger of ours, or cannot have one.

use std::sync::Arc;

use qemu_launch::DumpedRegisters;
use tokio::runtime::Handle;

use super::look::{self, Core, ReadMemory, SYSTEM};
use super::registers;
use super::report::CoreReport;
use crate::client::transaction::{Transaction, UNATTENDED_DEADLINE};
use crate::cores::CoreName;
use crate::guest::examine::{self, Examiner};
use crate::guest::symbols::ElfFile;
use crate::session::Session;

/// More cores than are looked at.
const MOST_CORES: usize = 64;

/// Looks at each of these cores, by its registers; the guest is stopped. One that no file is for is
/// left out.
pub(crate) async fn look_at_cores(
    transaction: &Transaction,
    elf: &Arc<ElfFile>,
    cores: &[(CoreName, DumpedRegisters)],
    runtime: &Handle,
) -> Vec<CoreReport> {
    let mut reports = Vec::new();
    for (name, all) in cores.iter().take(MOST_CORES) {
        let dumped = all.clone();
        let get = move |name: &str| dumped.register(name);
        let Some((firmware, registers)) = registers::with_file(elf, get, runtime).await else {
            continue;
        };
        let system = SYSTEM.into_iter();
        let core = Core {
            name: name.clone(),
            registers,
            system: system
                .filter_map(|name| Some((name, all.register(name)?)))
                .collect(),
            at_fault: None,
            interrupted: Vec::new(),
            panicked_in: None,
        };
        let memory = &mut Examiner {
            shared: transaction.shared(),
            deadline: UNATTENDED_DEADLINE,
            core: name.number,
        };
        reports.push(look::look(elf, &firmware, core, memory, runtime).await);
    }
    reports
}

impl Session {
    /// Reports of a look through the monitor, which does not tell PSP; where a thread's stack is needed
    /// for them QEMU's stub is asked, which tells it since 8.1.
    pub(crate) async fn with_thread_stacks(&self, cores: Vec<CoreReport>) -> Vec<CoreReport> {
        let qemu = self.qemu_version();
        let is_told = (qemu.major, qemu.minor) >= (8, 1);
        match is_told && cores.iter().any(CoreReport::lacks_psp) {
            true => self.core_reports().await.unwrap_or(cores),
            false => cores,
        }
    }
}

impl ReadMemory for Examiner<'_> {
    async fn read(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        let numbers = self.examine(address, length as u64, 'b').await;
        numbers.ok().map(examine::bytes)
    }
}
