//! Checks of an Intel HEX file: QEMU loads one that is damaged as a raw image, and runs it.

use std::io::{self, BufRead};

/// What is wrong with the file, and where.
pub(crate) enum Bad {
    /// It could not be read.
    Unreadable(io::Error),
    /// A line, counted from 1, is no whole record.
    Record { line: usize, why: &'static str },
    /// The record that ends it is missing.
    NoEnd,
}

/// The type of the record that ends a file.
const END_OF_FILE: u8 = 1;

/// Looks at every record up to the one that ends the file: `:`, the number of data bytes, two bytes
/// of address, the type, the data, and a checksum that makes the sum of all bytes zero.
pub(crate) fn check(file: impl BufRead) -> Result<(), Bad> {
    for (line, record) in (1..).zip(file.split(b'\n')) {
        let record = record.map_err(Bad::Unreadable)?;
        let record = record.trim_ascii();
        if record.is_empty() {
            continue;
        }
        if record_type(record).map_err(|why| Bad::Record { line, why })? == END_OF_FILE {
            return Ok(());
        }
    }
    Err(Bad::NoEnd)
}

fn record_type(record: &[u8]) -> Result<u8, &'static str> {
    let digits = record
        .strip_prefix(b":")
        .ok_or("it does not begin with a colon")?;
    let bytes = bytes(digits).ok_or("it is not made of pairs of hexadecimal digits")?;
    let &[length, _, _, kind, ..] = &bytes[..] else {
        return Err("it is cut off");
    };
    if bytes.len() != usize::from(length) + 5 {
        return Err("it is not as long as it says");
    }
    if bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) != 0 {
        return Err("its checksum is wrong");
    }
    Ok(kind)
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
    use super::{Bad, check};

    /// Four bytes at 0, and the end.
    const WHOLE: &str = ":0400000001020304F2\r\n:00000001FF\r\n";

    fn fault(text: &str) -> Option<String> {
        match check(text.as_bytes()) {
            Ok(()) => None,
            Err(Bad::Unreadable(error)) => panic!("{error}"),
            Err(Bad::Record { line, why }) => Some(format!("{line}: {why}")),
            Err(Bad::NoEnd) => Some("no end".to_owned()),
        }
    }

    #[test]
    fn whole_files_pass() {
        for text in [
            WHOLE,
            "\n:0400000001020304f2\n\n:00000001ff",
            &format!("{WHOLE}what follows is ignored"),
        ] {
            assert_eq!(fault(text), None, "{text:?}");
        }
    }

    #[test]
    fn each_damage_is_named_with_its_line() {
        let rows = [
            ("", "no end"),
            (":0400000001020304F2\n", "no end"),
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
