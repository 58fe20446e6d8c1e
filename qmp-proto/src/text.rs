//! The inside of JSON strings: runs of plain ASCII at eight bytes a step, escapes and UTF-8 a byte a step.

use crate::error::DecodeErrorKind;

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// High bit set in each byte of `word` that ends a run of plain string text: quote, backslash, control character or
/// the start of something that is not ASCII.
///
/// The bits above the lowest one that is set may be wrong (a borrow runs upwards), so only that one may be used.
fn not_plain(word: u64) -> u64 {
    const LOW: u64 = repeat(1);
    const HIGH: u64 = repeat(0x80);
    let control = word.wrapping_sub(repeat(b' '));
    let quote = (word ^ repeat(b'"')).wrapping_sub(LOW);
    let backslash = (word ^ repeat(b'\\')).wrapping_sub(LOW);
    // A byte of 0x80 and above is to be found itself; below it, `x - n` sets the high bit just where `x < n`.
    (control | quote | backslash | word) & HIGH
}

/// The first position from `at` on that does not hold plain string text, or the end of `bytes`.
#[inline]
pub(crate) fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = not_plain(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at)
        && is_plain(byte)
    {
        at += 1;
    }
    at
}

#[inline]
pub(crate) fn is_plain(byte: u8) -> bool {
    (b' '..0x80).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Where in a character that takes more than one byte a string is. Between characters there is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// After a backslash.
    Escape,
    /// After `\u`: the digits so far, how many are to come, whether the low half of a pair is due.
    Hex { unit: u16, left: u8, low_due: bool },
    /// After the high half of a surrogate pair.
    LowBackslash,
    /// After the backslash of a pair's low half.
    LowU,
    /// In a UTF-8 sequence: bytes to come, and the bounds of the next.
    Utf8 { left: u8, from: u8, to: u8 },
}

impl Inside {
    /// What a byte that is neither plain nor the closing quote begins.
    pub(crate) fn begin(byte: u8) -> Result<Self, DecodeErrorKind> {
        let (left, from, to) = match byte {
            b'\\' => return Ok(Self::Escape),
            0..b' ' => return Err(syntax("control characters to be escaped")),
            // The second byte's bounds keep out overlong forms, surrogates and what is beyond U+10FFFF.
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => {
                return Err(DecodeErrorKind::Encoding { found: "a byte that is never in UTF-8" });
            }
        };
        Ok(Self::Utf8 { left, from, to })
    }

    /// What the next byte leads to: `None` at the end of the character.
    pub(crate) fn step(self, byte: u8) -> Result<Option<Self>, DecodeErrorKind> {
        const LONE: DecodeErrorKind =
            DecodeErrorKind::Encoding { found: "a surrogate without its other half" };
        match self {
            Self::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(None),
                b'u' => Ok(Some(Self::Hex { unit: 0, left: 4, low_due: false })),
                _ => Err(syntax("one of `\"\\/bfnrtu` after a backslash")),
            },
            Self::Hex { unit, left, low_due } => {
                let digit =
                    (byte as char).to_digit(16).ok_or(syntax("four hexadecimal digits after `\\u`"))?;
                let unit = (unit << 4) | digit as u16;
                if left > 1 {
                    return Ok(Some(Self::Hex { unit, left: left - 1, low_due }));
                }
                match (unit, low_due) {
                    (0xDC00..=0xDFFF, true) => Ok(None),
                    (0xD800..=0xDBFF, false) => Ok(Some(Self::LowBackslash)),
                    (0xD800..=0xDFFF, false) | (_, true) => Err(LONE),
                    (_, false) => Ok(None),
                }
            }
            Self::LowBackslash => {
                if byte == b'\\' {
                    Ok(Some(Self::LowU))
                } else {
                    Err(LONE)
                }
            }
            Self::LowU => {
                if byte == b'u' {
                    Ok(Some(Self::Hex { unit: 0, left: 4, low_due: true }))
                } else {
                    Err(LONE)
                }
            }
            Self::Utf8 { left, from, to } if (from..=to).contains(&byte) => {
                Ok((left > 1).then(|| Self::Utf8 { left: left - 1, from: 0x80, to: 0xBF }))
            }
            Self::Utf8 { .. } => {
                Err(DecodeErrorKind::Encoding { found: "a UTF-8 sequence broken off or out of range" })
            }
        }
    }
}

const fn syntax(expected: &'static str) -> DecodeErrorKind {
    DecodeErrorKind::Syntax { expected }
}
