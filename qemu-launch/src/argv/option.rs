//! Escaping by option: how QEMU takes one command-line value apart, and how to write one that
//! survives it.
//!
//! QEMU has three ways of reading an option's value:
//!
//! - *lists* (`-chardev`, `-drive`, `-machine`, ...): `key=value` pairs separated by commas, a comma
//!   in a value is doubled (QEMU's `opts_parse` and `keyval_parse`). [`OptionList`] writes these.
//! - *literal* (`-kernel`, `-bios`, `-D`): the whole argument as it is.
//! - *features* (`-cpu`): separated by commas with no way to escape one, so a comma is refused.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::error::SpecError;

/// A `key=value,key=value` argument in the making, with commas in values doubled.
#[derive(Debug, Clone)]
pub(crate) struct OptionList {
    text: OsString,
    pairs: Vec<(String, OsString)>,
}

impl OptionList {
    /// Begins with the value of the implied key, such as a machine's `type`; it must be a checked
    /// [`word`].
    pub(crate) fn new(key: &str, first: &str) -> Self {
        Self {
            text: first.into(),
            pairs: vec![(key.to_owned(), first.into())],
        }
    }

    pub(crate) fn empty() -> Self {
        Self {
            text: OsString::new(),
            pairs: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.push(key, value);
        self
    }

    pub(crate) fn on(self, key: &str) -> Self {
        self.with(key, "on")
    }

    pub(crate) fn off(self, key: &str) -> Self {
        self.with(key, "off")
    }

    pub(crate) fn push(&mut self, key: &str, value: impl AsRef<OsStr>) {
        if !self.text.is_empty() {
            self.text.push(",");
        }
        self.text.push(key);
        self.text.push("=");
        self.text.push(double_commas(value.as_ref()));
        self.pairs.push((key.to_owned(), value.as_ref().to_owned()));
    }

    /// The value that the key has already; QEMU would take the last one without a word.
    pub(crate) fn value_of(&self, key: &str) -> Option<&OsStr> {
        let pair = self.pairs.iter().find(|(known, _)| known == key);
        pair.map(|(_, value)| value.as_os_str())
    }

    pub(crate) fn finish(self) -> OsString {
        self.text
    }
}

/// The properties of a `-device loader,…`, read as QEMU does; `None` for another device.
pub(crate) fn loader_in(list: &OsStr) -> Option<Vec<(String, OsString)>> {
    // Only text: what is not Unicode is a loader of which nothing is known.
    let text = list.to_string_lossy();
    let joined = text.replace(",,", "\0");
    let mut pieces = joined.split(',');
    if !matches!(pieces.next()?, "loader" | "driver=loader") {
        return None;
    }
    let pairs = pieces.filter_map(|piece| piece.split_once('='));
    Some(
        pairs
            .map(|(key, value)| (key.to_owned(), value.replace('\0', ",").into()))
            .collect(),
    )
}

/// Doubles every comma: in a list, `,,` is one comma of the value.
#[cfg(unix)]
fn double_commas(value: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut out = Vec::with_capacity(value.len() + 2);
    for &byte in value.as_bytes() {
        out.extend_from_slice(if byte == b',' {
            b",,"
        } else {
            std::slice::from_ref(&byte)
        });
    }
    OsString::from_vec(out)
}

/// Doubles every comma: in a list, `,,` is one comma of the value. [`value`] has refused what is
/// not Unicode.
#[cfg(not(unix))]
fn double_commas(value: &OsStr) -> OsString {
    value.to_string_lossy().replace(',', ",,").into()
}

/// Checks a name that QEMU itself defines, such as a board's: letters, digits and `- _ . +`, a
/// letter or digit first. Such a word needs no escaping anywhere.
pub(crate) fn word<'a>(what: &'static str, text: &'a str) -> Result<&'a str, SpecError> {
    name(what, text, b"", b"-_.+", true)
}

/// Checks an id as QEMU does (`id_wellformed`): a letter, then letters, digits and `- . _`.
pub(crate) fn id<'a>(what: &'static str, text: &'a str) -> Result<&'a str, SpecError> {
    name(what, text, b"", b"-_.", false)
}

/// Checks a property's name: what [`word`] takes, and `[ ] /` for array properties; never `=` or a
/// comma.
pub(crate) fn key<'a>(what: &'static str, text: &'a str) -> Result<&'a str, SpecError> {
    name(what, text, b"_", b"-_.+[]/", true)
}

/// A name of ASCII letters and digits, and of `first` at its beginning and `rest` behind it.
fn name<'a>(
    what: &'static str,
    text: &'a str,
    first: &[u8],
    rest: &[u8],
    digit_first: bool,
) -> Result<&'a str, SpecError> {
    let begins = |b: &u8| {
        b.is_ascii_alphabetic() || (digit_first && b.is_ascii_digit()) || first.contains(b)
    };
    let goes_on = |b: u8| b.is_ascii_alphanumeric() || rest.contains(&b);
    if text.as_bytes().first().is_some_and(begins) && text.bytes().all(goes_on) {
        Ok(text)
    } else {
        Err(SpecError::bad_name(what, text))
    }
}

/// Checks free text that goes into an argument: no NUL, which would silently end the argument.
pub(crate) fn value<'a>(what: &'static str, text: &'a OsStr) -> Result<&'a OsStr, SpecError> {
    if text.as_encoded_bytes().contains(&0) {
        return Err(SpecError::invalid(what, format!("{text:?} contains a NUL")));
    }
    if !cfg!(unix) && text.to_str().is_none() {
        return Err(SpecError::invalid(
            what,
            format!("{text:?} is not Unicode, which arguments have to be on this system"),
        ));
    }
    Ok(text)
}

/// A path made absolute, so that it cannot begin with a dash, `json:` or a protocol's name.
pub(crate) fn path(what: &'static str, path: &Path) -> Result<OsString, SpecError> {
    value(what, path.as_os_str())?;
    match std::path::absolute(path) {
        Ok(absolute) => Ok(absolute.into_os_string()),
        Err(error) => Err(SpecError::invalid(
            what,
            format!("{path:?} can't be made an absolute path: {error}"),
        )),
    }
}
