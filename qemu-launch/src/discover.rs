//! Finding QEMU: an explicit path, an environment variable, PATH.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// No QEMU was found, or what was found can't be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// There is no such program.
    #[error("{} was not found in {looked_in}", program.display())]
    Missing {
        /// The program that was looked for.
        program: PathBuf,
        /// Where it was looked for.
        looked_in: String,
    },
}

/// The variable that names the program instead of PATH: `QEMU_SYSTEM_ARM` for `qemu-system-arm`.
fn variable(program: &Path) -> OsString {
    program
        .to_string_lossy()
        .to_uppercase()
        .replace(['-', '.'], "_")
        .into()
}

/// Finds the program: a path with a separator is taken as it is; a bare name is looked up in the environment variable
/// of its name (`QEMU_SYSTEM_ARM` for `qemu-system-arm`), then in PATH.
///
/// # Errors
/// Nothing there, or nothing that can be run.
pub fn find(program: &Path) -> Result<PathBuf, FindError> {
    let missing = |looked_in: String| FindError::Missing {
        program: program.to_owned(),
        looked_in,
    };
    if program.components().count() > 1 {
        return program
            .is_file()
            .then(|| program.to_owned())
            .ok_or_else(|| missing("its folder".into()));
    }
    if let Some(named) = std::env::var_os(variable(program)) {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| missing(format!("PATH ({})", path.display())))
}
