//! Where the cores are and how they came there: backtraces and reports of a stopped guest.

use std::sync::Arc;

use firmware_info::{Backtrace, Firmware};
use gdb_remote::client::Reply;

use super::Debugger;
use super::attach::Place;
use super::error::DebugError;
use super::vectors::Family;
use crate::cores::CoreName;
use crate::session::Session;
use crate::source::look::{self, Core, ReadMemory, SYSTEM};
use crate::source::registers;
use crate::source::report::CoreReport;

/// What a guest has stopped for.
#[derive(Default)]
pub(crate) struct Cause {
    /// It is at the first instruction of this fault's handler.
    pub(crate) fault: Option<&'static str>,
    /// It is at the first instruction of this function, which a panic comes to.
    pub(crate) panic: Option<String>,
}

impl Debugger {
    /// The frames of the current thread, innermost first, and why there are no more: functions,
    /// lines and inlined functions, on a Cortex-M through exceptions. What was guessed says so.
    ///
    /// Of a firmware without an ELF file they are addresses, and a caller is where the link
    /// register points.
    ///
    /// On QEMU before 8.1, which does not tell PSP, it ends at an exception that came from a
    /// thread's stack.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn backtrace(&mut self) -> Result<Backtrace, DebugError> {
        let _verb = self.begin("backtrace").await?;
        // Of a backtrace nobody asks for the core's name.
        let (firmware, core) = self.core(CoreName::default(), Cause::default()).await?;
        let runtime = self.attachment.shared.runtime.clone();
        let elf = self.elf().await;
        let memory = &mut StubMemory(self);
        Ok(look::backtrace(&elf, &firmware, core.registers, memory, &runtime).await)
    }

    /// Of each thread (with QEMU, each core) where it is, how it came there, and why it faulted if
    /// it is in the handler of a fault. The current thread is the same afterwards.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn core_reports(&mut self) -> Result<Vec<CoreReport>, DebugError> {
        let _verb = self.begin("look at the cores").await?;
        let names = self.core_names().await?;
        let mut reports = Vec::new();
        for core in self.tour() {
            self.visit(core).await?;
            let name = self.core_name(&names);
            let (firmware, core) = self.core(name, Cause::default()).await?;
            reports.push(self.report(&firmware, core).await);
        }
        self.attachment.select_back(self.session.deadline).await?;
        Ok(reports)
    }

    /// Of the thread that has just stopped.
    pub(crate) async fn report_of_stop(&mut self, cause: Cause) -> Result<CoreReport, DebugError> {
        let mut verb = self.begin("look at the core").await?;
        let name = self.core_name(&self.core_names().await?);
        let (firmware, mut core) = self.core(name, cause).await?;
        if let Some(fault) = core.at_fault {
            let architecture = firmware.architecture();
            self.fault_registers(&mut core).await?;
            core.interrupted = self
                .interrupted(architecture, &core.registers, fault, &mut verb)
                .await?;
        }
        Ok(self.report(&firmware, core).await)
    }

    async fn report(&mut self, firmware: &Arc<Firmware>, core: Core) -> CoreReport {
        let runtime = self.attachment.shared.runtime.clone();
        let elf = self.elf().await;
        look::look(&elf, firmware, core, &mut StubMemory(self), &runtime).await
    }

    /// What the level or mode that the fault was taken to has of it.
    async fn fault_registers(&self, core: &mut Core) -> Result<(), DebugError> {
        let level = self.exception_level().await?;
        let registers = match self.family() {
            Some(Family::RiscV) if !self.is_machine_mode().await? => {
                vec![
                    ("scause", "scause".to_owned()),
                    ("stval", "stval".to_owned()),
                ]
            }
            Some(Family::Aarch64) => {
                vec![
                    ("ESR", format!("ESR_EL{level}")),
                    ("FAR", format!("FAR_EL{level}")),
                ]
            }
            _ => Vec::new(),
        };
        for (name, stub_name) in registers {
            if let Some(value) = self.system_register(&stub_name).await? {
                core.system.push((name, value));
            }
        }
        Ok(())
    }

    async fn core_names(&self) -> Result<Vec<CoreName>, DebugError> {
        let names = CoreName::all(&self.attachment.shared, self.session.deadline);
        Ok(names.await?)
    }

    /// Which of these the current thread's core is.
    fn core_name(&self, names: &[CoreName]) -> CoreName {
        let number = self.current_core();
        let name = names.get(number).cloned();
        name.unwrap_or(CoreName::numbered(number))
    }

    /// The current thread's core, which has this name, and the file whose code it runs.
    async fn core(
        &mut self,
        name: CoreName,
        cause: Cause,
    ) -> Result<(Arc<Firmware>, Core), DebugError> {
        let general = self.registers().await?;
        let mut system = Vec::new();
        for name in SYSTEM.into_iter().chain(["msp", "psp"]) {
            if let Some(register) = self.target().register(name).cloned() {
                system.push((name, self.value(&register).await?));
            }
        }
        let also = system.clone();
        let get = move |name: &str| {
            let mut known = also.iter().filter(|(known, _)| *known == name);
            general
                .get(name)
                .or_else(|| known.next().map(|(_, value)| *value))
        };
        let elf = self.elf().await;
        let found = registers::with_file(&elf, get, &self.attachment.shared.runtime).await;
        let (firmware, registers) = found.ok_or(DebugError::OtherArchitecture)?;
        let core = Core {
            name,
            registers,
            system,
            at_fault: cause.fault,
            interrupted: Vec::new(),
            panicked_in: cause.panic,
        };
        Ok((firmware, core))
    }
}

impl Session {
    /// As [`Debugger::core_reports`], by a debugger that is gone afterwards: the guest is as it was.
    pub(crate) async fn core_reports(&self) -> Result<Vec<CoreReport>, DebugError> {
        let mut debugger = self.debugger().await?;
        let reports = debugger.core_reports().await;
        drop(debugger);
        // Once its place is free its stub is gone, and the guest runs if it did.
        drop(Place::take(self.inner.shared.share(), self.deadline).await);
        reports
    }
}

/// The guest's memory through the stub.
struct StubMemory<'a>(&'a Debugger);

impl ReadMemory for StubMemory<'_> {
    async fn read(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        let asked = self.0.ask("reading memory", |client| {
            client.read_memory(address, length)
        });
        match asked.await {
            Ok(Reply::Bytes(bytes)) if bytes.len() == length => Some(bytes),
            Err(DebugError::Refused { .. }) => self.0.untranslated(address, length).await.ok()?,
            _ => None,
        }
    }
}
