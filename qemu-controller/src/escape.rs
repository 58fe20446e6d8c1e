//! What others wrote (symbols, paths, QEMU's messages, what a firmware prints), made safe for a
//! terminal and for a log: escape sequences, bells and forged lines become visible.
//!
//! The texts of this crate's types that are shown (a [`Verdict`](crate::Verdict), a
//! [`VerdictReport`](crate::VerdictReport) …) have been through it; their fields are as they came.
//! What is escaped already stays as it is.

use std::fmt::{self, Write as _};

/// The text on one line; line ends are escaped too, tabs are not.
#[must_use]
pub fn line(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\t' || !is_unsafe(character) {
            escaped.push(character);
        } else {
            // A `String` takes all that is written to it.
            let _ = write!(escaped, "{}", character.escape_default());
        }
    }
    escaped
}

/// The text with its lines, those after the first indented: none of them looks like one of the
/// program's own.
#[must_use]
pub fn lines(text: &str) -> String {
    lines_behind(text, "    ")
}

/// The text with its lines, each of them escaped.
pub(crate) fn each_line(text: &impl fmt::Display) -> String {
    lines_behind(&text.to_string(), "")
}

fn lines_behind(text: &str, indent: &str) -> String {
    let mut lines = text.trim_end().lines().map(line);
    let first = lines.next().unwrap_or_default();
    lines.fold(first, |text, line| match line.is_empty() {
        true => text + "\n",
        false => format!("{text}\n{indent}{line}"),
    })
}

/// Whether a terminal acts on it, or shows what follows it in another order.
fn is_unsafe(character: char) -> bool {
    let ends_line = matches!(character, '\u{2028}' | '\u{2029}');
    let reorders = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || ends_line || reorders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stays_one() {
        let rows = [
            ("plain, grün\t1", "plain, grün\t1"),
            ("x\x1b]0;owned\x07\ny", "x\\u{1b}]0;owned\\u{7}\\ny"),
            ("\r\u{9b}31m\u{202e}", "\\r\\u{9b}31m\\u{202e}"),
            ("a\u{61c}b", "a\\u{61c}b"),
            ("a\u{2028}b\x7f", "a\\u{2028}b\\u{7f}"),
        ];
        for (text, expected) in rows {
            assert_eq!(line(text), expected);
        }
    }

    #[test]
    fn further_lines_are_indented() {
        assert_eq!(
            lines("one\r\n\ntwo\n\x1bthree\n\n"),
            "one\n\n    two\n    \\u{1b}three"
        );
    }
}
