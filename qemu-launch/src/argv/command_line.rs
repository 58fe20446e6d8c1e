//! QEMU's command line as words, and as a shell would have it written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::discover::install::target_of;

/// QEMU's command line, or another's. Its `Display` can be pasted into a shell: any POSIX one, or bash, zsh or
/// ksh where a word is not printable text (`$'…'`). For a machine with inherited channels it only
/// shows what was run: the descriptors are QEMU's, and a shell has none of those numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argv {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Argv {
    /// Any program's command line, to show it as a shell takes it.
    #[must_use]
    pub fn new(program: PathBuf, args: Vec<OsString>) -> Self {
        Self { program, args }
    }

    /// The program, which is also the first word.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The target that the program's name says, as `arm` in `qemu-system-arm`.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        target_of(self.program.file_name()?.to_str()?)
    }

    /// The arguments after the program.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.args
    }
}

/// The same program and arguments, to start QEMU by other means. Inherited channels are not
/// passed by it: their descriptors have to be at the numbers that the arguments name.
impl From<&Argv> for Command {
    fn from(argv: &Argv) -> Self {
        let mut command = Self::new(&argv.program);
        command.args(&argv.args);
        command
    }
}

impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shell_word(f, self.program.as_os_str())?;
        for arg in &self.args {
            f.write_str(" ")?;
            write_shell_word(f, arg)?;
        }
        Ok(())
    }
}

/// Writes one word so that a shell reads back exactly its bytes. For what is not printable text
/// POSIX has no way to write it; `$'…'` is bash's, zsh's and ksh's.
fn write_shell_word(f: &mut fmt::Formatter<'_>, word: &OsStr) -> fmt::Result {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b);
    let bytes = word.as_encoded_bytes();
    match word.to_str() {
        Some(text) if !bytes.is_empty() && bytes.iter().all(|&b| plain(b)) => f.write_str(text),
        Some(text) if !text.chars().any(char::is_control) => {
            write!(f, "'{}'", text.replace('\'', r"'\''"))
        }
        _ => {
            f.write_str("$'")?;
            for &byte in bytes {
                match byte {
                    b'\'' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    0x20..=0x7e => write!(f, "{}", char::from(byte))?,
                    // Three octal digits always: no digit that follows can be taken into the
                    // escape.
                    _ => write!(f, "\\{byte:03o}")?,
                }
            }
            f.write_str("'")
        }
    }
}
