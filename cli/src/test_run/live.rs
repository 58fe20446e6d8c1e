//! What tests print, as it comes: whole lines, and the beginning of one where a single test runs.

use std::collections::HashMap;

use crate::escape;

/// A line that ends nowhere is cut here.
const LONGEST_LINE: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct LiveOutput {
    /// Of each test what is not shown yet.
    pending: HashMap<String, Vec<u8>>,
    /// The test whose unfinished line is the last that was shown.
    open: Option<String>,
}

impl LiveOutput {
    /// What is to be shown now that this test has printed this.
    pub(super) fn push(&mut self, test: &str, bytes: &[u8], is_alone: bool) -> String {
        let pending = self.pending.entry(test.to_owned()).or_default();
        pending.extend_from_slice(bytes);
        let whole = pending.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        let rest = pending.split_off(whole);
        let lines = std::mem::replace(pending, rest);
        let is_text = |rest: &[u8]| !rest.ends_with(b"\r") && std::str::from_utf8(rest).is_ok();
        let begun = match pending.len() {
            0 => None,
            length if length > LONGEST_LINE || is_alone && is_text(pending) => {
                Some(std::mem::take(pending))
            }
            _ => None,
        };
        let mut text = String::new();
        if !lines.is_empty() || begun.is_some() {
            if self.open.as_deref().is_some_and(|open| open != test) {
                text += self.end_line();
            }
            text += &shown(&lines);
            if !lines.is_empty() {
                self.open = None;
            }
        }
        if let Some(begun) = begun {
            text += shown(&begun).trim_end_matches('\n');
            self.open = Some(test.to_owned());
        }
        text
    }

    /// What is left of a test that is over.
    pub(super) fn finish(&mut self, test: &str) -> String {
        let mut text = match self.pending.remove(test) {
            Some(rest) if !rest.is_empty() => self.push(test, &[&rest[..], b"\n"].concat(), false),
            _ => String::new(),
        };
        self.pending.remove(test);
        text += self.end_line();
        text
    }

    /// Ends an unfinished line, before something else is shown.
    fn end_line(&mut self) -> &'static str {
        match self.open.take() {
            Some(_) => "\n",
            None => "",
        }
    }
}

/// Lines as they are shown: none reaches the terminal's control.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| escape::line(line) + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_a_single_test_s_at_once() {
        let mut live = LiveOutput::default();
        assert_eq!(live.push("a", b"one\r\ntw", false), "one\n");
        assert_eq!(live.push("b", b"\x1b[31mred\n", false), "\\u{1b}[31mred\n");
        assert_eq!(live.push("a", b"", true), "tw");
        assert_eq!(live.push("a", b"o, and ", true), "o, and ");
        assert_eq!(live.push("b", b"between\n", false), "\nbetween\n");
        // Neither half a letter nor half a line end.
        assert_eq!(live.push("a", b"gr\xc3", true), "");
        assert_eq!(live.push("a", b"\xbcn\r", true), "");
        assert_eq!(live.push("a", b"\nend", true), "grün\nend");
        assert_eq!(live.finish("a"), "\n");
        assert_eq!(live.push("b", b"rest", false), "");
        assert_eq!(live.finish("b"), "rest\n");
        assert_eq!(live.finish("c"), "");
        let endless = live.push("b", &[b'x'; 2 * LONGEST_LINE], false);
        assert_eq!(endless.len(), 2 * LONGEST_LINE);
    }
}
