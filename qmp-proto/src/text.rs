//! The inside of JSON strings and numbers: runs of plain ASCII and of digits at eight bytes a step,
//! escapes and UTF-8 a byte a step.

use crate::error::DecodeErrorKind;

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// High bit set in each byte of `word` that ends a run of plain string text: quote, backslash,
/// control character or the start of something that is not ASCII.
///
/// The bits above the lowest one that is set may be wrong (a borrow runs upwards), so only that one
/// may be used.
fn not_plain(word: u64) -> u64 {
    // The quote is two above the space: with this bit turned it is the one byte between the control
    // characters and the rest.
    let control_or_quote = (word ^ repeat(2)).wrapping_sub(repeat(b' ' + 1));
    let backslash = (word ^ repeat(b'\\')).wrapping_sub(repeat(1));
    // A byte of 0x80 and above is to be found itself; below it, `x - n` sets the high bit just
    // where `x < n`.
    (control_or_quote | backslash | word) & repeat(0x80)
}

/// The first position from `at` on that does not hold plain string text, or the end of `bytes`.
#[inline]
pub(crate) fn skip_plain(bytes: &[u8], at: usize) -> usize {
    let mut rest = bytes.get(at..).unwrap_or_default();
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let found = not_plain(u64::from_le_bytes(*chunk));
        if found != 0 {
            return bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize;
        }
        rest = after;
    }
    let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
    bytes.len() - rest.len() + plain
}

#[inline]
pub(crate) fn is_plain(byte: u8) -> bool {
    (b' '..0x80).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Of eight bytes, as they would be read from left to right: how many digits they begin with, and
/// their value.
#[inline]
fn eight_digits(bytes: [u8; 8]) -> (u32, u64) {
    // Digits become 0 to 9, and all else becomes more.
    let word = u64::from_le_bytes(bytes) ^ repeat(b'0');
    let count = not_digit(word).trailing_zeros() / 8;
    // Those digits as the last of eight, with zeros before them; then in pairs, in fours, and all.
    let ones = word.checked_shl(64 - 8 * count).unwrap_or_default();
    let pairs = (ones.wrapping_mul(10 << 8 | 1) >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_FFFF_0000_FFFF;
    (count, fours.wrapping_mul(10_000 << 32 | 1) >> 32)
}

/// High bit set in each byte of `word` that is over 9; as in [`not_plain`], only the lowest one
/// counts.
fn not_digit(word: u64) -> u64 {
    (word.wrapping_add(repeat(0x80 - 10)) | word) & repeat(0x80)
}

/// The first eight bytes, or all and zeros after them.
#[inline]
fn eight(bytes: &[u8]) -> [u8; 8] {
    bytes.first_chunk().copied().unwrap_or_else(|| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        eight
    })
}

/// The number of 1 to 18 digits that `text` begins with, so without overflow, and what follows it.
/// As in JSON, 0 is the only one that begins with a 0.
#[inline]
pub(crate) fn read_digits(text: &[u8]) -> Option<(i64, &[u8])> {
    let (mut count, mut value) = eight_digits(eight(text));
    let mut rest = &text[count as usize..];
    while count % 8 == 0 && count > 0 {
        let (more, part) = eight_digits(eight(rest));
        count += more;
        if count > 18 {
            return None;
        }
        if more == 0 {
            break;
        }
        value = value * 10_u64.pow(more) + part;
        rest = &rest[more as usize..];
    }
    let is_number = count == 1 || count > 1 && !text.starts_with(b"0");
    is_number.then_some((value as i64, rest))
}

/// Where in a character that takes more than one byte a string is. Between characters there is none
/// of these.
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
            // The second byte's bounds keep out overlong forms, surrogates and what is beyond
            // U+10FFFF.
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => {
                return Err(DecodeErrorKind::Encoding {
                    found: "a byte that is never in UTF-8",
                });
            }
        };
        Ok(Self::Utf8 { left, from, to })
    }

    /// What the next byte leads to: `None` at the end of the character.
    pub(crate) fn step(self, byte: u8) -> Result<Option<Self>, DecodeErrorKind> {
        const LONE: DecodeErrorKind = DecodeErrorKind::Encoding {
            found: "a surrogate without its other half",
        };
        match self {
            Self::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(None),
                b'u' => Ok(Some(Self::Hex {
                    unit: 0,
                    left: 4,
                    low_due: false,
                })),
                _ => Err(syntax("one of `\"\\/bfnrtu` after a backslash")),
            },
            Self::Hex {
                unit,
                left,
                low_due,
            } => {
                let digit = (byte as char)
                    .to_digit(16)
                    .ok_or(syntax("four hexadecimal digits after `\\u`"))?;
                let unit = unit * 16 + digit as u16;
                if left > 1 {
                    return Ok(Some(Self::Hex {
                        unit,
                        left: left - 1,
                        low_due,
                    }));
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
                    Ok(Some(Self::Hex {
                        unit: 0,
                        left: 4,
                        low_due: true,
                    }))
                } else {
                    Err(LONE)
                }
            }
            Self::Utf8 { left, from, to } if (from..=to).contains(&byte) => {
                Ok((left > 1).then(|| Self::Utf8 {
                    left: left - 1,
                    from: 0x80,
                    to: 0xBF,
                }))
            }
            Self::Utf8 { .. } => Err(DecodeErrorKind::Encoding {
                found: "a UTF-8 sequence broken off or out of range",
            }),
        }
    }
}

const fn syntax(expected: &'static str) -> DecodeErrorKind {
    DecodeErrorKind::Syntax { expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_ends_where_it_ends_byte_by_byte() {
        for byte in 0..=u8::MAX {
            for (length, at) in (0..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut text = vec![b'x'; length];
                text[at] = byte;
                for start in 0..=length {
                    let end = (start..length)
                        .find(|&at| !is_plain(text[at]))
                        .unwrap_or(length);
                    assert_eq!(
                        skip_plain(&text, start),
                        end,
                        "{byte:#x} at {at} of {length} from {start}"
                    );
                }
            }
        }
        assert_eq!(skip_plain(b"abc", 4), 3);
    }

    #[test]
    fn only_digits_are_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(read_digits(&[byte]).is_some(), byte.is_ascii_digit());
        }
    }

    #[test]
    fn numbers_of_up_to_18_digits_are_read() {
        let digits = "123456789012345678901234567890";
        for length in 1..digits.len() {
            for after in ["", ",", "}, \"a\": 1234567", "x00000000"] {
                let text = format!("{}{after}", &digits[..length]);
                let read =
                    (length <= 18).then(|| (digits[..length].parse().unwrap(), after.as_bytes()));
                assert_eq!(read_digits(text.as_bytes()), read, "{text}");
            }
        }
        for (text, value) in [
            ("", None),
            ("x", None),
            ("-1", None),
            ("0", Some(0)),
            ("00", None),
            ("01", None),
            ("0123456789", None),
            ("10", Some(10)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("90807060504030201", Some(90_807_060_504_030_201)),
        ] {
            assert_eq!(
                read_digits(text.as_bytes()).map(|(value, _)| value),
                value,
                "{text}"
            );
        }
    }
}
