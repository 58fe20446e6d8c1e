//! Asking QEMU for its version and for what it supports, once for each program.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{FindError, find};
use crate::error::SpawnError;
use crate::process::exit::Exit;
use crate::process::spawn;
use crate::target::Target;

/// How long QEMU may take to answer; it needs 22 ms.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// QEMU's version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QemuVersion {
    /// The first number: 7 of `7.2.22`.
    pub major: u32,
    /// The second number: 2 of `7.2.22`.
    pub minor: u32,
    /// The third number: 22 of `7.2.22`.
    pub micro: u32,
    /// Who packaged it, as in `Debian 1:7.2+dfsg-7+deb12u18`.
    pub package: Option<String>,
}

/// A board that QEMU emulates.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// The name for `-machine`.
    pub name: String,
    /// QEMU's description.
    pub description: String,
}

/// QEMU could not be asked, or gave no answer that makes sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It was not found.
    #[error("no usable QEMU")]
    Find(#[from] FindError),
    /// It could not be started.
    #[error("QEMU could not be started")]
    Spawn(#[from] SpawnError),
    /// It ended with an error.
    #[error("`{question}` failed: {exit}")]
    Failed {
        /// The command line.
        question: String,
        /// How it ended.
        exit: Exit,
    },
    /// It did not answer in time, and was killed.
    #[error("`{question}` gave no answer within {} s", ANSWER_WITHIN.as_secs())]
    TimedOut {
        /// The command line.
        question: String,
    },
    /// The answer is not what a QEMU would say.
    #[error("`{question}` answered {answer:?}, which no QEMU would")]
    NotQemu {
        /// The command line.
        question: String,
        /// The answer's beginning.
        answer: String,
    },
}

/// A QEMU program that was found. What it answers is remembered for this program's life, as long as
/// the file's size and modification time stay the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    path: PathBuf,
}

impl Qemu {
    /// Finds the program; see [`find`].
    ///
    /// # Errors
    /// As [`find`].
    pub fn find(program: impl AsRef<Path>) -> Result<Self, FindError> {
        Ok(Self {
            path: find(program)?,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version. Blocks for about 22 ms the first time.
    ///
    /// # Errors
    /// It can't be asked, or is no QEMU.
    pub fn version(&self) -> Result<QemuVersion, AskError> {
        let answer = self.ask(&["-version"])?;
        parse_version(&answer).ok_or_else(|| self.not_qemu("-version", &answer))
    }

    /// Whether it serves semihosting (`-semihosting-config`), by its name.
    #[must_use]
    pub fn serves_semihosting(&self) -> bool {
        Target::named(&self.path).has_semihosting()
    }

    /// The option that takes the firmware of its machines, by its name: `-kernel`, on AVR `-bios`.
    #[must_use]
    pub fn firmware_option(&self) -> &'static str {
        Target::named(&self.path).firmware_option()
    }

    /// The boards that it emulates. Blocks for about 25 ms the first time.
    ///
    /// # Errors
    /// It can't be asked, or is no QEMU.
    pub fn machines(&self) -> Result<Vec<Machine>, AskError> {
        let answer = self.ask(&["-machine", "help"])?;
        parse_machines(&answer).ok_or_else(|| self.not_qemu("-machine help", &answer))
    }

    /// The CPU models that it emulates, whichever board they fit. Blocks for about 25 ms the first
    /// time.
    ///
    /// # Errors
    /// It can't be asked, or is no QEMU.
    pub fn cpus(&self) -> Result<Vec<String>, AskError> {
        let answer = self.ask(&["-cpu", "help"])?;
        parse_cpus(&answer).ok_or_else(|| self.not_qemu("-cpu help", &answer))
    }

    fn not_qemu(&self, question: &str, answer: &str) -> AskError {
        AskError::NotQemu {
            question: format!("{} {question}", self.path.display()),
            answer: answer.chars().take(200).collect(),
        }
    }

    fn ask(&self, question: &[&'static str]) -> Result<String, AskError> {
        type Key = (PathBuf, u64, SystemTime, Vec<&'static str>);
        static ANSWERS: Mutex<Option<HashMap<Key, String>>> = Mutex::new(None);
        let lock = || ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);

        let unreadable = |source| FindError::Unreadable {
            path: self.path.clone(),
            source,
        };
        let metadata = fs::metadata(&self.path).map_err(unreadable)?;
        let modified = metadata.modified().map_err(unreadable)?;
        let key = (
            self.path.clone(),
            metadata.len(),
            modified,
            question.to_vec(),
        );
        if let Some(answer) = lock().get_or_insert_default().get(&key) {
            return Ok(answer.clone());
        }
        let answer = self.ask_now(question)?;
        lock().get_or_insert_default().insert(key, answer.clone());
        Ok(answer)
    }

    fn ask_now(&self, question: &[&'static str]) -> Result<String, AskError> {
        let process = spawn::bare(&self.path, question)?;
        let question = process.argv().to_string();
        match process.wait_blocking(Instant::now() + ANSWER_WITHIN) {
            Ok(exit) if exit.success() => Ok(process.stdout_tail().to_string_lossy()),
            Ok(exit) => Err(AskError::Failed { question, exit }),
            Err(_) => Err(AskError::TimedOut { question }),
        }
    }
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)`.
fn parse_version(answer: &str) -> Option<QemuVersion> {
    let rest = answer
        .lines()
        .next()?
        .strip_prefix("QEMU emulator version ")?;
    let (numbers, package) = match rest.split_once(" (") {
        Some((numbers, package)) => (numbers, Some(package.trim_end_matches(')').to_owned())),
        None => (rest, None),
    };
    let mut numbers = numbers.trim().split('.').map(|number| {
        let digits = number
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(number.len());
        number[..digits].parse().ok()
    });
    Some(QemuVersion {
        major: numbers.next()??,
        minor: numbers.next()??,
        micro: numbers.next().flatten().unwrap_or(0),
        package,
    })
}

/// A heading, then a name and a description on each line.
fn parse_machines(answer: &str) -> Option<Vec<Machine>> {
    let lines = answer
        .strip_prefix("Supported machines are:")?
        .lines()
        .filter(|line| !line.is_empty());
    let machine = |line: &str| {
        let (name, description) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Machine {
            name: name.to_owned(),
            description: description.trim().to_owned(),
        }
    };
    Some(lines.map(machine).collect())
}

/// A heading (RISC-V before 9.0 has none), then a name on each line, on some targets behind the
/// target's name, up to an empty line.
fn parse_cpus(answer: &str) -> Option<Vec<String>> {
    let lines = answer
        .lines()
        .skip_while(|line| line.is_empty() || line.starts_with("Available CPUs"));
    let name = |line: &str| {
        let mut words = line
            .split_whitespace()
            .filter(|word| !matches!(*word, "x86" | "PowerPC" | "s390"));
        words.next().map(str::to_owned)
    };
    let names: Vec<_> = lines
        .take_while(|line| !line.trim().is_empty())
        .filter_map(name)
        .collect();
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::{parse_cpus, parse_machines, parse_version};

    #[test]
    fn versions_of_distributions_and_of_developers() {
        let of = |text: &str| parse_version(text).map(|v| (v.major, v.minor, v.micro, v.package));
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n";
        assert_eq!(
            of(debian),
            Some((7, 2, 22, Some("Debian 1:7.2+dfsg-7+deb12u18+b3".to_owned())))
        );
        assert_eq!(of("QEMU emulator version 10.0.2"), Some((10, 0, 2, None)));
        assert_eq!(
            of("QEMU emulator version 9.2.50 (v9.2.0-123-g0)"),
            Some((9, 2, 50, Some("v9.2.0-123-g0".to_owned())))
        );
        assert_eq!(of("QEMU emulator version 8.0-rc1"), Some((8, 0, 0, None)));
        assert_eq!(of("GNU bash, version 5.2.15"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn machines_with_and_without_a_description() {
        let machines =
            parse_machines("Supported machines are:\nakita   Sharp SL-C1000\nbare\n").unwrap();
        assert_eq!(machines[0].name, "akita");
        assert_eq!(machines[0].description, "Sharp SL-C1000");
        assert_eq!(
            (machines[1].name.as_str(), machines[1].description.as_str()),
            ("bare", "")
        );
        assert_eq!(parse_machines("hello"), None);
    }

    #[test]
    fn cpus_of_several_targets() {
        assert_eq!(
            parse_cpus("Available CPUs:\n  cortex-m0\n  cortex-m3\n").unwrap(),
            ["cortex-m0", "cortex-m3"]
        );
        assert_eq!(
            parse_cpus("Available CPUs:\nx86 486   (alias)\n\nRecognized CPUID flags:\n  fpu\n")
                .unwrap(),
            ["486"]
        );
        assert_eq!(parse_cpus("any\nrv32\n").unwrap(), ["any", "rv32"]);
        assert_eq!(parse_cpus(""), None);
    }
}
