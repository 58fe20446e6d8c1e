//! Bytes to one JSON object: finds a message's end, checks its syntax and notes where its members are, in one pass that
//! can be broken off at any byte.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use crate::{
    error::DecodeErrorKind,
    text::{Inside, skip_plain},
};

/// A key at the top of a message that QMP gives a meaning to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Greeting,
    Return,
    Error,
    Event,
    Id,
    Data,
    Timestamp,
}

impl Key {
    const COUNT: usize = 7;

    fn of(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"return" => Self::Return,
            b"id" => Self::Id,
            b"event" => Self::Event,
            b"data" => Self::Data,
            b"timestamp" => Self::Timestamp,
            b"error" => Self::Error,
            b"QMP" => Self::Greeting,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Greeting => "QMP",
            Self::Return => "return",
            Self::Error => "error",
            Self::Event => "event",
            Self::Id => "id",
            Self::Data => "data",
            Self::Timestamp => "timestamp",
        }
    }
}

/// Where in a message the values of its known keys are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    present: u8,
    spans: [(usize, usize); Key::COUNT],
}

impl Members {
    pub(crate) fn has(&self, key: Key) -> bool {
        self.present & (1 << key as u8) != 0
    }

    pub(crate) fn span(&self, key: Key) -> Option<Range<usize>> {
        let (start, end) = self.spans[key as usize];
        self.has(key).then_some(start..end)
    }
}

/// What breaks a message, and at which of its bytes.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: DecodeErrorKind,
    pub(crate) at: usize,
}

/// What the next byte belongs to. All but `In…` may be preceded by white space.
#[derive(Debug, Clone, Copy)]
enum State {
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
    InCharacter(Inside),
    InNumber(Number),
    /// What is left of `true`, `false` or `null`.
    InLiteral(&'static [u8]),
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
            (Self::Minus | Self::Point | Self::E | Self::ESign, _) => return Err(expected("a digit")),
            (Self::Zero | Self::Integer | Self::Fraction | Self::Exponent, _) => return Ok(None),
        }))
    }
}

fn expected(expected: &'static str) -> DecodeErrorKind {
    DecodeErrorKind::Syntax { expected }
}

/// The scan of one message after the other. Between calls it keeps its place; nothing is looked at twice.
#[derive(Debug)]
pub(crate) struct Scanner {
    max_depth: u16,
    /// Bytes of the message that have been looked at.
    pos: usize,
    state: State,
    /// For each object or array that is open, whether it is an object.
    open: Vec<bool>,
    /// Where the current string began, its quote included.
    string_start: usize,
    string_is_key: bool,
    string_has_escape: bool,
    /// The member of the message whose value is being read, and where that began.
    member: Option<Key>,
    value_start: usize,
    members: Members,
    #[cfg(test)]
    pub(crate) looked_at: u64,
}

impl Scanner {
    pub(crate) fn new(max_depth: u16) -> Self {
        Self {
            max_depth,
            pos: 0,
            state: State::Start,
            open: Vec::new(),
            string_start: 0,
            string_is_key: false,
            string_has_escape: false,
            member: None,
            value_start: 0,
            members: Members::default(),
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// The members of the message that [`scan`](Self::scan) found the end of.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// To be called between a message's end and the next one's first byte.
    pub(crate) fn next_message(&mut self) {
        self.pos = 0;
        self.state = State::Start;
        self.members.present = 0;
    }

    /// Whether the first byte of a message has not been seen yet.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Goes on in `message`, which holds the current message from its first byte on and maybe more.
    ///
    /// `Some` is the message's length; `None` asks for more bytes.
    pub(crate) fn scan(&mut self, message: &[u8]) -> Result<Option<usize>, Fault> {
        #[cfg(test)]
        let before = self.pos;
        let end = self.run(message);
        #[cfg(test)]
        {
            self.looked_at += (self.pos - before) as u64;
        }
        end.map_err(|kind| Fault { kind, at: self.pos })
    }

    fn run(&mut self, bytes: &[u8]) -> Result<Option<usize>, DecodeErrorKind> {
        while let Some(&byte) = bytes.get(self.pos) {
            match self.state {
                State::InString => {
                    self.pos = skip_plain(bytes, self.pos);
                    let Some(&byte) = bytes.get(self.pos) else { break };
                    if byte == b'"' {
                        self.end_string(bytes)?;
                    } else {
                        self.state = State::InCharacter(Inside::begin(byte)?);
                        self.string_has_escape |= byte == b'\\';
                        self.pos += 1;
                    }
                }
                State::InCharacter(inside) => {
                    self.state = inside.step(byte)?.map_or(State::InString, State::InCharacter);
                    self.pos += 1;
                }
                State::InNumber(number) => match number.step(byte)? {
                    Some(next) => {
                        self.state = State::InNumber(next);
                        self.pos += 1;
                    }
                    None => self.end_value(),
                },
                State::InLiteral(rest) => self.literal(byte, rest)?,
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => self.pos += 1,
                State::AfterValue => match byte {
                    b',' => {
                        self.pos += 1;
                        self.state = if self.in_object() {
                            State::Key
                        } else {
                            State::Value
                        };
                    }
                    b'}' | b']' => {
                        if self.close(byte)? {
                            return Ok(Some(self.pos));
                        }
                    }
                    _ => return Err(self.after_value_expected()),
                },
                State::Key => self.begin_key(byte, "a key")?,
                State::FirstKey if byte == b'}' => {
                    if self.close(byte)? {
                        return Ok(Some(self.pos));
                    }
                }
                State::FirstKey => self.begin_key(byte, "a key or `}`")?,
                State::Colon if byte == b':' => {
                    self.pos += 1;
                    self.state = State::Value;
                }
                State::Colon => return Err(expected("`:`")),
                State::FirstValue if byte == b']' => {
                    self.close(byte)?;
                }
                State::FirstValue => self.begin_value(byte, "a value or `]`")?,
                State::Value => self.begin_value(byte, "a value")?,
                State::Start if byte == b'{' => self.open(true)?,
                State::Start => return Err(expected("a JSON object")),
            }
        }
        Ok(None)
    }

    fn in_object(&self) -> bool {
        self.open.last().copied().unwrap_or_default()
    }

    fn after_value_expected(&self) -> DecodeErrorKind {
        expected(if self.in_object() {
            "`,` or `}`"
        } else {
            "`,` or `]`"
        })
    }

    fn begin_key(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeErrorKind> {
        if byte != b'"' {
            return Err(expected(what));
        }
        self.begin_string(true);
        Ok(())
    }

    fn begin_string(&mut self, is_key: bool) {
        self.string_start = self.pos;
        self.string_is_key = is_key;
        self.string_has_escape = false;
        self.pos += 1;
        self.state = State::InString;
    }

    fn end_string(&mut self, bytes: &[u8]) -> Result<(), DecodeErrorKind> {
        self.pos += 1;
        if !self.string_is_key {
            self.end_value();
            return Ok(());
        }
        if self.open.len() == 1 {
            self.begin_member(&bytes[self.string_start..self.pos])?;
        }
        self.state = State::Colon;
        Ok(())
    }

    /// `token` is a key at the top of the message, with its quotes.
    fn begin_member(&mut self, token: &[u8]) -> Result<(), DecodeErrorKind> {
        self.member = if self.string_has_escape {
            serde_json::from_slice::<String>(token)
                .ok()
                .and_then(|key| Key::of(key.as_bytes()))
        } else {
            Key::of(&token[1..token.len() - 1])
        };
        if let Some(key) = self.member {
            if self.members.has(key) {
                // The fault is the second key itself, not the byte after it.
                self.pos = self.string_start;
                return Err(DecodeErrorKind::DuplicateKey { key: key.name() });
            }
            self.members.present |= 1 << key as u8;
        }
        Ok(())
    }

    fn begin_value(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeErrorKind> {
        if self.open.len() == 1 {
            self.value_start = self.pos;
        }
        match byte {
            b'"' => {
                self.begin_string(false);
                return Ok(());
            }
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b'1'..=b'9' => self.state = State::InNumber(Number::Integer),
            b'0' => self.state = State::InNumber(Number::Zero),
            b'-' => self.state = State::InNumber(Number::Minus),
            b't' => self.state = State::InLiteral(b"rue"),
            b'f' => self.state = State::InLiteral(b"alse"),
            b'n' => self.state = State::InLiteral(b"ull"),
            _ => return Err(expected(what)),
        }
        self.pos += 1;
        Ok(())
    }

    fn literal(&mut self, byte: u8, rest: &'static [u8]) -> Result<(), DecodeErrorKind> {
        match rest.split_first() {
            Some((&due, rest)) if due == byte => {
                self.pos += 1;
                self.state = State::InLiteral(rest);
                if rest.is_empty() {
                    self.end_value();
                }
                Ok(())
            }
            _ => Err(expected("`true`, `false` or `null`")),
        }
    }

    fn end_value(&mut self) {
        if self.open.len() == 1
            && let Some(key) = self.member
        {
            self.members.spans[key as usize] = (self.value_start, self.pos);
        }
        self.state = State::AfterValue;
    }

    fn open(&mut self, object: bool) -> Result<(), DecodeErrorKind> {
        if self.open.len() >= usize::from(self.max_depth) {
            return Err(DecodeErrorKind::TooDeep {
                limit: self.max_depth,
            });
        }
        self.open.push(object);
        self.pos += 1;
        self.state = if object {
            State::FirstKey
        } else {
            State::FirstValue
        };
        Ok(())
    }

    /// Ends an object or array; true at the end of the message.
    fn close(&mut self, byte: u8) -> Result<bool, DecodeErrorKind> {
        if self.in_object() != (byte == b'}') {
            return Err(self.after_value_expected());
        }
        self.open.pop();
        self.pos += 1;
        self.end_value();
        Ok(self.open.is_empty())
    }
}
