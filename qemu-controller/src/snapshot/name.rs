//! A snapshot's name, which the user gives, and its tag inside the image, which says more.
//!
//! A tag is `name;generation;run state` and, in a file that outlives the session, the machine
//! that it was taken of: `boot;1;running;lm3s6965evb;cortex-m3;134217728;7.2.22;8d2f…`. In the tag
//! the note is written with the snapshot or not at all, and copied with the file. The generation
//! lets a new snapshot be saved beside the one that it replaces: until it is whole, the earlier one
//! is there.

use std::fmt;

use super::fingerprint::MachineFingerprint;

/// The most bytes of a name.
const MAX_NAME: usize = 64;

/// Why a text cannot be a snapshot's name; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot name a snapshot: a name has 1 to {MAX_NAME} characters, each an ASCII letter, a digit or one of . _ : -"
)]
pub struct InvalidName {
    /// The text.
    pub name: String,
}

/// A name needs no escaping anywhere, and leaves room in QEMU's 255 bytes for the rest of the tag.
pub(crate) fn check(name: &str) -> Result<(), InvalidName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    match name.len() {
        1..=MAX_NAME if name.bytes().all(allowed) => Ok(()),
        _ => Err(InvalidName {
            name: name.to_owned(),
        }),
    }
}

/// A snapshot's tag, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) name: String,
    /// Grows with each save over the same name; the highest counts. 0 for a snapshot that something
    /// else saved.
    pub(crate) generation: u64,
    /// Whether the guest ran when it was saved.
    pub(crate) running: Option<bool>,
    pub(crate) taken_with: Option<MachineFingerprint>,
}

impl Tag {
    /// Parses a tag. One that is not ours is a name and no more.
    pub(crate) fn parse(tag: &str) -> Self {
        Self::parse_ours(tag).unwrap_or_else(|| Self {
            name: tag.to_owned(),
            generation: 0,
            running: None,
            taken_with: None,
        })
    }

    fn parse_ours(tag: &str) -> Option<Self> {
        let mut parts = tag.splitn(4, ';');
        let name = parts.next().filter(|name| check(name).is_ok())?.to_owned();
        let generation = parts
            .next()?
            .parse()
            .ok()
            .filter(|&generation| generation > 0)?;
        let running = match parts.next()? {
            "running" => true,
            "paused" => false,
            _ => return None,
        };
        let taken_with = parts.next().and_then(MachineFingerprint::parse);
        Some(Self {
            name,
            generation,
            running: Some(running),
            taken_with,
        })
    }

    /// Whether this project saved it: then there is no SD card in it.
    pub(crate) fn is_ours(&self) -> bool {
        self.generation > 0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(running) = self.running else {
            return f.write_str(&self.name);
        };
        let state = if running { "running" } else { "paused" };
        write!(f, "{};{};{state}", self.name, self.generation)?;
        self.taken_with
            .iter()
            .try_for_each(|taken_with| write!(f, ";{taken_with}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "n".repeat(64);
        for good in ["boot", "a", "0", "after_boot-2.1", "module::case", &long] {
            check(good).unwrap();
        }
        let too_long = "n".repeat(65);
        for bad in [
            "", " ", "a b", "a;1", "a\n", "a\0", "é", "a/b", "a,b", "\"", &too_long,
        ] {
            assert_eq!(check(bad).unwrap_err().name, bad);
        }
    }

    fn tag(taken_with: Option<MachineFingerprint>) -> Tag {
        Tag {
            name: "n".repeat(64),
            generation: u64::MAX,
            running: Some(true),
            taken_with,
        }
    }

    #[test]
    fn tags_are_parsed_as_they_were_written() {
        for tag in [
            tag(None),
            tag(Some(MachineFingerprint::sample())),
            Tag {
                running: Some(false),
                ..tag(None)
            },
        ] {
            assert_eq!(Tag::parse(&tag.to_string()), tag);
        }
    }

    #[test]
    fn a_tag_is_never_longer_than_qemu_takes() {
        let tag = tag(Some(MachineFingerprint::sample())).to_string();
        assert!(
            (200..=255).contains(&tag.len()),
            "{} bytes: {tag}",
            tag.len()
        );
    }

    #[test]
    fn tags_of_others_are_names() {
        for other in [
            "boot",
            "boot;1",
            "boot;0;running",
            "boot;x;running",
            "boot;1;asleep",
            "a b;1;running",
            "",
        ] {
            let tag = Tag::parse(other);
            assert!(!tag.is_ours(), "{other}");
            assert_eq!((tag.to_string(), tag.running), (other.to_owned(), None));
        }
        // A note that makes no sense is no note.
        assert_eq!(Tag::parse("boot;1;running;what").taken_with, None);
    }
}
