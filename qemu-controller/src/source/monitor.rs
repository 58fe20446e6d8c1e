//! A look through the human monitor: for a guest that has no debugger of ours, or cannot have one.

use std::sync::Arc;

use qemu_launch::DumpedRegisters;
use qmp_proto::commands::HumanMonitorCommand;
use tokio::runtime::Handle;

use super::look::{self, Core, ReadMemory, SYSTEM};
use super::registers;
use super::report::CoreReport;
use crate::client::transaction::Transaction;
use crate::guest::memory::values;
use crate::guest::symbols::ElfFile;

/// More cores than are looked at.
const MOST_CORES: usize = 64;

/// Looks at each core, by the text of `info registers -a`; the guest is stopped.
pub(crate) async fn look_at_cores(
    transaction: &Transaction,
    elf: &Arc<ElfFile>,
    text: &str,
    runtime: &Handle,
) -> Vec<CoreReport> {
    let mut reports = Vec::new();
    let opened = Arc::clone(elf);
    let opening = runtime.spawn_blocking(move || opened.firmware().map(Arc::clone));
    let Ok(Ok(firmware)) = opening.await else {
        return reports;
    };
    let cores = text.split("CPU#").skip(1).take(MOST_CORES);
    for (number, text) in cores.enumerate() {
        let all = DumpedRegisters::parse(text);
        let known = registers::of(firmware.architecture(), |name| all.register(name));
        let Some(registers) = known else { continue };
        let system = SYSTEM.into_iter();
        let core = Core {
            number,
            registers,
            system: system
                .filter_map(|name| Some((name, all.register(name)?)))
                .collect(),
            at_fault: None,
            interrupted: Vec::new(),
            panicked_in: None,
        };
        let memory = &mut MonitorMemory {
            transaction,
            core: number,
        };
        reports.push(look::look(elf, &firmware, core, memory, runtime).await);
    }
    reports
}

/// The guest's memory as a core sees it.
struct MonitorMemory<'a> {
    transaction: &'a Transaction,
    core: usize,
}

impl ReadMemory for MonitorMemory<'_> {
    async fn read(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        let bytes = match self.examine("x", address, length).await {
            // QEMU 10.0 extends the sign of such an address, and finds nothing there.
            None if address >= 1 << 31 => self.examine("xp", address, length).await?,
            bytes => bytes?,
        };
        (bytes.len() == length).then(|| bytes.into_iter().map(|byte| byte as u8).collect())
    }
}

impl MonitorMemory<'_> {
    async fn examine(&self, verb: &str, address: u64, length: usize) -> Option<Vec<u64>> {
        let line = format!("{verb} /{length}bx {address:#x}");
        let mut command = HumanMonitorCommand::new(&line);
        command.cpu_index = i64::try_from(self.core).ok();
        let text = self.transaction.command(&command).await.ok()?;
        values(&text).ok()
    }
}
