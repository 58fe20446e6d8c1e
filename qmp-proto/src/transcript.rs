//! A conversation as text, for logs and for tests: one line of the wire a line.
//!
//! - `> ` begins a line that the client sent. Nothing followed it on the wire: QMP commands end
//!   with their brace.
//! - `< ` begins a line that the server sent. CRLF followed it on the wire, as QEMU ends every
//!   line, also inside of a message that is pretty-printed.
//! - `#` begins a remark. It and empty lines mean nothing. A log puts its times there.
//!
//! ```
//! use qmp_proto::transcript::{TranscriptLine, Speaker, lines};
//!
//! let text = "# 0.031 s\n> {\"execute\":\"stop\",\"id\":\"0000002a-2\"}\n< {\"return\": {}, \"id\": \"0000002a-2\"}\n";
//! let said: Vec<TranscriptLine<'_>> = lines(text).collect::<Result<_, _>>()?;
//! assert_eq!(said[0].speaker, Speaker::Client);
//! assert_eq!(said[1].text, "{\"return\": {}, \"id\": \"0000002a-2\"}");
//! assert!(text.ends_with(&said[1].to_string()));
//! # Ok::<(), qmp_proto::transcript::LineError>(())
//! ```

use alloc::{string::String, vec::Vec};
use core::fmt;

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// The client: `>`.
    Client,
    /// The server: `<`.
    Server,
}

/// One line of a conversation. Its `Display` is the line as it is in a transcript, newline
/// included; text with line ends in it becomes as many lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TranscriptLine<'a> {
    /// Who said it.
    pub speaker: Speaker,
    /// What was said, without the line end.
    pub text: &'a str,
}

impl fmt::Display for TranscriptLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.speaker {
            Speaker::Client => '>',
            Speaker::Server => '<',
        };
        self.text
            .lines()
            .try_for_each(|line| writeln!(f, "{mark} {line}"))
    }
}

/// A line that is neither a speaker's nor a remark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of the transcript begins with none of '> ', '< ' and '#'")]
pub struct LineError {
    /// Counted from 1.
    pub number: usize,
}

/// What was said in a transcript, in order.
pub fn lines(transcript: &str) -> impl Iterator<Item = Result<TranscriptLine<'_>, LineError>> {
    transcript
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(
            |(index, line)| match (line.strip_prefix("> "), line.strip_prefix("< ")) {
                (Some(text), _) => Ok(TranscriptLine {
                    speaker: Speaker::Client,
                    text,
                }),
                (_, Some(text)) => Ok(TranscriptLine {
                    speaker: Speaker::Server,
                    text,
                }),
                _ => Err(LineError { number: index + 1 }),
            },
        )
}

/// All that the server sent, as it was on the wire.
///
/// # Errors
/// [`LineError`] for the first line that is none.
pub fn server_bytes(transcript: &str) -> Result<Vec<u8>, LineError> {
    let mut bytes = String::new();
    for line in lines(transcript) {
        let line = line?;
        if line.speaker == Speaker::Server {
            bytes.push_str(line.text);
            bytes.push_str("\r\n");
        }
    }
    Ok(bytes.into_bytes())
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_pretty_printed_message_is_as_many_lines_and_comes_back() {
        let message = TranscriptLine {
            speaker: Speaker::Server,
            text: "{\r\n    \"return\": 1\r\n}\r\n",
        };
        let text = message.to_string();
        assert_eq!(text, "< {\n<     \"return\": 1\n< }\n");
        assert_eq!(server_bytes(&text).unwrap(), message.text.as_bytes());
    }

    #[test]
    fn a_line_of_nobody_is_refused_by_its_number() {
        let said: Vec<_> = lines("# remark\n\n> {}\nhello\n").collect();
        assert_eq!(
            said[0],
            Ok(TranscriptLine {
                speaker: Speaker::Client,
                text: "{}"
            })
        );
        assert_eq!(said[1], Err(LineError { number: 4 }));
        assert_eq!(server_bytes("< {}\n<{}\n"), Err(LineError { number: 2 }));
    }

    #[test]
    fn only_the_server_s_bytes_are_its_own() {
        assert_eq!(server_bytes("> {\"a\"}\n< {}\n#x\n").unwrap(), b"{}\r\n");
    }
}
