//! The ELF files of a session: opened at the start, read when they are first asked, off the runtime's
//! thread.

use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use firmware_info::{Firmware, OpenError, Symbol, SymbolOffset};
#[cfg(feature = "debugger")]
use tokio::runtime::Handle;

use crate::guest::memory::MemoryError;
use crate::session::Session;

/// The session knows no ELF file that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// The session knows no ELF file.
    #[error("no ELF file is known to take symbols from; name one by `QemuConfig::symbols`")]
    NoFile,
    /// It cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// An ELF file as it was at the start, even if another takes its place; the first of a session has
/// the others.
#[derive(Debug, Default)]
pub(crate) struct ElfFile {
    /// Until it is first asked.
    file: Mutex<Option<File>>,
    firmware: OnceLock<Arc<Firmware>>,
    /// Its symbol table is in memory: looking an address up takes microseconds.
    is_read: OnceLock<()>,
    more: Vec<ElfFile>,
}

impl ElfFile {
    pub(crate) fn new(file: Option<File>) -> Self {
        Self {
            file: Mutex::new(file),
            ..Self::default()
        }
    }

    /// What there is instead of a file, in memory already.
    #[cfg(feature = "debugger")]
    pub(crate) fn known(firmware: Firmware) -> Self {
        Self {
            firmware: OnceLock::from(Arc::new(firmware)),
            ..Self::default()
        }
    }

    /// The first of these has the others; of none it is one that is not known.
    pub(crate) fn of(files: Vec<Option<File>>) -> Self {
        let mut files = files.into_iter();
        let first = files.next().flatten();
        Self {
            more: files.map(Self::new).collect(),
            ..Self::new(first)
        }
    }

    /// This one and the others, as far as they can be read.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<Firmware>> {
        let files = std::iter::once(self).chain(&self.more);
        files.filter_map(|file| file.firmware().ok())
    }

    /// The file that knows what is at an address.
    #[cfg(feature = "source")]
    pub(crate) fn at(&self, address: u64) -> Option<&Arc<Firmware>> {
        self.each().find(|file| file.symbol_at(address).is_some())
    }

    /// Asks this one and the others something, off the runtime's thread.
    #[cfg(feature = "debugger")]
    pub(crate) async fn ask_each<T: Send + 'static>(
        self: &Arc<Self>,
        runtime: &Handle,
        question: impl Fn(&Firmware) -> T + Send + 'static,
    ) -> Vec<T> {
        let elf = Arc::clone(self);
        let asking = move || elf.each().map(|file| question(file)).collect();
        let answered = runtime.spawn_blocking(asking).await;
        answered.unwrap_or_default()
    }

    fn symbol_at(&self, address: u64) -> Option<SymbolOffset> {
        self.each().find_map(|file| file.symbol_at(address))
    }

    pub(crate) fn firmware(&self) -> Result<&Arc<Firmware>, SymbolsError> {
        if let Some(firmware) = self.firmware.get() {
            return Ok(firmware);
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(firmware) = self.firmware.get() {
            return Ok(firmware);
        }
        // It is kept for the next who asks, should it be none that can be read.
        let copy = file.as_ref().ok_or(SymbolsError::NoFile)?.try_clone();
        let firmware = Firmware::from_file(copy.map_err(OpenError::from)?)?;
        Ok(self.firmware.get_or_init(|| Arc::new(firmware)))
    }
}

impl Session {
    /// What the ELF file tells that the session was started with: symbols, and with the feature
    /// `source` lines and the rest of [`firmware_info`]. It is opened at the first call, and each
    /// table is read by the first question that needs it, which for a file of 100 MB takes a
    /// second: ask from a thread that may wait.
    ///
    /// # Errors
    /// [`SymbolsError`]; a session that was attached knows no file. Of several
    /// ([`QemuConfig::symbols`](crate::QemuConfig::symbols)) it is the first.
    pub fn firmware_info(&self) -> Result<&Arc<Firmware>, SymbolsError> {
        self.inner.firmware.firmware()
    }

    /// Asks the ELF file something, off the runtime's thread.
    pub(crate) async fn ask_firmware<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Firmware) -> T + Send + 'static,
    ) -> Result<T, SymbolsError> {
        let elf = Arc::clone(&self.inner.firmware);
        let asking = move || {
            let answer = question(elf.firmware()?);
            elf.is_read.get_or_init(|| ());
            Ok(answer)
        };
        let answered = self.inner.shared.runtime.spawn_blocking(asking).await;
        // Otherwise the runtime is shut down, or the question panicked.
        answered.unwrap_or(Err(SymbolsError::NoFile))
    }

    /// Asks each ELF file that can be read something, off the runtime's thread.
    #[cfg(feature = "debugger")]
    pub(crate) async fn ask_each<T: Send + 'static>(
        &self,
        question: impl Fn(&Firmware) -> T + Send + 'static,
    ) -> Vec<T> {
        let runtime = &self.inner.shared.runtime;
        self.inner.firmware.ask_each(runtime, question).await
    }

    /// The only ELF file, where its symbol table is in memory.
    fn read_firmware(&self) -> Option<&Firmware> {
        let elf = &self.inner.firmware;
        elf.is_read.get().filter(|()| elf.more.is_empty())?;
        elf.firmware.get().map(Arc::as_ref)
    }

    /// The symbol of a name, of the first file that knows it.
    pub(crate) async fn symbol(&self, name: &str) -> Result<Symbol, MemoryError> {
        let known = self.read_firmware();
        if let Some(symbol) = known.and_then(|firmware| firmware.raw_symbol(name)) {
            return Ok(symbol);
        }
        let (wanted, elf) = (name.to_owned(), Arc::clone(&self.inner.firmware));
        let symbol = self.ask_firmware(move |firmware| {
            let of_first = firmware.symbol(&wanted);
            let mut others = elf.each().skip(1);
            of_first.or_else(|error| {
                others
                    .find_map(|file| file.symbol(&wanted).ok())
                    .ok_or(error)
            })
        });
        Ok(symbol.await??)
    }

    /// The symbol that an address of code is in, where the firmware's symbols are known.
    pub(crate) async fn place(&self, address: u64) -> Option<SymbolOffset> {
        match self.read_firmware() {
            Some(firmware) => firmware.symbol_at(address),
            None => {
                let elf = Arc::clone(&self.inner.firmware);
                let place = self.ask_firmware(move |_| elf.symbol_at(address));
                place.await.ok()?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_ask_for_the_symbols_at_once_get_them() {
        // A large one, so that they meet while they read.
        let path = std::env::current_exe().unwrap();
        let alone = Firmware::open(&path).unwrap().symbols().count();
        let elf = ElfFile::new(Some(File::open(path).unwrap()));
        let asked = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    asked.wait();
                    assert_eq!(elf.firmware().unwrap().symbols().count(), alone);
                });
            }
        });
    }
}
