//! A session without async: each call blocks until it is done.
//!
//! ```no_run
//! use qemu_controller::QemuConfig;
//! use qemu_controller::blocking::Session;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Session::start(QemuConfig::default().firmware("firmware.elf"))?;
//! session.serial(0).ok_or("no serial port")?.expect("boot")?;
//! println!("{}", session.read_u32("counter")?);
//! println!("{}", session.stop()?);
//! # Ok(()) }
//! ```
//!
//! It is the async [`Session`](crate::Session) on a runtime of its own, which a thread drives: QEMU
//! goes on to print and to send events between two calls, and stalls if nobody reads. The usual
//! calls are here; any other is [`Session::block_on`] with [`Session::session`].

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use qemu_launch::Address;
use qmp_proto::commands::{CpuInfoFast, StatusInfo};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::CommandError;
use crate::guest::gdb::{GdbCheck, GdbError};
use crate::guest::memory::{Location, MemoryError};
use crate::serial::{Expected, Pattern, SerialError};
use crate::session::attach::AttachConfig;
use crate::session::error::{StartError, StopError};
use crate::session::stop::StopReport;
use crate::snapshot::{LostDevice, SnapshotError};
use crate::verdict::Verdict;
use crate::{MachineState, QemuConfig, StateError};

/// A [`Session`](crate::Session) whose calls block. Not for use in async code, where they panic.
///
/// Dropping it ends QEMU, as with the async one.
#[derive(Debug)]
pub struct Session {
    // Dropped before the runtime, which ends it.
    session: crate::Session,
    runtime: Arc<Runtime>,
}

/// One of the guest's ports, as [`Serial`](crate::Serial) is; its calls block.
#[derive(Debug)]
pub struct Serial<'a> {
    serial: &'a crate::Serial,
    runtime: &'a Handle,
}

/// A runtime of one thread and the thread that drives it.
#[derive(Debug)]
struct Runtime {
    handle: Handle,
    driver: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Runtime {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let driver = std::thread::Builder::new()
            .name("qemu-session".to_owned())
            .spawn(move || drop(runtime.block_on(stopped)))?;
        Ok(Self {
            handle,
            driver: Some((stop, driver)),
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some((stop, driver)) = self.driver.take() {
            let _ = stop.send(());
            let _ = driver.join();
        }
    }
}

/// Calls of the async session, of the same name and with the same errors.
macro_rules! forward {
    ($(fn $name:ident $(<$($generic:ident: $bound:ty),*>)? ($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[doc = concat!("As [`", stringify!($name), "`](crate::Session::", stringify!($name), ").")]
            ///
            /// # Errors
            /// As there.
            pub fn $name $(<$($generic: $bound),*>)? (&self, $($argument: $type),*) -> $result {
                self.block_on(async { self.session.$name($($argument),*).await })
            }
        )*
    };
}

impl Session {
    /// As [`start`](crate::Session::start).
    ///
    /// # Errors
    /// As there.
    pub fn start(config: QemuConfig) -> Result<Self, StartError> {
        Self::begin(crate::Session::start(config))
    }

    /// As [`attach`](crate::Session::attach).
    ///
    /// # Errors
    /// As there.
    pub fn attach(address: Address, config: impl Into<AttachConfig>) -> Result<Self, StartError> {
        Self::begin(crate::Session::attach(address, config))
    }

    fn begin(
        session: impl Future<Output = Result<crate::Session, StartError>>,
    ) -> Result<Self, StartError> {
        let runtime = Runtime::new().map_err(|error| {
            StartError::Config(format!("a runtime for the session cannot be made: {error}"))
        })?;
        Ok(Self {
            session: runtime.handle.block_on(session)?,
            runtime: Arc::new(runtime),
        })
    }

    /// The session itself, whose futures [`block_on`](Self::block_on) runs.
    #[must_use]
    pub fn session(&self) -> &crate::Session {
        &self.session
    }

    /// Runs a future on the session's runtime and blocks until it is done.
    ///
    /// ```no_run
    /// # fn example(session: qemu_controller::blocking::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let picture = session.block_on(session.session().screendump())?;
    /// # Ok(()) }
    /// ```
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.handle.block_on(future)
    }

    /// As [`serial`](crate::Session::serial).
    #[must_use]
    pub fn serial(&self, port: usize) -> Option<Serial<'_>> {
        Some(Serial {
            serial: self.session.serial(port)?,
            runtime: &self.runtime.handle,
        })
    }

    /// As [`semihosting`](crate::Session::semihosting).
    #[must_use]
    pub fn semihosting(&self) -> Option<Serial<'_>> {
        Some(Serial {
            serial: self.session.semihosting()?,
            runtime: &self.runtime.handle,
        })
    }

    forward! {
        fn query_status() -> Result<StatusInfo, CommandError>;
        fn query_cpus() -> Result<Vec<CpuInfoFast>, CommandError>;
        fn resume() -> Result<(), CommandError>;
        fn pause() -> Result<(), CommandError>;
        fn reset() -> Result<(), CommandError>;
        fn stop() -> Result<StopReport, StopError>;
        fn check_gdb() -> Result<GdbCheck, GdbError>;
        fn save_snapshot(name: &str) -> Result<Vec<LostDevice>, SnapshotError>;
        fn load_snapshot(name: &str) -> Result<Vec<LostDevice>, SnapshotError>;
        fn delete_snapshot(name: &str) -> Result<(), SnapshotError>;
        fn save_state() -> Result<MachineState, StateError>;
    }

    /// As [`run_to_end`](crate::Session::run_to_end).
    pub fn run_to_end(&self, deadline: Duration) -> Verdict {
        self.block_on(self.session.run_to_end(deadline))
    }

    /// As [`read_memory`](crate::Session::read_memory).
    ///
    /// # Errors
    /// As there.
    pub fn read_memory<'a>(
        &self,
        from: impl Into<Location<'a>>,
        len: u64,
    ) -> Result<Vec<u8>, MemoryError> {
        self.block_on(self.session.read_memory(from, len))
    }

    /// As [`write_memory`](crate::Session::write_memory).
    ///
    /// # Errors
    /// As there.
    pub fn write_memory<'a>(
        &self,
        to: impl Into<Location<'a>>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<(), MemoryError> {
        self.block_on(self.session.write_memory(to, bytes))
    }

    /// As [`read_u32`](crate::Session::read_u32).
    ///
    /// # Errors
    /// As there.
    pub fn read_u32<'a>(&self, from: impl Into<Location<'a>>) -> Result<u32, MemoryError> {
        self.block_on(self.session.read_u32(from))
    }

    /// As [`write_u32`](crate::Session::write_u32).
    ///
    /// # Errors
    /// As there.
    pub fn write_u32<'a>(
        &self,
        to: impl Into<Location<'a>>,
        value: u32,
    ) -> Result<(), MemoryError> {
        self.block_on(self.session.write_u32(to, value))
    }

    /// As [`wait_for_value`](crate::Session::wait_for_value).
    ///
    /// # Errors
    /// As there.
    pub fn wait_for_value<'a>(
        &self,
        from: impl Into<Location<'a>>,
        wanted: impl FnMut(u64) -> bool,
    ) -> Result<u64, MemoryError> {
        self.block_on(self.session.wait_for_value(from, wanted))
    }

    /// As [`fork`](crate::Session::fork). The forks are driven by this session's runtime, and live
    /// on without it.
    ///
    /// # Errors
    /// As there.
    pub fn fork(&self, count: usize) -> Result<Vec<Self>, StateError> {
        let forks = self.block_on(self.session.fork(count))?;
        let with_runtime = |session| Self {
            session,
            runtime: Arc::clone(&self.runtime),
        };
        Ok(forks.into_iter().map(with_runtime).collect())
    }
}

impl Serial<'_> {
    /// As [`expect`](crate::Serial::expect).
    ///
    /// # Errors
    /// As there.
    pub fn expect(&self, wanted: impl Pattern) -> Result<Expected, SerialError> {
        self.runtime.block_on(self.serial.expect(wanted))
    }

    /// As [`expect_within`](crate::Serial::expect_within).
    ///
    /// # Errors
    /// As there.
    pub fn expect_within(
        &self,
        wanted: impl Pattern,
        deadline: Duration,
    ) -> Result<Expected, SerialError> {
        self.runtime
            .block_on(self.serial.expect_within(wanted, deadline))
    }

    /// As [`line`](crate::Serial::line).
    ///
    /// # Errors
    /// As there.
    pub fn line(&self) -> Result<String, SerialError> {
        self.runtime.block_on(self.serial.line())
    }

    /// As [`take`](crate::Serial::take).
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.serial.take()
    }

    /// As [`write`](crate::Serial::write).
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.runtime.block_on(self.serial.write(bytes))
    }

    /// As [`write_line`](crate::Serial::write_line).
    ///
    /// # Errors
    /// As there.
    pub fn write_line(&self, line: &str) -> io::Result<()> {
        self.runtime.block_on(self.serial.write_line(line))
    }
}
