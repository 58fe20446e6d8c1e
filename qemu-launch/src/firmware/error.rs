//! Why a machine's files are refused before QEMU starts.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

/// What can be done about a file that is refused. Its `Display` names what this crate does; a
/// program words it by its own options ([`FirmwareError::with_advice`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Leave its checks out: [`MachineSpec::unchecked_firmware`](crate::MachineSpec::unchecked_firmware),
    /// [`MachineSpec::without_firmware_checks`](crate::MachineSpec::without_firmware_checks).
    Unchecked,
    /// [`MachineSpec::intel_hex`](crate::MachineSpec::intel_hex).
    IntelHex,
    /// [`MachineSpec::raw_image`](crate::MachineSpec::raw_image), if that is what it is.
    RawImage,
    /// Make or find another file: these words say which.
    OtherFile(&'static str),
}

impl Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchecked => "load it unchecked",
            Self::IntelHex => "load it as Intel HEX",
            Self::RawImage => "load it as a raw image with its address, if that is what it is",
            Self::OtherFile(words) => words,
        })
    }
}

/// A file can't be read, or is not what the chosen QEMU can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// There is no such file, it is a folder or a device, it is empty, or the system refuses to
    /// read it: name another path.
    #[error("{message}")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The path and what is wrong with it.
        message: String,
        /// The system's error, where there is one.
        source: Option<io::Error>,
    },
    /// It is not the kind of file that was asked for: convert it, or load it as what it is.
    #[error("{}", wrong_format(path, found, advice))]
    WrongFormat {
        /// The path.
        path: PathBuf,
        /// What it looks like; see also [`Format::of`](crate::Format::of).
        found: &'static str,
        /// What can be done about it.
        advice: Advice,
    },
    /// It is for another CPU, byte order or word size: choose another QEMU or another build.
    #[error("{} {problem}: {found}; {target} runs {wanted}", path.display())]
    WrongCpu {
        /// The path.
        path: PathBuf,
        /// Which of the three is wrong.
        problem: &'static str,
        /// What the file is for.
        found: String,
        /// What this QEMU runs.
        wanted: String,
        /// The QEMU that was chosen.
        target: String,
    },
    /// A part of it is missing or contradicts the rest: build or download it again.
    #[error("{} {message}", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// It is whole, but this machine could not run it. Where that is wrong: [`Advice::Unchecked`].
    #[error("{}", not_runnable(path, message, &Advice::Unchecked))]
    NotRunnable {
        /// The path.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

impl FirmwareError {
    pub(crate) fn unreadable(path: &Path, what: &str) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            message: format!("{} {what}", path.display()),
            source: None,
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self::Unreadable {
                path: path.to_owned(),
                message: format!("there is no file {}", path.display()),
                source: None,
            };
        }
        Self::Unreadable {
            path: path.to_owned(),
            message: format!("{} can't be read", path.display()),
            source: Some(error),
        }
    }

    pub(crate) fn damaged(path: &Path, message: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            message: message.into(),
        }
    }

    pub(crate) fn not_runnable(path: &Path, message: impl Into<String>) -> Self {
        Self::NotRunnable {
            path: path.to_owned(),
            message: message.into(),
        }
    }

    /// In words, as its `Display` but with the advice as `word` words it.
    #[must_use]
    pub fn with_advice<T: Display>(&self, word: impl Fn(Advice) -> T) -> String {
        match self {
            Self::WrongFormat {
                path,
                found,
                advice,
            } => wrong_format(path, found, &word(*advice)),
            Self::NotRunnable { path, message } => {
                not_runnable(path, message, &word(Advice::Unchecked))
            }
            Self::Unreadable { .. } | Self::WrongCpu { .. } | Self::Damaged { .. } => {
                self.to_string()
            }
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. }
            | Self::WrongFormat { path, .. }
            | Self::WrongCpu { path, .. }
            | Self::Damaged { path, .. }
            | Self::NotRunnable { path, .. } => path,
        }
    }

    /// Whether it would be started if its checks were left out.
    #[must_use]
    pub fn can_be_overruled(&self) -> bool {
        !matches!(self, Self::Unreadable { .. })
    }
}

fn wrong_format(path: &Path, found: &str, advice: &dyn Display) -> String {
    let path = path.display();
    format!("{path} is {found}; an ELF file was wanted ({advice})")
}

fn not_runnable(path: &Path, message: &str, advice: &dyn Display) -> String {
    format!("{} {message}; if this is meant, {advice}", path.display())
}
