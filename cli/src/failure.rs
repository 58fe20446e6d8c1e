//! What prevented a run, in words with all causes.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use qemu_controller::coverage::CoverageError;
use qemu_controller::debug::DebugError;
use qemu_controller::defmt::DefmtError;
use qemu_controller::qemu_launch::firmware::{Advice, FirmwareError};
use qemu_controller::testing::{TestListError, TestRunError};
use qemu_controller::{StartError, StopError};

use crate::config_file::{ConfigFileError, NAME};

/// What prevented a run, or cut it short without being the firmware's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    #[error("the current folder is gone")]
    Folder(#[source] io::Error),
    #[error("{NAME}: {0}")]
    Board(String),
    #[error("--project: there is no folder {}", .0.display())]
    NoFolder(PathBuf),
    #[error("--expect-regex cannot be used")]
    Regex(#[from] regex::Error),
    #[error("{} is not passed on to QEMU: {} is what sets that here", word, option)]
    OwnOption { word: String, option: &'static str },
    #[error(
        "this QEMU has no sandbox, which keeps it from running other programs; \
         --semihosting=full runs the firmware without"
    )]
    NoSandbox(#[source] Box<StartError>),
    #[error(
        "QEMU wants to be told where this board's sound goes: `-audio none` plays it to nobody, for \
         `run` as `-- -audio none`, for `serve` by `qemu-args` in qemu-controller.toml"
    )]
    NoAudio(#[source] Box<StartError>),
    #[error(
        "QEMU lacks the firmware that it starts first on this board (OpenSBI); --bios none starts \
         without it"
    )]
    NoOpenSbi(#[source] Box<StartError>),
    #[error("{address} is in use{owner}: name another port, or --gdb=free for a free one")]
    PortInUse { address: SocketAddr, owner: String },
    #[error(transparent)]
    Debugger(#[from] DebugError),
    #[error(transparent)]
    Firmware(FirmwareError),
    #[error("--symbols")]
    Symbols(#[source] FirmwareError),
    #[error(
        "{} is neither an ELF nor an Intel HEX file; \
         a raw image needs --raw with the address to load it at",
        path.display()
    )]
    UnknownFormat { path: PathBuf },
    #[error(
        "{} knows no machine '{machine}'; `{} -machine help` lists those it knows",
        program.display(), program.display()
    )]
    UnknownMachine { machine: String, program: PathBuf },
    #[error("another QEMU is needed (--qemu), and a machine of its (--machine)")]
    OtherCpu(#[source] FirmwareError),
    #[error("QEMU did not start")]
    Refused(#[source] FirmwareError),
    #[error("QEMU did not start: {}", chain(&**error))]
    Start {
        error: Box<StartError>,
        /// What QEMU said, where that is more than the error has.
        said: Option<String>,
    },
    #[error(transparent)]
    Tests(TestListError),
    #[error(transparent)]
    TestRun(TestRunError),
    #[error("{0}")]
    Usage(String),
    #[error("the firmware did not come to the test {test}: it {why}")]
    TestNotReached { test: String, why: String },
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("{0}")]
    Debug(String),
    #[error("cannot write the log {}", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot write the verdict into {}", path.display())]
    Json { path: PathBuf, source: io::Error },
    #[error("cannot write the coverage into {}", path.display())]
    CoverageFile { path: PathBuf, source: io::Error },
    #[error("cannot read the coverage in {}", path.display())]
    ReadCoverage { path: PathBuf, source: io::Error },
    #[error("the firmware does not use defmt (it has no section .defmt), which --defmt is for")]
    NoDefmt,
    #[error("the firmware has no RTT (no symbol _SEGGER_RTT), which --defmt=rtt is for")]
    NoRtt,
    #[error(transparent)]
    Defmt(#[from] DefmtError),
    #[error("there is no coverage")]
    Coverage(#[from] CoverageError),
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    #[error("cannot {what}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl Failure {
    /// The system refused something.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// In words, with all causes and what QEMU said.
    pub(crate) fn words(&self) -> String {
        self.with_advice(|advice| match advice {
            Advice::Unchecked => "load it with --unchecked".to_owned(),
            other => other.to_string(),
        })
    }

    /// The same with what can be done about a firmware that is refused as `word` words it.
    pub(crate) fn with_advice(&self, word: impl Fn(Advice) -> String) -> String {
        match self {
            Self::Start {
                said: Some(said), ..
            } => format!("{self}\nQEMU said:\n{said}"),
            Self::Refused(error) => format!("{self}: {}", chain_with_advice(error, word)),
            Self::Symbols(error) => {
                let of_symbols = |advice| match advice {
                    Advice::OtherFile(words) => words,
                    _ => "name the ELF file that it was made of",
                };
                format!("{self}: {}", chain_with_advice(error, of_symbols))
            }
            _ => chain(self),
        }
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    with_causes(error.to_string(), error)
}

/// The same of a firmware that is refused, with what can be done about it as `word` words it.
pub(crate) fn chain_with_advice<T: fmt::Display>(
    error: &FirmwareError,
    word: impl Fn(Advice) -> T,
) -> String {
    with_causes(error.with_advice(word), error)
}

fn with_causes(text: String, error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(text, |text, cause| {
        let cause = cause.to_string();
        // A text may have its cause in it already.
        match text.contains(&cause) {
            true => text,
            false => format!("{text}: {cause}"),
        }
    })
}
