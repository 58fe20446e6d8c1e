//! What can go wrong: the file, its debug information, and a name that is not there.

use std::io;

/// The file cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be read.
    #[error("the ELF file cannot be read")]
    Unreadable(#[from] io::Error),
    /// It is no ELF file, or its headers are damaged.
    #[error("this is no ELF file that can be read: {0}")]
    NotElf(String),
}

/// A part of the file cannot be used. Other parts may be fine, and asking again gives the same
/// answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DebugInfoError {
    /// A section cannot be read or decompressed.
    #[error("section {section} cannot be used: {reason}")]
    Section {
        /// The section's name.
        section: String,
        /// Why.
        reason: String,
    },
    /// The debug information is damaged, or of a kind that is not known.
    #[error("the debug information is damaged: {0}")]
    Damaged(String),
    /// The debug information asks for more than an honest file of its size needs.
    #[error("the debug information exceeds a limit: {0}")]
    Limit(&'static str),
}

#[cfg(feature = "dwarf")]
impl From<gimli::Error> for DebugInfoError {
    fn from(error: gimli::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A name that no symbol has, or several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No symbol has this name.
    #[error("the firmware has no symbol '{}'{}", name.escape_debug(), hint(similar))]
    Unknown {
        /// What was asked for.
        name: String,
        /// A few names like it, the most similar first.
        similar: Vec<String>,
    },
    /// Several symbols have this name, or end with it.
    #[error("'{}' could be {}; say which", name.escape_debug(), candidates.join(" or "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// A few of those it could be.
        candidates: Vec<String>,
    },
    /// The file's symbol table cannot be used.
    #[error(transparent)]
    NoTable(#[from] DebugInfoError),
}

fn hint(similar: &[String]) -> String {
    match similar {
        [] => String::new(),
        names => format!("; similar ones: {}", names.join(", ")),
    }
}
