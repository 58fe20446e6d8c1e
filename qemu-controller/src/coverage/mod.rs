//! Which lines and functions of an unchanged firmware ran, without instrumentation.
//!
//! ```text
//!   QEMU -d in_asm ──pipe──▶ addresses that ran ──┐
//!   ELF: line programs, functions ────────────────┴─▶ Coverage ──▶ lcov, a summary by file
//! ```
//!
//! [`QemuConfig::coverage`](crate::QemuConfig::coverage) makes QEMU write down each block of code
//! when it is first translated, which is just before it first runs. The log goes through a pipe and
//! is read as it grows. It works with every architecture that QEMU translates.
//!
//! What cannot be known:
//! - How often a line ran. A count is the number of runs that came by.
//! - Where a block was left by a fault in its middle: it counts to its end, which is the next jump.
//!   The same holds for instructions whose condition was false, as in an `IT` block of Thumb.
//! - Which way a branch went, where both its targets ran: so there are no branch records.
//! - In optimised code an instruction that was moved counts for the line that it comes from.

mod executed;
mod lcov;
mod log;
mod report;
mod source_map;

pub use executed::ExecutedCode;
pub use lcov::LcovError;
pub use report::{Branch, Coverage, FileCoverage, FunctionCoverage, Totals};
pub use source_map::SourceMap;

pub(crate) use log::{CodeLog, LogPipe};

use firmware_info::DebugInfoError;

use crate::guest::symbols::SymbolsError;
use crate::session::Session;

/// Why there is no coverage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoverageError {
    /// The session was started without it, or attached to.
    #[error("this session records no coverage; start it with `QemuConfig::coverage`")]
    NotRecorded,
    /// There is no ELF file to take lines from.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// Its debug information cannot be used.
    #[error(transparent)]
    DebugInfo(#[from] DebugInfoError),
    /// It was built without debug information.
    #[error("the firmware has no line information; build it with debug information (-g)")]
    NoLines,
}

/// Coverage (feature `coverage`).
impl Session {
    /// Which lines and functions ran since the start; while the guest runs, until about now. It can
    /// be asked for after the end, too.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use qemu_controller::{QemuConfig, Session};
    ///
    /// let config = QemuConfig::default().firmware("firmware.elf").coverage(true);
    /// let session = Session::start(config).await?;
    /// let verdict = session.run_to_end(Duration::from_secs(10)).await;
    /// let coverage = session.coverage().await?;
    /// coverage.to_lcov(std::fs::File::create("lcov.info")?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CoverageError`].
    pub async fn coverage(&self) -> Result<Coverage, CoverageError> {
        let executed = self.executed_code()?;
        Ok(self.source_map().await?.coverage(&executed))
    }

    /// The lines and functions of the firmware and where their code is. To be read once where there
    /// are many runs.
    ///
    /// # Errors
    /// [`CoverageError`].
    pub async fn source_map(&self) -> Result<SourceMap, CoverageError> {
        self.ask_firmware(SourceMap::of).await?
    }

    /// Which code ran since the start, by address; while the guest runs, until about now. It can be
    /// asked for after the end, too.
    ///
    /// # Errors
    /// [`CoverageError::NotRecorded`].
    pub fn executed_code(&self) -> Result<ExecutedCode, CoverageError> {
        self.code_log().map(CodeLog::executed)
    }

    /// The same, since the last call of this. A load of a snapshot makes QEMU translate all code
    /// anew, so that between two loads it is all that ran; without one it is what had not run
    /// before.
    ///
    /// # Errors
    /// [`CoverageError::NotRecorded`].
    pub fn take_executed_code(&self) -> Result<ExecutedCode, CoverageError> {
        self.code_log().map(CodeLog::take)
    }

    fn code_log(&self) -> Result<&CodeLog, CoverageError> {
        let log = self.inner.code_log.as_ref();
        log.ok_or(CoverageError::NotRecorded)
    }
}
