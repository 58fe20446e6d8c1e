//! Reading Intel HEX files: QEMU loads what its own loader does not take as a raw image, and runs
//! the text as machine code.

use std::collections::BTreeMap;

use crate::firmware::format::BYTE_ORDER_MARK;

/// What a file loads, and the file as QEMU's loader takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IntelHex {
    /// Data by its address; no two pieces touch.
    pub(crate) pieces: BTreeMap<u64, Vec<u8>>,
    /// Where QEMU's loader would misread the file: one that says the same.
    pub(crate) rewritten: Option<String>,
}

/// A line that is wrong, counted from 1, or the whole file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) line: Option<usize>,
    pub(crate) why: String,
}

const DATA: u8 = 0;
const END_OF_FILE: u8 = 1;
const SEGMENT: u8 = 2;
const START_SEGMENT: u8 = 3;
const LINEAR: u8 = 4;
const START_LINEAR: u8 = 5;
/// Records of micro:bit's Universal Hex: what begins, ends and fills a block, and the data of the
/// boards whose loader does not take plain data.
const UNIVERSAL: std::ops::RangeInclusive<u8> = 0x0a..=0x0e;

/// A record that sets the base of the addresses to 0, as at the beginning of a file.
const BASE_ZERO: &str = ":020000040000FA";
const END_RECORD: &str = ":00000001FF";

/// Reads every record: `:`, the number of data bytes, two bytes of address, the type, the data, and
/// a checksum that makes the sum of all bytes zero.
///
/// Rewritten for QEMU are files without a newline at the end, with a byte order mark, comments
/// (lines that begin with `#` or `;`) or a ^Z at the end, several files in one, and a Universal Hex
/// file, of which the plain data count, as for a micro:bit of the first version.
pub(crate) fn read(file: &[u8]) -> Result<IntelHex, Bad> {
    let mut reader = Reader::default();
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    reader.misread |= text.len() < file.len() || !text.ends_with(b"\n");
    for (line, record) in (1..).zip(text.split(|&b| b == b'\n')) {
        let record = record.trim_ascii();
        let is_record = record.starts_with(b":");
        match record {
            [] => {}
            [b'#' | b';', ..] | [0x1a] => reader.misread = true,
            // What follows the end of a file is no part of it, unless it is another one.
            _ if reader.ended && !is_record => {
                reader.misread = true;
                break;
            }
            _ => {
                let record = parse(record).map_err(|why| why.to_owned());
                let taken =
                    record.and_then(|(kind, address, data)| reader.take(kind, address, &data));
                taken.map_err(|why| Bad {
                    line: Some(line),
                    why,
                })?;
            }
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    base: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
    lines: Vec<String>,
    ended: bool,
    universal: bool,
    /// QEMU's loader does not take it as it is.
    misread: bool,
}

impl Reader {
    fn take(&mut self, kind: u8, address: u16, data: &[u8]) -> Result<(), String> {
        if self.ended {
            // Another file in the same one, whose addresses begin at 0 again.
            (self.ended, self.misread, self.base) = (false, true, 0);
            self.lines.push(BASE_ZERO.to_owned());
        }
        let word = || data.try_into().map(u16::from_be_bytes);
        match kind {
            DATA => self.push(self.base + u64::from(address), data),
            END_OF_FILE => {
                self.ended = true;
                return Ok(());
            }
            SEGMENT => self.base = u64::from(word().map_err(|_| short(kind))?) << 4,
            LINEAR => self.base = u64::from(word().map_err(|_| short(kind))?) << 16,
            START_SEGMENT | START_LINEAR if data.len() == 4 => {}
            START_SEGMENT | START_LINEAR => return Err(short(kind)),
            0x0a => (self.universal, self.misread) = (true, true),
            _ if UNIVERSAL.contains(&kind) && self.universal => {}
            _ => {
                return Err(format!(
                    "its type is {kind:02X}, which no board's loader knows"
                ));
            }
        }
        if kind <= START_LINEAR {
            self.lines.push(written(kind, address, data));
        }
        Ok(())
    }

    fn push(&mut self, address: u64, data: &[u8]) {
        if let Some((start, last)) = self.pieces.range_mut(..=address).next_back()
            && start + last.len() as u64 == address
        {
            last.extend(data);
        } else if !data.is_empty() {
            self.pieces.insert(address, data.to_vec());
        }
    }

    fn finish(mut self) -> Result<IntelHex, Bad> {
        let whole_file = |why: &str| Bad {
            line: None,
            why: why.to_owned(),
        };
        if !self.ended {
            return Err(whole_file(
                "is cut off: the record that ends an Intel HEX file is missing",
            ));
        }
        if self.pieces.is_empty() {
            return Err(whole_file("has nothing in it to load: no record has data"));
        }
        self.lines.push(END_RECORD.to_owned());
        Ok(IntelHex {
            pieces: self.pieces,
            rewritten: self.misread.then(|| self.lines.join("\n") + "\n"),
        })
    }
}

fn short(kind: u8) -> String {
    format!("a record of type {kind:02X} has other data than an address")
}

fn written(kind: u8, address: u16, data: &[u8]) -> String {
    let [high, low] = address.to_be_bytes();
    let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![length, high, low, kind];
    bytes.extend(data);
    let sum = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    bytes.push(sum.wrapping_neg());
    bytes
        .iter()
        .fold(":".to_owned(), |line, byte| line + &format!("{byte:02X}"))
}

/// The type, the address and the data of a record.
fn parse(record: &[u8]) -> Result<(u8, u16, Vec<u8>), &'static str> {
    let digits = record
        .strip_prefix(b":")
        .ok_or("it does not begin with a colon")?;
    let bytes = bytes(digits).ok_or("it is not made of pairs of hexadecimal digits")?;
    let &[length, high, low, kind, ref rest @ ..] = &bytes[..] else {
        return Err("it is cut off");
    };
    let Some((_checksum, data)) = rest
        .split_last()
        .filter(|_| bytes.len() == usize::from(length) + 5)
    else {
        return Err("it is not as long as it says");
    };
    if bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) != 0 {
        return Err("its checksum is wrong");
    }
    Ok((kind, u16::from_be_bytes([high, low]), data.to_vec()))
}

fn bytes(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |&byte: &u8| char::from(byte).to_digit(16);
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(high)? * 16 + digit(low)?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{IntelHex, read};

    /// Four bytes at 0, and the end.
    const WHOLE: &str = ":0400000001020304F2\r\n:00000001FF\r\n";

    fn fault(text: &str) -> Option<String> {
        let bad = read(text.as_bytes()).err()?;
        Some(match bad.line {
            Some(line) => format!("{line}: {}", bad.why),
            None => bad.why,
        })
    }

    #[test]
    fn what_qemu_takes_is_left_as_it_is() {
        for text in [WHOLE, "\n:0400000001020304f2\n\n:00000001ff\n"] {
            let IntelHex { pieces, rewritten } = read(text.as_bytes()).unwrap();
            assert_eq!(pieces, [(0, vec![1, 2, 3, 4])].into(), "{text:?}");
            assert_eq!(rewritten, None, "{text:?}");
        }
    }

    #[test]
    fn what_qemu_would_misread_is_rewritten() {
        const CLEAN: &str = ":0400000001020304F2\n:00000001FF\n";
        let end = WHOLE.trim_end();
        let universal = ":0400000A9900C0DEBB\n:0400000001020304F2\n:0400000D01020304E5\n\
                         :0000000BF5\n:00000001FF\n";
        for text in [
            end.to_owned(),
            format!("\u{feff}{WHOLE}"),
            format!("# a comment\n; another\n{WHOLE}"),
            format!("{WHOLE}\u{1a}"),
            format!("{WHOLE}what follows is ignored\n"),
            universal.to_owned(),
        ] {
            let read = read(text.as_bytes()).unwrap();
            assert_eq!(read.rewritten.as_deref(), Some(CLEAN), "{text:?}");
            assert_eq!(read.pieces, [(0, vec![1, 2, 3, 4])].into(), "{text:?}");
        }
    }

    #[test]
    fn several_files_in_one_are_merged() {
        let two = format!(
            ":020000040001F9\n{WHOLE}:0400000005060708E2\n:02000004080000F2\n:00000001FF\n"
        );
        assert!(
            fault(&two).is_some(),
            "a record that is longer than it says"
        );
        let two = format!(":020000040001F9\n{WHOLE}:0400000005060708E2\n:00000001FF\n");
        let read = read(two.as_bytes()).unwrap();
        let expected = [(0x1_0000, vec![1, 2, 3, 4]), (0, vec![5, 6, 7, 8])].into();
        assert_eq!(read.pieces, expected);
        let again = super::read(read.rewritten.unwrap().as_bytes()).unwrap();
        assert_eq!((again.pieces, again.rewritten), (expected, None));
    }

    #[test]
    fn each_damage_is_named_with_its_line() {
        let rows = [
            ("", "is cut off"),
            (":0400000001020304F2\n", "is cut off"),
            (":00000001FF\n", "has nothing in it to load"),
            (":0400000001020304F3\n", "1: its checksum is wrong"),
            (
                ":0400000001020304F2\n0400000001020304F2\n",
                "2: it does not begin with a colon",
            ),
            (":0400000001020304F\n", "1: it is not made of pairs"),
            (":04000000010203 4F2\n", "1: it is not made of pairs"),
            (":0400000001020304\n", "1: it is not as long"),
            (":0300000001020304F3\n", "1: it is not as long"),
            (":040000\n", "1: it is cut off"),
            (":0000000BF5\n", "1: its type is 0B, which"),
            ("\n:00000006FA\n", "2: its type is 06, which"),
            (":0100000400FB\n", "1: a record of type 04 has other data"),
        ];
        for (text, expected) in rows {
            let found = fault(text).unwrap_or_default();
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
    }

    #[test]
    fn cut_off_anywhere_before_its_end_it_is_refused() {
        let end = WHOLE.len() - "\r\n".len();
        for length in 0..end {
            assert!(fault(&WHOLE[..length]).is_some(), "{length}");
        }
        assert_eq!(fault(&WHOLE[..end]), None);
    }
}
