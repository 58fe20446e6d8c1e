//! The guest's memory by symbol or address, read while the guest runs.

use std::time::Duration;

use firmware_info::NameError;
use tokio::time::{Instant, sleep_until};

use super::examine::{self, Examiner};
use crate::client::command::instant_after;
use crate::error::CommandError;
use crate::guest::symbols::SymbolsError;
use crate::session::Session;

/// How many bytes one command reads: QEMU answers in a millisecond, and serves others in between.
const CHUNK: u64 = 4096;

/// The pauses between two reads of a variable that is waited for grow from this …
const FIRST_PAUSE: Duration = Duration::from_micros(500);

/// … to this: a read takes 0.1 ms of QEMU's main loop.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// A Cortex-M's register that says where its vector table is.
const VTOR: u64 = 0xe000_ed08;

/// A place in the guest's memory: a symbol's name, or an address as the program sees it. A name is
/// the file's, or with the feature `source` the source's: `crate::module::NAME`, or the end of that
/// (`NAME`) where only one symbol has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location<'a> {
    /// Where this symbol is.
    Symbol(&'a str),
    /// This address.
    Address(u64),
}

impl<'a> From<&'a str> for Location<'a> {
    fn from(name: &'a str) -> Self {
        Self::Symbol(name)
    }
}

impl From<u64> for Location<'_> {
    fn from(address: u64) -> Self {
        Self::Address(address)
    }
}

/// Why memory was not read, where nothing has changed, or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The firmware's symbols cannot be read.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// The firmware has no symbol of this name, or several; it says which are similar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing is there.
    #[error("there is no memory at {address:#x}")]
    Unmapped {
        /// The first address of the row of bytes that could not be read.
        address: u64,
    },
    /// The address is beyond what an address can be.
    #[error("{len} bytes from {address:#x} on are more than there can be")]
    OutOfRange {
        /// Where it was to begin.
        address: u64,
        /// How many bytes were wanted.
        len: u64,
    },
    /// The session was attached: no monitor command writes memory, and a debugger's write stops the
    /// guest.
    #[error("an attached session cannot write memory while the guest runs; a debugger can")]
    NotWritable,
    /// It is there, and writing it changes nothing: flash or another memory that is read-only.
    #[error("the memory at {address:#x} did not change: it is read-only")]
    ReadOnly {
        /// The first address of the piece that did not change.
        address: u64,
    },
    /// QEMU did not answer in time; it may still write.
    #[error("QEMU did not write memory within {deadline:?}")]
    WriteDeadline {
        /// The deadline.
        deadline: Duration,
    },
    /// The value that was waited for did not come in time.
    #[error("the value at {place} was {value:#x} and not what was waited for within {deadline:?}")]
    ValueDeadline {
        /// The symbol's name, or the address.
        place: String,
        /// The last value that was read.
        value: u64,
        /// The deadline.
        deadline: Duration,
    },
    /// QEMU could not be asked.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The way to QEMU by which memory is written is broken, mostly because it has ended; or QEMU
    /// answered with something else than memory.
    #[error("{message}")]
    Failed {
        /// What failed, and why or what QEMU said.
        message: String,
    },
}

/// The guest's memory.
impl Session {
    /// Reads the guest's memory, by symbol or by address as core 0 sees it, or
    /// [another](Self::with_core), without stopping the guest (the human monitor's `x`; some 2 MB/s).
    /// What the guest writes meanwhile may be in it by half: [`pause`](Self::pause) it for a picture
    /// of one moment. A device's registers are read as well, and a device may take a read for a
    /// request.
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), qemu_controller::MemoryError> {
    /// let state = session.read_memory("app_state", 64).await?;
    /// let stack = session.read_memory(0x2000_0000, 256).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`MemoryError`]; [`Unmapped`](MemoryError::Unmapped) if any part of it is no memory.
    pub async fn read_memory<'a>(
        &self,
        from: impl Into<Location<'a>>,
        len: u64,
    ) -> Result<Vec<u8>, MemoryError> {
        let address = self.address(from.into()).await?;
        address
            .checked_add(len)
            .ok_or(MemoryError::OutOfRange { address, len })?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let done = bytes.len() as u64;
            let values = self
                .examine(address + done, (len - done).min(CHUNK), 'b')
                .await?;
            bytes.extend(examine::bytes(values));
        }
        Ok(bytes)
    }

    /// Reads one byte, as [`read_memory`](Self::read_memory) does.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn read_u8<'a>(&self, from: impl Into<Location<'a>>) -> Result<u8, MemoryError> {
        Ok(self.read_word(from.into(), 'b').await? as u8)
    }

    /// Reads two bytes as a number in the guest's byte order.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn read_u16<'a>(&self, from: impl Into<Location<'a>>) -> Result<u16, MemoryError> {
        Ok(self.read_word(from.into(), 'h').await? as u16)
    }

    /// Reads four bytes as a number in the guest's byte order. QEMU copies an aligned word in one
    /// go, so a guest that writes it meanwhile does not tear it.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn read_u32<'a>(&self, from: impl Into<Location<'a>>) -> Result<u32, MemoryError> {
        Ok(self.read_word(from.into(), 'w').await? as u32)
    }

    /// Reads eight bytes as a number in the guest's byte order.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub async fn read_u64<'a>(&self, from: impl Into<Location<'a>>) -> Result<u64, MemoryError> {
        self.read_word(from.into(), 'g').await
    }

    /// Waits until a variable has a value that `wanted` takes, and returns it; the guest runs on
    /// meanwhile, and its variable is read every few milliseconds. The variable is a number of as
    /// many bytes as its symbol says if these are 1, 2, 4 or 8; otherwise, and at an address, 4.
    ///
    /// ```no_run
    /// # async fn example(session: qemu_controller::Session) -> Result<(), qemu_controller::MemoryError> {
    /// session.wait_for_value("tick_count", |ticks| ticks >= 3).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`MemoryError`]; [`ValueDeadline`](MemoryError::ValueDeadline) after the session's
    /// [deadline](Self::with_deadline), with the last value.
    pub async fn wait_for_value<'a>(
        &self,
        from: impl Into<Location<'a>>,
        mut wanted: impl FnMut(u64) -> bool,
    ) -> Result<u64, MemoryError> {
        let (location, until) = (from.into(), instant_after(self.deadline));
        let address = self.address(location).await?;
        let size = match location {
            Location::Symbol(name) => self.symbol(name).await?.size,
            Location::Address(_) => 4,
        };
        let letter = match size {
            1 => 'b',
            2 => 'h',
            8 => 'g',
            _ => 'w',
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let value = self.read_word(Location::Address(address), letter).await?;
            if wanted(value) {
                return Ok(value);
            }
            if Instant::now() >= until {
                return Err(MemoryError::ValueDeadline {
                    place: match location {
                        Location::Symbol(name) => name.to_owned(),
                        Location::Address(address) => format!("{address:#x}"),
                    },
                    value,
                    deadline: self.deadline,
                });
            }
            sleep_until(until.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn read_word(&self, from: Location<'_>, size: char) -> Result<u64, MemoryError> {
        let address = self.address(from).await?;
        let value = self.examine(address, 1, size).await?.first().copied();
        value.ok_or(MemoryError::Unmapped { address })
    }

    pub(crate) async fn address(&self, location: Location<'_>) -> Result<u64, MemoryError> {
        let name = match location {
            Location::Address(address) => return Ok(address),
            Location::Symbol(name) => name,
        };
        Ok(self.symbol(name).await?.address)
    }

    /// So many numbers of this size, as the core sees them.
    async fn examine(&self, address: u64, count: u64, size: char) -> Result<Vec<u64>, MemoryError> {
        let examiner = Examiner {
            shared: &self.inner.shared,
            deadline: self.deadline,
            core: self.core.unwrap_or_default(),
        };
        match examiner.examine(address, count, size).await {
            Err(MemoryError::Command(CommandError::Refused { .. })) if self.core.is_some() => {
                Err(self.no_core().await)
            }
            numbers => numbers,
        }
    }

    /// QEMU has refused a command about a core: for what else than that there is none?
    async fn no_core(&self) -> MemoryError {
        let core = self.core.unwrap_or_default();
        match self.query_cpus().await {
            Ok(cores) => MemoryError::Failed {
                message: format!("there is no core {core}: it has {}", cores.len()),
            },
            Err(error) => error.into(),
        }
    }

    /// The function that a Cortex-M's vector table names for an exception.
    pub(crate) async fn handler(&self, exception: u16) -> Option<String> {
        let table = self.read_u32(VTOR).await.ok()?;
        let vector = self
            .read_u32(u64::from(table) + 4 * u64::from(exception))
            .await
            .ok()?;
        Some(self.place(u64::from(vector & !1)).await?.symbol.name)
    }
}
