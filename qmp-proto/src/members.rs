//! The keys at the top of a message that QMP gives a meaning to, and where their values are.

use core::ops::Range;

use crate::event::Timestamp;

/// A key that either side gives a meaning to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownKey {
    Greeting,
    Return,
    Error,
    Event,
    Id,
    Data,
    Timestamp,
    Execute,
    ExecOob,
    Arguments,
}

impl KnownKey {
    const COUNT: usize = 10;

    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"return" => Self::Return,
            b"id" => Self::Id,
            b"event" => Self::Event,
            b"data" => Self::Data,
            b"timestamp" => Self::Timestamp,
            b"error" => Self::Error,
            b"QMP" => Self::Greeting,
            b"execute" => Self::Execute,
            b"exec-oob" => Self::ExecOob,
            b"arguments" => Self::Arguments,
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
            Self::Execute => "execute",
            Self::ExecOob => "exec-oob",
            Self::Arguments => "arguments",
        }
    }
}

/// Where in a message the values of its known keys are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    present: u16,
    spans: [(usize, usize); KnownKey::COUNT],
    /// The timestamp's value, where the scanner has read it already.
    pub(crate) timestamp: Option<Timestamp>,
}

impl Members {
    pub(crate) fn clear(&mut self) {
        self.present = 0;
        self.timestamp = None;
    }

    /// Notes that the key was read. False if it was there before.
    #[inline]
    pub(crate) fn insert(&mut self, key: KnownKey) -> bool {
        let is_new = !self.has(key);
        self.present |= 1 << key as u16;
        is_new
    }

    #[inline]
    pub(crate) fn set_span(&mut self, key: KnownKey, start: usize, end: usize) {
        self.spans[key as usize] = (start, end);
    }

    #[inline]
    fn has(&self, key: KnownKey) -> bool {
        self.present & (1 << key as u16) != 0
    }

    pub(crate) fn span(&self, key: KnownKey) -> Option<Range<usize>> {
        let (start, end) = self.spans[key as usize];
        self.has(key).then_some(start..end)
    }

    /// The text of the key's value in `message`.
    pub(crate) fn text<'a>(&self, key: KnownKey, message: &'a [u8]) -> Option<&'a [u8]> {
        self.span(key).map(|span| &message[span])
    }
}
