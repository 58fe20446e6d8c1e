//! Finds the end of one JSON object, checks its syntax and notes where its members are, in one pass
//! that can stop at any byte.

use alloc::{format, string::String, vec::Vec};
#[cfg(test)]
use core::mem;

use crate::{
    error::DecodeErrorKind,
    event::Timestamp,
    members::{KnownKey, Members},
    text::{Inside, skip_plain},
};

/// What breaks a message, and at which of its bytes.
#[derive(Debug)]
pub(crate) struct ScanFault {
    pub(crate) kind: DecodeErrorKind,
    pub(crate) at: usize,
}

/// What the next byte belongs to. All but `In…` may be preceded by white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    /// The message's opening brace.
    Start,
    /// A key, or the end of an object just begun.
    FirstKey,
    Key,
    Colon,
    Value,
    /// A value, or the end of an array just begun.
    FirstValue,
    /// A comma, or the end of the object or array.
    AfterValue,
    InString,
    InCharacter,
    InNumber,
    InLiteral,
}

#[derive(Debug, Clone, Copy)]
enum Literal {
    True,
    False,
    Null,
}

impl Literal {
    /// The one that begins with this byte.
    fn of(first: u8) -> Self {
        match first {
            b't' => Self::True,
            b'f' => Self::False,
            _ => Self::Null,
        }
    }

    fn text(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

/// Where in a number, by what came last.
#[derive(Debug, Clone, Copy)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

impl Number {
    /// What the next byte leads to: `None` where the number ended before it.
    fn step(self, byte: u8) -> Result<Option<Self>, DecodeErrorKind> {
        Ok(Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::E | Self::ESign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::ESign,
            (Self::Minus | Self::Point | Self::E | Self::ESign, _) => {
                return Err(expected("a digit"));
            }
            (Self::Zero | Self::Integer | Self::Fraction | Self::Exponent, _) => return Ok(None),
        }))
    }
}

/// The longest text of a known key: `timestamp` in its quotes, with each letter as `\u0074`.
const LONGEST_KEY_BYTES: usize = "timestamp".len() * "\\u0074".len() + 2;

fn expected(expected: &'static str) -> DecodeErrorKind {
    DecodeErrorKind::Syntax { expected }
}

/// The scan of one message after the other. Between calls it keeps its place; nothing is looked at
/// twice.
#[derive(Debug)]
pub(crate) struct Scanner {
    max_depth: usize,
    /// Bytes of the message that have been looked at.
    pos: usize,
    state: ScanState,
    /// Where in a token that is read byte by byte. Not in `ScanState`, which stays small enough for
    /// a register.
    inside: Inside,
    number: Number,
    literal: (Literal, usize),
    /// For each object or array that is open, whether it is an object.
    open: Vec<bool>,
    /// Where the current string began, its quote included.
    string_start: usize,
    string_is_key: bool,
    string_has_escape: bool,
    /// The member of the message whose value is being read, and where that began.
    member: Option<KnownKey>,
    value_start: usize,
    members: Members,
    /// Bytes looked at in all, and of those the ones that were skipped in this turn of
    /// [`run`](Self::run).
    #[cfg(test)]
    pub(crate) looked_at: u64,
    #[cfg(test)]
    skipped: usize,
}

impl Scanner {
    pub(crate) fn new(max_depth: u16) -> Self {
        Self {
            max_depth: max_depth.into(),
            pos: 0,
            state: ScanState::Start,
            inside: Inside::Escape,
            number: Number::Minus,
            literal: (Literal::True, 0),
            open: Vec::new(),
            string_start: 0,
            string_is_key: false,
            string_has_escape: false,
            member: None,
            value_start: 0,
            members: Members::default(),
            #[cfg(test)]
            looked_at: 0,
            #[cfg(test)]
            skipped: 0,
        }
    }

    /// The members of the message that [`scan`](Self::scan) found the end of.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// To be called between a message's end and the next one's first byte.
    pub(crate) fn next_message(&mut self) {
        self.pos = 0;
        self.state = ScanState::Start;
        self.members.clear();
    }

    /// Bytes of the current message that have been looked at.
    pub(crate) fn scanned(&self) -> usize {
        self.pos
    }

    /// Goes on in `message`, which holds the current message from its first byte on and maybe more.
    ///
    /// `Some` is the message's length; `None` asks for more bytes.
    pub(crate) fn scan(&mut self, message: &[u8]) -> Result<Option<usize>, ScanFault> {
        self.run(message)
            .map_err(|kind| ScanFault { kind, at: self.pos })
    }

    /// What follows in the order key, value, comma is one turn; a token that the end of `bytes`
    /// breaks off leaves one of the `In…` states.
    ///
    /// One function, and its place in variables of its own, because this is where the crate's time
    /// goes: a place kept in memory costs a third of the speed, and so does asking for the state
    /// before each token.
    fn run(&mut self, bytes: &[u8]) -> Result<Option<usize>, DecodeErrorKind> {
        let mut pos = self.pos;
        let mut state = self.state;
        let mut in_object = self.in_object();
        #[cfg(test)]
        let mut turn_start = pos;
        let end = loop {
            #[cfg(test)]
            self.count_turn(mem::replace(&mut turn_start, pos), pos);
            let Some(&(mut byte)) = bytes.get(pos) else {
                break Ok(None);
            };
            if byte == b'"' && matches!(state, ScanState::Key | ScanState::FirstKey) {
                if state == ScanState::FirstKey && self.open.len() == 1 {
                    if let Some(end) = self.read_timestamp(bytes, pos) {
                        (pos, state) = (end, ScanState::AfterValue);
                        continue;
                    }
                }
                let end = self.skip(skip_plain, bytes, pos + 1);
                if bytes.get(end) != Some(&b'"') {
                    self.begin_odd_string(pos, true);
                    (pos, state) = (end, ScanState::InString);
                    continue;
                }
                if self.open.len() == 1 && !self.begin_member(&bytes[pos + 1..end]) {
                    break Err(self.duplicate_key());
                }
                // QEMU puts a space after a colon.
                let Some(&[b':', b' ', next]) = bytes.get(end + 1..end + 4) else {
                    (pos, state) = (end + 1, ScanState::Colon);
                    continue;
                };
                (pos, state, byte) = (end + 3, ScanState::Value, next);
            }
            if byte == b'"' && matches!(state, ScanState::Value | ScanState::FirstValue) {
                self.begin_value(pos);
                let end = self.skip(skip_plain, bytes, pos + 1);
                if bytes.get(end) != Some(&b'"') {
                    self.begin_odd_string(pos, false);
                    (pos, state) = (end, ScanState::InString);
                    continue;
                }
                (pos, state) = (end + 1, ScanState::AfterValue);
                self.end_value(pos);
                let Some(&next) = bytes.get(pos) else {
                    break Ok(None);
                };
                byte = next;
            }
            match (state, byte) {
                (ScanState::AfterValue, b',') => {
                    state = if in_object {
                        ScanState::Key
                    } else {
                        ScanState::Value
                    };
                    // QEMU puts a space after a comma.
                    pos += if bytes.get(pos + 1) == Some(&b' ') {
                        2
                    } else {
                        1
                    };
                }
                (ScanState::AfterValue, b'}' | b']') if in_object == (byte == b'}') => {
                    pos += 1;
                    self.open.pop();
                    in_object = self.in_object();
                    self.end_value(pos);
                    if self.open.is_empty() {
                        break Ok(Some(pos));
                    }
                }
                (ScanState::FirstKey, b'}') | (ScanState::FirstValue, b']') => {
                    state = ScanState::AfterValue
                }
                (ScanState::Value | ScanState::FirstValue, b'{' | b'[')
                | (ScanState::Start, b'{') => {
                    if self.open.len() >= self.max_depth {
                        break Err(DecodeErrorKind::TooDeep {
                            limit: self.max_depth as u16,
                        });
                    }
                    self.begin_value(pos);
                    in_object = byte == b'{';
                    self.open.push(in_object);
                    pos += 1;
                    state = if in_object {
                        ScanState::FirstKey
                    } else {
                        ScanState::FirstValue
                    };
                }
                (_, b' ' | b'\n' | b'\r' | b'\t') if state.is_between_tokens() => pos += 1,
                (ScanState::Colon, b':') => (pos, state) = (pos + 1, ScanState::Value),
                (ScanState::InString, _) => {
                    pos = self.skip(skip_plain, bytes, pos);
                    match self.end_string(bytes, pos) {
                        Ok(Some(next)) => (pos, state) = (pos + 1, next),
                        Ok(None) => {}
                        Err(kind) => break Err(kind),
                    }
                }
                _ => match self.step(state, byte, pos) {
                    Ok((next, taken)) => (pos, state) = (pos + taken, next),
                    Err(kind) => break Err(kind),
                },
            }
        };
        #[cfg(test)]
        self.count_turn(turn_start, pos);
        self.state = state;
        self.pos = match end {
            // The fault is the second key itself, not the byte after it.
            Err(DecodeErrorKind::Protocol { .. }) if state == ScanState::InString => {
                self.string_start
            }
            _ => pos,
        };
        end
    }

    /// How QEMU's events begin: their timestamp, all at once. Returns its end. What is not quite
    /// so, some hundred bytes a message at the most, is then looked at as anything else.
    #[inline]
    fn read_timestamp(&mut self, bytes: &[u8], pos: usize) -> Option<usize> {
        let json = bytes[pos..].strip_prefix(b"\"timestamp\": ")?;
        let (timestamp, rest) = Timestamp::read_usual(json)?;
        if self.max_depth < 2 {
            return None;
        }
        let end = bytes.len() - rest.len();
        self.members.timestamp = Some(timestamp);
        self.members.insert(KnownKey::Timestamp);
        let start = bytes.len() - json.len();
        self.members.set_span(KnownKey::Timestamp, start, end);
        Some(end)
    }

    /// The rarer turns: a byte inside a character, a literal or an unusual number, and what is
    /// wrong. Returns how many bytes it took, one or none.
    #[inline(never)]
    fn step(
        &mut self,
        state: ScanState,
        byte: u8,
        pos: usize,
    ) -> Result<(ScanState, usize), DecodeErrorKind> {
        match state {
            ScanState::InCharacter => match self.inside.step(byte)? {
                Some(next) => {
                    self.inside = next;
                    Ok((ScanState::InCharacter, 1))
                }
                None => Ok((ScanState::InString, 1)),
            },
            ScanState::InNumber => match self.number.step(byte)? {
                Some(next) => {
                    self.number = next;
                    Ok((ScanState::InNumber, 1))
                }
                None => {
                    self.end_value(pos);
                    Ok((ScanState::AfterValue, 0))
                }
            },
            ScanState::InLiteral => {
                let (literal, at) = self.literal;
                let text = literal.text();
                if text.get(at) != Some(&byte) {
                    return Err(expected("`true`, `false` or `null`"));
                }
                if at + 1 < text.len() {
                    self.literal = (literal, at + 1);
                    return Ok((ScanState::InLiteral, 1));
                }
                self.end_value(pos + 1);
                Ok((ScanState::AfterValue, 1))
            }
            ScanState::Value | ScanState::FirstValue => {
                self.begin_value(pos);
                self.number = match byte {
                    b'-' => Number::Minus,
                    b'0' => Number::Zero,
                    b'1'..=b'9' => Number::Integer,
                    b't' | b'f' | b'n' => {
                        self.literal = (Literal::of(byte), 1);
                        return Ok((ScanState::InLiteral, 1));
                    }
                    _ => return Err(self.expected(state)),
                };
                Ok((ScanState::InNumber, 1))
            }
            _ => Err(self.expected(state)),
        }
    }

    /// The end of a run of bytes from `at` on.
    #[inline(always)]
    fn skip(&mut self, run_end: impl Fn(&[u8], usize) -> usize, bytes: &[u8], at: usize) -> usize {
        let end = run_end(bytes, at);
        #[cfg(test)]
        self.count_skipped(end - at);
        end
    }

    #[cfg(test)]
    fn count_skipped(&mut self, bytes: usize) {
        self.skipped += bytes;
    }

    /// Counts the bytes of one turn: those that it took, or those that it skipped and then did not
    /// take.
    #[cfg(test)]
    fn count_turn(&mut self, start: usize, end: usize) {
        self.looked_at += mem::take(&mut self.skipped).max(end.saturating_sub(start)) as u64;
    }

    fn in_object(&self) -> bool {
        self.open.last().copied().unwrap_or_default()
    }

    /// What was expected between tokens in this state.
    fn expected(&self, state: ScanState) -> DecodeErrorKind {
        expected(match state {
            ScanState::Start => "a JSON object",
            ScanState::FirstKey => "a key or `}`",
            ScanState::Key => "a key",
            ScanState::Colon => "`:`",
            ScanState::FirstValue => "a value or `]`",
            ScanState::AfterValue if self.in_object() => "`,` or `}`",
            ScanState::AfterValue => "`,` or `]`",
            _ => "a value",
        })
    }

    /// A string that is broken off, or has an escape or something beyond ASCII.
    fn begin_odd_string(&mut self, start: usize, is_key: bool) {
        self.string_start = start;
        self.string_is_key = is_key;
        self.string_has_escape = false;
    }

    /// What follows the byte at `pos`, the first of an odd string that is not plain text; `None` if
    /// there is none yet.
    fn end_string(
        &mut self,
        bytes: &[u8],
        pos: usize,
    ) -> Result<Option<ScanState>, DecodeErrorKind> {
        match bytes.get(pos) {
            Some(b'"') if self.string_is_key => {
                if self.open.len() == 1 {
                    let key = &bytes[self.string_start..=pos];
                    if self.string_has_escape && key.len() > LONGEST_KEY_BYTES {
                        // Too long for a known one: it is not worth the memory to unescape it.
                        self.member = None;
                    } else {
                        let escaped: String;
                        let key = if self.string_has_escape {
                            escaped = serde_json::from_slice(key).unwrap_or_default();
                            escaped.as_bytes()
                        } else {
                            &key[1..key.len() - 1]
                        };
                        if !self.begin_member(key) {
                            return Err(self.duplicate_key());
                        }
                    }
                }
                Ok(Some(ScanState::Colon))
            }
            Some(b'"') => {
                self.end_value(pos + 1);
                Ok(Some(ScanState::AfterValue))
            }
            Some(&byte) => {
                self.string_has_escape |= byte == b'\\';
                self.inside = Inside::begin(byte)?;
                Ok(Some(ScanState::InCharacter))
            }
            None => Ok(None),
        }
    }

    /// Notes a key at the top of the message. False if it is a known one that was there before.
    #[inline]
    fn begin_member(&mut self, key: &[u8]) -> bool {
        self.member = KnownKey::of(key);
        self.member.is_none_or(|key| self.members.insert(key))
    }

    /// The fault where [`begin_member`](Self::begin_member) returned false.
    #[cold]
    fn duplicate_key(&self) -> DecodeErrorKind {
        let key = self.member.map_or("", KnownKey::name);
        DecodeErrorKind::Protocol {
            reason: format!("key `{key}` twice in one message"),
        }
    }

    #[inline]
    fn begin_value(&mut self, pos: usize) {
        if self.open.len() == 1 {
            self.value_start = pos;
        }
    }

    #[inline]
    fn end_value(&mut self, end: usize) {
        match self.member {
            Some(key) if self.open.len() == 1 => {
                self.members.set_span(key, self.value_start, end);
            }
            _ => {}
        }
    }
}

impl ScanState {
    fn is_between_tokens(self) -> bool {
        !matches!(
            self,
            Self::InString | Self::InCharacter | Self::InNumber | Self::InLiteral
        )
    }
}

#[cfg(test)]
mod tests {
    use core::ops::Range;

    use super::*;

    /// What is known of the timestamp after the scan of a message in these pieces.
    fn timestamp(message: &[u8], cut: usize) -> (Option<Timestamp>, Option<Range<usize>>) {
        let mut scanner = Scanner::new(8);
        assert!(
            cut == message.len() || scanner.scan(&message[..cut]).is_ok_and(|end| end.is_none())
        );
        assert!(
            scanner
                .scan(message)
                .is_ok_and(|end| end == Some(message.len()))
        );
        let members = scanner.members().clone();
        scanner.next_message();
        assert_eq!((scanner.scanned(), scanner.members().timestamp), (0, None));
        (members.timestamp, members.span(KnownKey::Timestamp))
    }

    #[test]
    fn the_timestamp_that_an_event_begins_with_is_read_on_the_way() {
        let message = br#"{"timestamp": {"seconds": 17, "microseconds": 5}, "event": "STOP"}"#;
        for cut in 0..=message.len() {
            let (read, span) = timestamp(message, cut);
            assert_eq!(span, Some(14..48));
            if !(2..48).contains(&cut) {
                assert_eq!(
                    read,
                    Some(Timestamp {
                        seconds: 17,
                        microseconds: 5
                    }),
                    "cut at {cut}"
                );
            }
        }
        for other in [
            &br#"{"event": "STOP", "timestamp": {"seconds": 17, "microseconds": 5}}"#[..],
            br#"{"data": {"timestamp": {"seconds": 17, "microseconds": 5}}, "event": "STOP"}"#,
            br#"{"timestamp": {"seconds": 17, "microseconds": -1}, "event": "STOP"}"#,
        ] {
            assert_eq!(timestamp(other, other.len()).0, None);
        }
    }
}
