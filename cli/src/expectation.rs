//! `--expect`: whether what was hoped for has been printed.

use regex::bytes::{Regex, RegexBuilder};

use crate::args::Run;

/// How far back a regular expression sees. A guest's UART comes in pieces of a few bytes, each a
/// search of all that.
const REGEX_SEES_BYTES: usize = 4 * 1024;

/// How large a compiled regular expression may be: a search takes time in proportion, and memory.
const REGEX_BYTES: usize = 1024 * 1024;

/// A text or a regular expression, in a stream of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pattern: Regex,
    is_fast: bool,
    /// How many bytes before the new ones a match may begin.
    back: usize,
    /// Those, and one before them for what looks behind (`^`, `\b`).
    recent: Vec<u8>,
    /// `recent` does not begin with the first byte ever.
    cut: bool,
}

impl Expectation {
    /// What the arguments ask for.
    pub(crate) fn of(run: &Run) -> Result<Option<Self>, regex::Error> {
        match (&run.expect, &run.expect_regex) {
            (Some(text), _) => Self::text(text).map(Some),
            (None, Some(regex)) => Self::new(regex, REGEX_SEES_BYTES).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// This text.
    pub(crate) fn text(text: &str) -> Result<Self, regex::Error> {
        Ok(Self {
            is_fast: true,
            ..Self::new(&regex::escape(text), text.len())?
        })
    }

    fn new(pattern: &str, back: usize) -> Result<Self, regex::Error> {
        Ok(Self {
            pattern: RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build()?,
            is_fast: false,
            back,
            recent: Vec::new(),
            cut: false,
        })
    }

    /// Whether a search takes no time to speak of, as of a text.
    pub(crate) fn is_fast(&self) -> bool {
        self.is_fast
    }

    /// Whether it has come with these bytes, which follow those before.
    pub(crate) fn met_by(&mut self, bytes: &[u8]) -> bool {
        self.recent.extend_from_slice(bytes);
        let met = self
            .pattern
            .is_match_at(&self.recent, usize::from(self.cut));
        let excess = self.recent.len().saturating_sub(self.back + 1);
        self.recent.drain(..excess);
        self.cut |= excess > 0;
        met
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Verb};

    fn expectation(option: &str, value: &str) -> Result<Option<Expectation>, regex::Error> {
        let words = ["qemu-controller", "run", option, value, "a.elf"];
        let Verb::Run(run) = Arguments::try_parse_from(words).unwrap().verb else {
            panic!("it is a run");
        };
        Expectation::of(&run)
    }

    fn met(option: &str, value: &str, pieces: &[&[u8]]) -> bool {
        let mut expectation = expectation(option, value).unwrap().unwrap();
        pieces.iter().any(|piece| expectation.met_by(piece))
    }

    #[test]
    fn a_text_is_found_in_any_pieces_and_among_any_bytes() {
        assert!(met("--expect", "a+b", &[b"\xff\0a+b"]));
        assert!(met("--expect", "a+b", &[b"a", b"+", b"b"]));
        assert!(!met("--expect", "a+b", &[b"aab"]));
        assert!(met("--expect", "grün", &["gr\u{fc}n".as_bytes()]));
    }

    #[test]
    fn a_regular_expression_too() {
        assert!(met(
            "--expect-regex",
            r"tick \d{2}\b",
            &[b"tick 9\ntick 1", b"0\n"]
        ));
        assert!(!met("--expect-regex", "^tick", &[b"boot\ntick"]));
        assert!(expectation("--expect-regex", "(").is_err());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        for (option, value, kept) in [
            ("--expect", "never", "never".len()),
            ("--expect-regex", "never", REGEX_SEES_BYTES),
        ] {
            let mut expectation = expectation(option, value).unwrap().unwrap();
            for length in [1, 7, 4096, 10_000] {
                assert!(!expectation.met_by(&vec![b'x'; length]));
                assert!(expectation.recent.len() <= kept + 1);
            }
            assert!(!expectation.met_by(b"ne") && expectation.met_by(b"ver"));
        }
    }

    #[test]
    fn what_looks_behind_sees_what_was_before() {
        let long = [b'x'; 2 * REGEX_SEES_BYTES];
        assert!(
            !met("--expect-regex", "^x*y", &[&long, b"y"]),
            "not at the first byte any more"
        );
        assert!(!met("--expect-regex", r"\bxy", &[&long, b"y"]));
        assert!(met("--expect-regex", "(?m)^y", &[&long, b"\n", b"y"]));
        assert!(met("--expect-regex", "xy$", &[&long, b"y"]));
    }
}
