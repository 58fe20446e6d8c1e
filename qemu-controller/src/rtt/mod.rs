//! SEGGER's RTT: what the firmware logs into rings in its memory, read while it runs.
//!
//! ```no_run
//! use qemu_controller::rtt::Rtt;
//! use qemu_controller::{QemuConfig, Session};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = QemuConfig::default().firmware("firmware.elf").rtt(Rtt::default());
//! let session = Session::start(config).await?;
//! let terminal = session.rtt(0)?;
//! terminal.expect("ready\n").await?;
//! terminal.write_line("go").await?;
//! # Ok(()) }
//! ```
//!
//! A channel is a [`Serial`]: it is expected from, logged and streamed as a UART is. What is written
//! to it goes to the down channel of the same number.
//!
//! How: over QEMU's test protocol, which reads and writes memory while the guest runs. The guest is
//! never stopped for it. A ring that is full makes the firmware wait or skip, as its mode says
//! ([`Rtt::blocking`] sets it); where it skips, [`RttChannel::full`] counts how often the ring was
//! found full, and what was skipped then nobody can know.
//!
//! - The block is found by the firmware's symbol `_SEGGER_RTT`, else by a search of the RAM, when it
//!   is set up and wherever it is then; it is looked for anew when it is damaged.
//! - Pointers that lead nowhere, impossible sizes and offsets are said
//!   ([`RttStatus::problem`]), and the channel is left alone until it is whole.
//! - A firmware that resets starts its rings over; what it had not sent yet is lost, and
//!   [`RttStatus::restarts`] counts that.
//! - What is in a ring when QEMU exits is lost. [`Session::run_to_end`] therefore reads the rings
//!   before an exit by semihosting, with the feature `debugger`; and where the guest shuts down or
//!   resets, QEMU stays until the session stops it.
//! - Addresses are physical: a guest whose MMU maps its rings elsewhere cannot be read.

mod channel;
mod control_block;
mod pump;
mod ram;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use firmware_info::{Architecture, Firmware};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::client::Shared;
use crate::client::qtest::Qtest;
use crate::error::CommandError;
use crate::guest::symbols::ElfFile;
use crate::serial::Serial;
use crate::session::Session;
pub(crate) use channel::Channels;
use control_block::{Layout, MAX_CHANNELS};
use pump::{Place, Pump, Round};

/// The name of the control block in SEGGER's code, and in that of all others.
const SYMBOL: &str = "_SEGGER_RTT";

/// How the control block is found, and what the channels are to do; for
/// [`QemuConfig::rtt`](crate::QemuConfig::rtt).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Rtt {
    at: At,
    blocking: Vec<u32>,
    lossless: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum At {
    /// The firmware's symbol, else a search.
    #[default]
    Symbol,
    Address(u64),
    Search,
}

impl Rtt {
    /// The control block is at this physical address.
    pub fn at(mut self, address: u64) -> Self {
        self.at = At::Address(address);
        self
    }

    /// The control block is looked for in the guest's RAM, whatever symbols say.
    pub fn search(mut self) -> Self {
        self.at = At::Search;
        self
    }

    /// Leaves bytes in the guest's rings while half a port's buffer is unread, so that a firmware
    /// which waits is as slow as whoever reads it. Default: what nobody reads is dropped, the oldest
    /// first, and the firmware goes on.
    pub fn lossless(mut self) -> Self {
        self.lossless = true;
        self
    }

    /// Makes the firmware wait when this up channel is full, and so loses nothing: a debugger's
    /// tool does that when it connects. Default: the channel's mode is the firmware's.
    ///
    /// It is set when the control block is found, some milliseconds after it is there; in a
    /// [watched](Session::run_watched) run as soon as the firmware has written it, where its symbol
    /// says where it is.
    pub fn blocking(mut self, channel: u32) -> Self {
        self.blocking.push(channel);
        self
    }
}

/// What a firmware does when a ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RttMode {
    /// It leaves out the whole of what it was to write.
    Skip,
    /// It writes as much as fits.
    Trim,
    /// It waits.
    Block,
}

impl RttMode {
    const MASK: u32 = 0b11;
    const BLOCK: u32 = 2;

    fn of(flags: u32) -> Self {
        match flags & Self::MASK {
            0 => Self::Skip,
            Self::BLOCK => Self::Block,
            _ => Self::Trim,
        }
    }
}

/// A channel as the control block had it when it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RttChannel {
    /// Its number, among the up channels or the down channels.
    pub number: u32,
    /// It is one from the firmware.
    pub is_up: bool,
    /// Its name, where it has one that can be read.
    pub name: Option<String>,
    /// The size of its ring in bytes; 0 where it is not set up.
    pub size: u32,
    /// What the firmware does when it is full.
    pub mode: RttMode,
    /// How often the ring was found full while the firmware skips: something may be lost each time.
    pub full: u64,
}

/// What is known of the control block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RttStatus {
    /// Where it is; `None` while there is none.
    pub address: Option<u64>,
    /// How often it was found.
    pub found: u64,
    /// Its channels.
    pub channels: Vec<RttChannel>,
    /// How often a channel's offsets were not those that were left: the firmware has started over,
    /// or a snapshot was loaded.
    pub restarts: u64,
    /// What is wrong with it, or was last.
    pub problem: Option<String>,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RttError {
    /// The session was started without it, or attached to.
    #[error("this session reads no RTT; start it with `QemuConfig::rtt`")]
    NotConfigured,
    /// No control block has so many.
    #[error("there is no channel {0}: RTT channels are 0 to {most}", most = MAX_CHANNELS - 1)]
    NoChannel(u32),
    /// None of this name came in time.
    #[error("no RTT channel is called '{name}' within {deadline:?}; {known}")]
    NoName {
        /// The name.
        name: String,
        /// The session's deadline.
        deadline: Duration,
        /// What there is instead.
        known: String,
    },
    /// The port could not be made, or QEMU could not be asked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// RTT of a session.
#[derive(Clone)]
pub(crate) struct RttReader {
    pump: Arc<Mutex<Pump>>,
    channels: Channels,
    status: watch::Receiver<RttStatus>,
    runtime: Handle,
}

impl RttReader {
    /// Prepares it, before the guest runs, and reads from then on until the session ends.
    pub(crate) async fn new(
        wanted: &Rtt,
        firmware: &Arc<ElfFile>,
        shared: Arc<Shared>,
        qtest: Qtest,
        channels: Channels,
    ) -> Result<Self, CommandError> {
        let elf = Arc::clone(firmware);
        let reading = move || elf.firmware().ok().map(|firmware| of_firmware(firmware));
        let read = shared.runtime.spawn_blocking(reading).await;
        let (layout, symbol) = read.ok().flatten().unwrap_or_default();
        let place = match (&wanted.at, symbol) {
            (At::Address(at), _) => Place::At(*at),
            (At::Symbol, Some(at)) => Place::At(at),
            (At::Symbol | At::Search, _) => Place::Anywhere(0),
        };
        let mut pump = Pump::new(Arc::clone(&shared), qtest, layout, place, channels.clone());
        pump.blocking.clone_from(&wanted.blocking);
        pump.lossless = wanted.lossless;
        pump.read_map().await?;
        let reader = Self {
            status: pump.status.subscribe(),
            pump: Arc::new(Mutex::new(pump)),
            channels,
            runtime: shared.runtime.clone(),
        };
        let (pump, channels) = (Arc::clone(&reader.pump), reader.channels.clone());
        tokio::spawn(pump::run(pump, shared, channels));
        Ok(reader)
    }

    /// Where the modes of the up channels are that are to wait when they are full; none where the
    /// control block has yet to be found.
    #[cfg(feature = "source")]
    pub(crate) async fn modes(&self) -> Vec<u64> {
        let pump = self.pump.lock().await;
        let Place::At(block) = pump.place else {
            return Vec::new();
        };
        let channels = pump.blocking.iter();
        channels
            .map(|channel| pump.layout.mode_at(block, *channel))
            .collect()
    }

    /// Reads until nothing is left. Each round is a task: what QEMU has been asked for is taken out
    /// of the ring, and would be lost with a future that is dropped.
    async fn drain(&self) -> io::Result<()> {
        loop {
            let pump = Arc::clone(&self.pump);
            let round = async move { pump.lock_owned().await.round().await };
            match self
                .runtime
                .spawn(round)
                .await
                .map_err(io::Error::other)??
            {
                Round::Moved => {}
                Round::Idle | Round::NoBlock => return Ok(()),
                Round::Busy => sleep(Duration::from_micros(200)).await,
            }
        }
    }
}

/// How the firmware stores things, and the address of its control block.
fn of_firmware(firmware: &Firmware) -> (Layout, Option<u64>) {
    let layout = Layout {
        little_endian: firmware.is_little_endian(),
        is_64: matches!(
            firmware.architecture(),
            Architecture::Aarch64 | Architecture::Riscv64
        ),
    };
    let symbol = firmware.raw_symbol(SYMBOL);
    (layout, symbol.map(|symbol| symbol.address))
}

/// Of a Cortex-M.
#[cfg(feature = "debugger")]
fn hard_fault_handler(firmware: &Firmware) -> Option<u64> {
    let vectors = &firmware.vector_table()?.vectors;
    let hard_fault = vectors.iter().find(|vector| vector.number == 3);
    hard_fault.map(|vector| vector.address)
}

/// RTT (feature `rtt`).
impl Session {
    /// An RTT channel, up and down, whether or not the firmware has set it up yet.
    ///
    /// # Errors
    /// [`RttError`].
    pub fn rtt(&self, channel: u32) -> Result<Serial, RttError> {
        if channel >= MAX_CHANNELS {
            return Err(RttError::NoChannel(channel));
        }
        Ok(self.rtt_reader()?.channels.serial(channel)?)
    }

    /// The RTT channel whose up or down channel has this name. It waits until there is one, within
    /// the session's [deadline](Self::with_deadline).
    ///
    /// # Errors
    /// [`RttError`].
    pub async fn rtt_named(&self, name: &str) -> Result<Serial, RttError> {
        let mut status = self.rtt_reader()?.status.clone();
        let of_name = |status: &RttStatus| {
            let mut channels = status.channels.iter();
            channels
                .find(|channel| channel.name.as_deref() == Some(name))
                .map(|channel| channel.number)
        };
        let found = timeout(
            self.deadline,
            status.wait_for(|status| of_name(status).is_some()),
        );
        let number = match found.await {
            Ok(Ok(found)) => of_name(&found),
            _ => None,
        };
        match number {
            Some(number) => self.rtt(number),
            None => Err(RttError::NoName {
                name: name.to_owned(),
                deadline: self.deadline,
                known: known(&status.borrow()),
            }),
        }
    }

    /// What is known of the control block and its channels.
    ///
    /// # Errors
    /// [`RttError::NotConfigured`].
    pub fn rtt_status(&self) -> Result<RttStatus, RttError> {
        Ok(self.rtt_reader()?.status.borrow().clone())
    }

    /// The same, for who wants to wait for a change.
    ///
    /// # Errors
    /// [`RttError::NotConfigured`].
    pub fn watch_rtt(&self) -> Result<watch::Receiver<RttStatus>, RttError> {
        Ok(self.rtt_reader()?.status.clone())
    }

    /// Reads all that is in the rings now; of a guest that is stopped, nothing is left.
    ///
    /// # Errors
    /// [`RttError`]; QEMU may have ended. After the session's deadline it is a time-out of
    /// [`RttError::Io`].
    pub async fn drain_rtt(&self) -> Result<(), RttError> {
        let drained = timeout(self.deadline, self.rtt_reader()?.drain()).await;
        let drained = drained.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Ok(drained?)
    }

    /// Runs the guest until it is about to exit by semihosting and QEMU with it, and reads the rings
    /// then: QEMU's end takes the memory with it. So it does before a hard fault's handler runs,
    /// where a second fault would be QEMU's end, too. False where this cannot be done and the guest
    /// was not let run: there is no such instruction, or a debugger is in use.
    #[cfg(feature = "debugger")]
    pub(crate) async fn run_until_exit(&self, deadline: Duration) -> bool {
        use crate::semihosting::{Event, Request};

        if self.inner.rtt.is_none() {
            return false;
        }
        let Ok(mut host) = self.semihosting_host().await else {
            return false;
        };
        host.stop_at(self.ask_firmware(hard_fault_handler).await.ok().flatten());
        loop {
            match host.next(deadline).await {
                Ok(Event::Call(call)) if !matches!(call.request, Request::Exit { .. }) => {}
                Ok(Event::Call(_) | Event::Reached(_)) => {
                    let _ = self.drain_rtt().await;
                }
                Ok(Event::Stopped(_)) | Err(_) => return true,
            }
        }
    }

    /// The channels that are open.
    pub(crate) fn rtt_ports(&self) -> Vec<Serial> {
        let reader = self.inner.rtt.as_ref();
        reader.map_or_else(Vec::new, |reader| reader.channels.open())
    }

    fn rtt_reader(&self) -> Result<&RttReader, RttError> {
        self.inner.rtt.as_ref().ok_or(RttError::NotConfigured)
    }
}

fn known(status: &RttStatus) -> String {
    let names = status
        .channels
        .iter()
        .filter_map(|channel| channel.name.as_deref());
    let names: Vec<_> = names.map(|name| name.escape_debug().to_string()).collect();
    match (&status.problem, status.found, names.is_empty()) {
        (Some(problem), ..) => problem.clone(),
        (None, 0, _) => "no control block was found".to_owned(),
        (None, _, true) => "the channels that there are have no names".to_owned(),
        (None, _, false) => format!("there are: {}", names.join(", ")),
    }
}
