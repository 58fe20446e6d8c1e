//! The environment variables that QEMU gets.

use std::ffi::{OsStr, OsString};

use crate::argv::option;
use crate::error::SpecError;

/// A variable that is wanted: its value, or `None` for the one that this process has.
type Wanted = (OsString, Option<OsString>);

/// Variables that QEMU gets from this process. Not among them, on purpose: `LD_PRELOAD`,
/// `LD_LIBRARY_PATH` and `QEMU_MODULE_DIR`, which make it load code.
const ENVIRONMENT: &[&str] = if cfg!(windows) {
    &["PATH", "SystemRoot", "TEMP", "TMP", "USERPROFILE"]
} else {
    &["PATH", "HOME", "TMPDIR", "TZ"]
};

/// A variable that the system does not take would be dropped, or fail the start without a word on
/// which one it is.
pub(crate) fn check(wanted: &[Wanted]) -> Result<(), SpecError> {
    for (name, value) in wanted {
        let bytes = name.as_encoded_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
            return Err(SpecError::Invalid {
                what: "environment variable",
                message: format!(
                    "{name:?} is no name of an environment variable: not empty, without = and NUL"
                ),
            });
        }
        if let Some(value) = value {
            option::value("environment variable's value", value)?;
        }
    }
    Ok(())
}

/// The variables that QEMU gets, and no others.
pub(crate) fn variables(wanted: &[Wanted]) -> Vec<(OsString, OsString)> {
    let of_this_process =
        |name: &OsStr| std::env::var_os(name).map(|value| (name.to_owned(), value));
    let mut variables: Vec<_> = ENVIRONMENT
        .iter()
        .filter_map(|name| of_this_process(name.as_ref()))
        .collect();
    variables.extend(wanted.iter().filter_map(|(name, value)| match value {
        Some(value) => Some((name.clone(), value.clone())),
        None => of_this_process(name),
    }));
    variables
}
