//! The firmware's semihosting calls, answered by this program instead of QEMU: its command line,
//! what it prints, its exit, and whatever else a caller wants to answer itself.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use qemu_controller::semihosting::{Event, Request};
//! # async fn example(session: qemu_controller::Session) -> Result<(), Box<dyn std::error::Error>> {
//! let mut host = session.semihosting_host().await?;
//! loop {
//!     match host.next(Duration::from_secs(5)).await? {
//!         Event::Call(call) => match &call.request {
//!             Request::CommandLine { .. } => host.answer_command_line(&call, "app --fast").await?,
//!             Request::Print(text) => print!("{}", String::from_utf8_lossy(text)),
//!             Request::Exit { status } => break println!("exit with {status}"),
//!             _ => {} // what is not answered, QEMU serves
//!         },
//!         Event::Stopped(why) => break println!("{why}"),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! How: a breakpoint at each semihosting instruction of the firmware's ELF file stops the guest
//! before the call is made. So the exit does not end QEMU, and a machine whose firmware has exited
//! can be loaded back to any snapshot; and a machine that was started without
//! [semihosting](crate::QemuConfig::semihosting) reaches this program alone. A call costs some
//! 0.5 ms of the host's time, the guest's clock is stopped meanwhile.
//!
//! | architecture | the instruction |
//! |---|---|
//! | Cortex-M | `bkpt #0xab` |
//! | other 32-bit ARM | `svc #0x123456`, `hlt #0xf000`; in Thumb `svc #0xab`, `hlt #0x3c` |
//! | AArch64 | `hlt #0xf000` |
//! | RISC-V | `slli x0, x0, 0x1f; ebreak; srai x0, x0, 7` |

mod call;
mod console;
mod sites;

use std::time::Duration;

use firmware_info::Firmware;

pub use call::{Call, Request};
pub use console::Printed;

use crate::client::command::instant_after;
use crate::debug::{Arrival, DebugError, Debugger, Registers, Stop, Write};
use crate::guest::symbols::SymbolsError;
use crate::session::Session;
use call::Convention;

/// Answers the firmware's semihosting calls; from [`Session::semihosting_host`].
///
/// It has the session's debugger, and drops it: nothing of it is left afterwards, and QEMU itself
/// serves what it is configured to.
#[derive(Debug)]
pub struct Host {
    debugger: Debugger,
    sites: Vec<u64>,
    /// The sites, and where else it is to stop.
    stops: Vec<u64>,
}

/// What a guest did next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// It makes a call, and waits for the answer.
    Call(Call),
    /// It is about to execute this instruction, one of those that [`Host::stop_at`] was given.
    Reached(u64),
    /// It stopped for another reason: the deadline passed, somebody paused it, it has ended.
    Stopped(Stop),
}

/// Why the calls cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The firmware's ELF file has no semihosting instruction.
    #[error("the firmware has no semihosting instruction of {0}")]
    NoCalls(&'static str),
    /// The firmware's ELF file cannot be read.
    #[error(transparent)]
    Firmware(#[from] SymbolsError),
    /// The guest's architecture has no semihosting that is known here.
    #[error("no semihosting calls of the architecture '{0}' are known")]
    UnknownArchitecture(String),
    /// The command line has more bytes than the firmware's buffer.
    #[error("the firmware has room for {room} bytes of its command line, and it has {length}")]
    CommandLine {
        /// The buffer's size, the zero at the end not counted.
        room: u64,
        /// The command line's.
        length: usize,
    },
    /// The debugger could not do it.
    #[error(transparent)]
    Debug(#[from] DebugError),
}

impl Session {
    /// Opens a [debugger](Self::debugger) that answers the firmware's semihosting calls. **This
    /// stops a running guest**, which makes no call before [`Host::next`] lets it run. To see the
    /// first call too, start the machine [paused](crate::QemuConfig::start_paused).
    ///
    /// # Errors
    /// [`HostError`]; the guest goes on as it was.
    pub async fn semihosting_host(&self) -> Result<Host, HostError> {
        let debugger = self.debugger().await?;
        let conventions = Convention::all(&debugger)?;
        let name = conventions[0].name;
        let sites = self.sites(conventions).await?;
        if sites.is_empty() {
            return Err(HostError::NoCalls(name));
        }
        Ok(Host {
            debugger,
            stops: sites.clone(),
            sites,
        })
    }

    /// The addresses of the semihosting instructions of all ELF files, those of its architecture in
    /// each.
    async fn sites(&self, conventions: Vec<Convention>) -> Result<Vec<u64>, SymbolsError> {
        // What is known of none is an error.
        self.ask_firmware(|_| ()).await?;
        let find = move |firmware: &Firmware| {
            let fitting = conventions
                .iter()
                .filter(|convention| convention.architecture == firmware.architecture());
            let instructions: Vec<_> = fitting
                .flat_map(|convention| convention.instructions)
                .copied()
                .collect();
            sites::find(firmware, &instructions)
        };
        let mut sites = self.ask_each(find).await.concat();
        sites.sort_unstable();
        sites.dedup();
        Ok(sites)
    }
}

#[cfg(feature = "source")]
impl Session {
    /// The addresses of the firmware's semihosting instructions; none where none are known.
    pub(crate) async fn semihosting_sites(&self, debugger: &Debugger) -> Vec<u64> {
        match Convention::all(debugger) {
            Ok(conventions) => self.sites(conventions).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(feature = "bundle")]
impl Debugger {
    /// The status that a guest which is stopped at one of its calls is about to exit with, if that
    /// is what it asks for.
    pub(crate) async fn status_of_exit(&mut self) -> Option<u8> {
        let convention = Convention::current(self).ok()?;
        let operation = self.read_register(convention.result).await.ok()?;
        if !matches!(operation & 0xffff_ffff, call::EXIT | call::EXIT_EXTENDED) {
            return None;
        }
        let registers = self.read_registers().await.ok()?;
        let pc = registers.get("pc")?;
        let call = call::read(self, pc, &registers).await.ok()?;
        match call.request {
            Request::Exit { status } => Some(status),
            _ => None,
        }
    }
}

impl Host {
    /// The addresses of the semihosting instructions that were found.
    #[must_use]
    pub fn sites(&self) -> &[u64] {
        &self.sites
    }

    /// The debugger, to look at a guest that waits for an answer.
    pub fn debugger(&mut self) -> &mut Debugger {
        &mut self.debugger
    }

    /// Lets the guest run until its next call. A call that was not answered is left to QEMU, which
    /// serves it as [configured](crate::QemuConfig::semihosting).
    ///
    /// # Errors
    /// [`HostError::Debug`].
    pub async fn next(&mut self, deadline: Duration) -> Result<Event, HostError> {
        let at = instant_after(deadline);
        match self.debugger.run_to_standing(&self.stops, at).await? {
            Arrival::At { pc, .. } if !self.sites.contains(&pc) => Ok(Event::Reached(pc)),
            Arrival::At { pc, registers } => Ok(Event::Call(self.call(pc, &registers).await?)),
            Arrival::Elsewhere(stop) => Ok(Event::Stopped(stop)),
        }
    }

    /// Stops before these instructions too, with [`Event::Reached`]; the next
    /// [`next`](Self::next) goes on from there.
    pub fn stop_at(&mut self, addresses: impl IntoIterator<Item = u64>) {
        self.stops.extend(addresses);
    }

    /// Stops before these no more.
    #[cfg(feature = "tests")]
    pub(crate) async fn pass(&mut self, addresses: &[u64]) -> Result<(), HostError> {
        self.stops.retain(|stop| !addresses.contains(stop));
        Ok(self.debugger.remove_standing(addresses).await?)
    }

    /// The call that a stopped guest is about to make, if it is at one: after a load, or in a
    /// machine that [began](Session::start_from) there.
    ///
    /// # Errors
    /// [`HostError::Debug`].
    pub async fn current(&mut self) -> Result<Option<Call>, HostError> {
        let registers = self.debugger.read_registers().await?;
        let pc = registers.get("pc").unwrap_or_default();
        match self.sites.contains(&pc) {
            true => Ok(Some(self.call(pc, &registers).await?)),
            false => Ok(None),
        }
    }

    async fn call(&mut self, pc: u64, registers: &Registers) -> Result<Call, HostError> {
        call::read(&mut self.debugger, pc, registers).await
    }

    /// Returns this value to the firmware, which goes on behind the call with the next
    /// [`next`](Self::next). A call can be answered again after a snapshot that was saved at it
    /// was loaded.
    ///
    /// # Errors
    /// [`HostError::Debug`].
    pub async fn answer(&mut self, call: &Call, value: i64) -> Result<(), HostError> {
        self.answer_with(&[], call, value).await
    }

    /// The same, with what is to be in memory then.
    async fn answer_with(
        &mut self,
        memory: &[Write<'_>],
        call: &Call,
        value: i64,
    ) -> Result<(), HostError> {
        let Convention { result, word, .. } = call.convention;
        if let Some(thread) = call.thread
            && self.debugger.thread() != call.thread
        {
            self.debugger.select_thread(thread).await?;
        }
        let value = match word {
            4 => u64::from(value as u32),
            _ => value as u64,
        };
        let registers = [
            Write::Register(result, value),
            Write::Register("pc", call.after),
        ];
        let writes = [memory, &registers].concat();
        Ok(self.debugger.write_all(&writes).await?)
    }

    /// Answers [`Request::CommandLine`].
    ///
    /// # Errors
    /// [`HostError::CommandLine`], with the call not answered; [`HostError::Debug`].
    pub async fn answer_command_line(&mut self, call: &Call, line: &str) -> Result<(), HostError> {
        let Request::CommandLine { buffer, size } = call.request else {
            return self.answer(call, -1).await;
        };
        if line.len() as u64 >= size {
            let (room, length) = (size.saturating_sub(1), line.len());
            return Err(HostError::CommandLine { room, length });
        }
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(0);
        let Convention { word, .. } = call.convention;
        let length = call
            .convention
            .encode(line.len() as u64, self.debugger.is_big_endian());
        let second = call.parameter.wrapping_add(word as u64);
        let memory = [
            Write::Memory(buffer, &bytes),
            Write::Memory(second, &length),
        ];
        self.answer_with(&memory, call, 0).await
    }

    /// Answers [`Request::Read`] with these bytes, as many as the firmware has room for; none are
    /// the end of the file.
    ///
    /// # Errors
    /// [`HostError::Debug`].
    pub async fn answer_read(&mut self, call: &Call, bytes: &[u8]) -> Result<(), HostError> {
        let Request::Read { buffer, size, .. } = call.request else {
            return self.answer(call, -1).await;
        };
        let bytes = &bytes[..bytes.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
        let memory = match bytes.is_empty() {
            true => &[][..],
            false => &[Write::Memory(buffer, bytes)],
        };
        // The call returns how many bytes are missing.
        let missing = (size - bytes.len() as u64).cast_signed();
        self.answer_with(memory, call, missing).await
    }
}
