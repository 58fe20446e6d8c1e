//! `--expect`: whether what was hoped for has been printed.

use regex::bytes::Regex;

use crate::args::Run;

/// What is kept of what was printed, for what is expected to have come in pieces.
const WINDOW_BYTES: usize = 64 * 1024;

/// A text or a regular expression, in a stream of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pattern: Regex,
    recent: Vec<u8>,
}

impl Expectation {
    /// What the arguments ask for.
    pub(crate) fn of(run: &Run) -> Result<Option<Self>, regex::Error> {
        let text = run.expect.as_deref().map(regex::escape);
        let pattern = text.as_deref().or(run.expect_regex.as_deref());
        pattern.map(|pattern| Ok(Self { pattern: Regex::new(pattern)?, recent: Vec::new() })).transpose()
    }

    /// Whether it has come with these bytes, which follow those before.
    pub(crate) fn met_by(&mut self, bytes: &[u8]) -> bool {
        self.recent.extend_from_slice(bytes);
        let met = self.pattern.is_match(&self.recent);
        self.recent.drain(..self.recent.len().saturating_sub(WINDOW_BYTES));
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
        let Verb::Run(run) = Arguments::try_parse_from(words).unwrap().verb;
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
        assert!(met("--expect-regex", r"tick \d{2}\b", &[b"tick 9\ntick 1", b"0\n"]));
        assert!(!met("--expect-regex", "^tick", &[b"boot\ntick"]));
        assert!(expectation("--expect-regex", "(").is_err());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut expectation = expectation("--expect", "never").unwrap().unwrap();
        for _ in 0..100 {
            assert!(!expectation.met_by(&[b'x'; 4096]));
        }
        assert_eq!(expectation.recent.len(), WINDOW_BYTES);
        assert!(!expectation.met_by(b"ne") && expectation.met_by(b"ver"));
    }
}
