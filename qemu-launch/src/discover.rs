//! Finding QEMU, and asking it for its version and for what it supports.
//!
//! A program given as a bare name is looked up in the environment variable of its name in capitals (`QEMU_SYSTEM_ARM`
//! for `qemu-system-arm`), then in `PATH`. A path with a separator is taken as it is.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::SpawnError;
use crate::exit::Exit;
use crate::install::install_command;
use crate::spawn;

/// How long QEMU may take to answer; it needs 22 ms.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// No QEMU was found, or what was found can't be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// There is no such program.
    #[error("{} was not found in {looked_in}; {}", program.display(), hint(install))]
    Missing {
        /// The program that was looked for.
        program: PathBuf,
        /// Where it was looked for.
        looked_in: String,
        /// The command that installs it on this system, where that is known.
        install: Option<String>,
    },
    /// It is there, but it may not be executed.
    #[error("{} may not be executed; give it the permission (chmod +x), or name another program", path.display())]
    NotExecutable {
        /// The path that was tried.
        path: PathBuf,
    },
    /// It is there and may be executed, but it is no program.
    #[error("{} is no program but {found}; name a QEMU such as qemu-system-arm", path.display())]
    NotAProgram {
        /// The path that was tried.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// It could not be looked at.
    #[error("{} can't be looked at", path.display())]
    Unreadable {
        /// The path that was tried.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn hint(install: &Option<String>) -> String {
    match install {
        Some(command) => format!("install it with `{command}`"),
        None => "install QEMU, or name its path".to_owned(),
    }
}

/// Finds the program, without running it.
///
/// # Errors
/// There is none, it may not be executed, or it is no program: three different errors, with the path that was tried.
pub fn find(program: impl AsRef<Path>) -> Result<PathBuf, FindError> {
    let program = program.as_ref();
    if program.components().count() > 1 {
        return runnable(program, "its folder");
    }
    let variable = variable(program);
    if let Some(named) = std::env::var_os(&variable).filter(|value| !value.is_empty()) {
        return runnable(Path::new(&named), &format!("the variable {}", variable.display()));
    }
    in_path(program)
}

/// The variable that names the program: `QEMU_SYSTEM_ARM` for `qemu-system-arm`.
fn variable(program: &Path) -> OsString {
    program
        .to_string_lossy()
        .to_uppercase()
        .replace(['-', '.'], "_")
        .into()
}

fn in_path(program: &Path) -> Result<PathBuf, FindError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut file = program.as_os_str().to_owned();
    file.push(std::env::consts::EXE_SUFFIX);
    let mut first_bad = None;
    for folder in std::env::split_paths(&path) {
        match runnable(&folder.join(&file), "") {
            Ok(found) => return Ok(found),
            Err(FindError::Missing { .. }) => {}
            // As a shell does: a later folder may have a better one.
            Err(bad) => first_bad = first_bad.or(Some(bad)),
        }
    }
    Err(first_bad.unwrap_or_else(|| missing(program, &format!("PATH ({})", path.display()))))
}

fn missing(program: &Path, looked_in: &str) -> FindError {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let install = install_command(&name).map(|words| words.join(" "));
    FindError::Missing {
        program: program.to_owned(),
        looked_in: looked_in.to_owned(),
        install,
    }
}

/// Looks whether the system would run it. Not left to `exec`: the C library hands a file that is no program to a
/// shell, which would run it line by line.
fn runnable(path: &Path, looked_in: &str) -> Result<PathBuf, FindError> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    // A bare name would be looked up once more by whoever runs it.
    let absolute = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bad = |found| FindError::NotAProgram {
        path: path.to_owned(),
        found,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
            return Err(missing(path, looked_in));
        }
        Err(source) => {
            return Err(FindError::Unreadable {
                path: path.to_owned(),
                source,
            });
        }
    };
    if metadata.is_dir() {
        return Err(bad("a folder"));
    }
    if !may_execute(path, &metadata) {
        return Err(FindError::NotExecutable {
            path: path.to_owned(),
        });
    }
    let mut start = [0; 4];
    match File::open(path).and_then(|mut file| file.read(&mut start)) {
        Ok(0) => Err(bad("an empty file")),
        Ok(read) if is_program(&start[..read]) => Ok(absolute()),
        Ok(_) => Err(bad("a file of another kind")),
        // It may be executed but not read: that is enough.
        Err(error) if error.kind() == PermissionDenied => Ok(absolute()),
        Err(source) => Err(FindError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(unix)]
fn may_execute(path: &Path, _: &fs::Metadata) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn may_execute(_: &Path, metadata: &fs::Metadata) -> bool {
    metadata.is_file()
}

/// By the first bytes: an ELF or Mach-O program, a script with an interpreter's line, a Windows program.
fn is_program(start: &[u8]) -> bool {
    if cfg!(windows) {
        return start.starts_with(b"MZ");
    }
    let mach_o = [
        [0xcf, 0xfa, 0xed, 0xfe],
        [0xca, 0xfe, 0xba, 0xbe],
        [0xca, 0xfe, 0xba, 0xbf],
    ];
    start.starts_with(b"#!")
        || start == b"\x7fELF"
        || (cfg!(target_vendor = "apple") && mach_o.iter().any(|m| start == m))
}

/// QEMU's version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
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

/// A QEMU program that was found. What it answers is remembered for this program's life, as long as the file's
/// size and modification time stay the same.
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
        Ok(Self { path: find(program)? })
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
    pub fn version(&self) -> Result<Version, AskError> {
        let answer = self.ask(&["-version"])?;
        parse_version(&answer).ok_or_else(|| self.not_qemu("-version", &answer))
    }

    /// The boards that it emulates. Blocks for about 25 ms the first time.
    ///
    /// # Errors
    /// It can't be asked, or is no QEMU.
    pub fn machines(&self) -> Result<Vec<Machine>, AskError> {
        let answer = self.ask(&["-machine", "help"])?;
        parse_machines(&answer).ok_or_else(|| self.not_qemu("-machine help", &answer))
    }

    /// The CPU models that it emulates, whichever board they fit. Blocks for about 25 ms the first time.
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
        let key = (self.path.clone(), metadata.len(), modified, question.to_vec());
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
fn parse_version(answer: &str) -> Option<Version> {
    let rest = answer.lines().next()?.strip_prefix("QEMU emulator version ")?;
    let (numbers, package) = match rest.split_once(" (") {
        Some((numbers, package)) => (numbers, Some(package.trim_end_matches(')').to_owned())),
        None => (rest, None),
    };
    let mut numbers = numbers.trim().split('.').map(|number| {
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        number[..digits].parse().ok()
    });
    Some(Version {
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

/// A heading (RISC-V before 9.0 has none), then a name on each line, on some targets behind the target's name, up to
/// an empty line.
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
    use std::path::Path;

    use super::{parse_cpus, parse_machines, parse_version, variable};

    #[test]
    fn versions_of_distributions_and_of_developers() {
        let of = |text: &str| parse_version(text).map(|v| (v.major, v.minor, v.micro, v.package));
        let debian =
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n";
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
        let machines = parse_machines("Supported machines are:\nakita   Sharp SL-C1000\nbare\n").unwrap();
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
            parse_cpus("Available CPUs:\nx86 486   (alias)\n\nRecognized CPUID flags:\n  fpu\n").unwrap(),
            ["486"]
        );
        assert_eq!(parse_cpus("any\nrv32\n").unwrap(), ["any", "rv32"]);
        assert_eq!(parse_cpus(""), None);
    }

    #[test]
    fn the_variable_is_the_name_in_capitals() {
        assert_eq!(variable(Path::new("qemu-system-arm")), "QEMU_SYSTEM_ARM");
    }
}
