//! Finding QEMU, and asking it for its version and for what it supports.
//!
//! A program given as a bare name is looked up in the environment variable of its name in capitals
//! (`QEMU_SYSTEM_ARM` for `qemu-system-arm`), then in `PATH`, of which empty entries are passed
//! over. A path with a separator is taken as it is.

pub(crate) mod install;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

pub use ask::{AskError, Machine, Qemu, QemuVersion};

use install::install_command;

mod ask;

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
    /// The system refused to let it be looked at, which says nothing about the program itself.
    #[error("could not look whether {} is a program", path.display())]
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
/// There is none, it may not be executed, or it is no program: three different errors, with the
/// path that was tried.
pub fn find(program: impl AsRef<Path>) -> Result<PathBuf, FindError> {
    let program = program.as_ref();
    let at = |path: &Path, looked_in: &str| runnable(path)?.ok_or_else(|| missing(path, looked_in));
    if program.components().count() > 1 {
        return at(program, "its folder");
    }
    let variable = variable(program);
    if let Some(named) = std::env::var_os(&variable).filter(|value| !value.is_empty()) {
        return at(
            Path::new(&named),
            &format!("the variable {}", variable.display()),
        );
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
    // An empty entry means the current folder to a shell. Here it means nothing: with PATH unset or
    // empty, a program of that name in the current folder would be run.
    let folders = std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty());
    for folder in folders {
        match runnable(&folder.join(&file)) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            // As a shell does: a folder that may not be looked into has none.
            Err(FindError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied => {}
            // Such as too many open files: that says nothing about the program.
            Err(bad @ FindError::Unreadable { .. }) => return Err(bad),
            // A later folder may have a better one.
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

/// Checks that the system would run it; `None` where there is nothing. This is not left to `exec`:
/// the C library hands a file that is no program to a shell, which would run it line by line.
fn runnable(path: &Path) -> Result<Option<PathBuf>, FindError> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    // A bare name would be looked up once more when it is executed.
    let absolute = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bad = |found| FindError::NotAProgram {
        path: path.to_owned(),
        found,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
            return Ok(None);
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
    if !metadata.is_file() {
        // Opening a pipe would wait for a writer.
        return Err(bad("a device, pipe or socket"));
    }
    if !may_execute(path, &metadata) {
        return Err(FindError::NotExecutable {
            path: path.to_owned(),
        });
    }
    match what_instead(path, &metadata) {
        Ok(None) => Ok(Some(absolute())),
        Ok(Some(found)) => Err(bad(found)),
        // It may be executed but not read: that is enough.
        Err(error) if error.kind() == PermissionDenied => Ok(Some(absolute())),
        Err(source) => Err(FindError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What the file is instead of a program, by its first bytes. They are read again only when its
/// size or its modification time has changed: opening and reading it takes as long as all other
/// checks.
fn what_instead(path: &Path, metadata: &fs::Metadata) -> io::Result<Option<&'static str>> {
    static LAST_PROGRAM: Mutex<Option<(PathBuf, u64, SystemTime)>> = Mutex::new(None);
    let last = || LAST_PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let (length, modified) = (metadata.len(), metadata.modified()?);
    if last()
        .as_ref()
        .is_some_and(|(p, l, m)| (p.as_path(), *l, *m) == (path, length, modified))
    {
        return Ok(None);
    }
    let mut start = [0; 20];
    let read = File::open(path)?.read(&mut start)?;
    let found = no_program(&start[..read]);
    if found.is_none() {
        *last() = Some((path.to_owned(), length, modified));
    }
    Ok(found)
}

#[cfg(unix)]
fn may_execute(path: &Path, _: &fs::Metadata) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn may_execute(_: &Path, metadata: &fs::Metadata) -> bool {
    metadata.is_file()
}

/// What a file with these first bytes is instead of a program; `None` for an ELF, Mach-O or Windows
/// program, and for a script with an interpreter's line.
fn no_program(start: &[u8]) -> Option<&'static str> {
    const MACH_O: [[u8; 4]; 3] = [
        [0xcf, 0xfa, 0xed, 0xfe],
        [0xca, 0xfe, 0xba, 0xbe],
        [0xca, 0xfe, 0xba, 0xbf],
    ];
    let mach_o = || MACH_O.iter().any(|magic| start.starts_with(magic));
    match start {
        [] => Some("an empty file"),
        [b'M', b'Z', ..] if cfg!(windows) => None,
        [b'#', b'!', ..] if cfg!(unix) => None,
        _ if cfg!(target_vendor = "apple") && mach_o() => None,
        [0x7f, b'E', b'L', b'F', .., low, high] if cfg!(unix) && start.len() == 20 => {
            if runs_here(u16::from_ne_bytes([*low, *high])) {
                None
            } else {
                Some("a program for another CPU")
            }
        }
        _ => Some("a file of another kind"),
    }
}

/// Whether this CPU runs ELF programs for that machine; where that is not known, the system may
/// find out.
fn runs_here(machine: u16) -> bool {
    use object::elf::{EM_386, EM_AARCH64, EM_ARM, EM_X86_64};
    match std::env::consts::ARCH {
        "x86" | "x86_64" => machine == EM_386.0 || machine == EM_X86_64.0,
        "arm" | "aarch64" => machine == EM_ARM.0 || machine == EM_AARCH64.0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{no_program, variable};

    #[test]
    fn the_variable_is_the_name_in_capitals() {
        assert_eq!(variable(Path::new("qemu-system-arm")), "QEMU_SYSTEM_ARM");
    }

    #[test]
    #[cfg(unix)]
    fn programs_by_their_first_bytes() {
        let elf = |machine: u16| {
            let mut start = [0; 20];
            start[..4].copy_from_slice(b"\x7fELF");
            start[18..].copy_from_slice(&machine.to_ne_bytes());
            no_program(&start)
        };
        assert_eq!(no_program(b"#!/bin/sh\n"), None);
        assert_eq!(
            no_program(b"\x7fELF"),
            Some("a file of another kind"),
            "it ends too early"
        );
        assert_eq!(no_program(b"MZ\x90\0"), Some("a file of another kind"));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(
                (elf(62), elf(3), elf(183)),
                (None, None, Some("a program for another CPU"))
            );
        }
    }
}
