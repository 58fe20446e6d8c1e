//! Places and numbers as they are written in a call.

use qemu_controller::{MemoryError, Session};

use super::error::CallError;

/// A number, decimal or hexadecimal.
pub(crate) fn number(text: &str) -> Result<u64, CallError> {
    let digits = text.replace('_', "");
    let hexadecimal = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let number = match hexadecimal {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => digits.parse(),
    };
    number.map_err(|_| {
        let message = format!("{text:?} is no number of 64 bits, such as 5 or 0x20000000");
        CallError::invalid(message)
    })
}

/// The address that a text means: a number, a symbol, or a symbol and an offset.
pub(crate) fn address(session: &Session, text: &str) -> Result<u64, CallError> {
    if text.starts_with(|character: char| character.is_ascii_digit()) {
        return number(text);
    }
    let firmware = session.firmware_info().map_err(MemoryError::from)?;
    let whole = firmware.symbol(text);
    match (whole, text.rsplit_once('+')) {
        (Ok(symbol), _) => Ok(symbol.address),
        (Err(_), Some((name, offset))) => {
            let symbol = firmware.symbol(name.trim()).map_err(MemoryError::from)?;
            Ok(symbol.address.wrapping_add(number(offset.trim())?))
        }
        (Err(error), None) => Err(MemoryError::from(error).into()),
    }
}

/// Bytes from hexadecimal digits, spaces between them allowed.
pub(crate) fn bytes(hex: &str) -> Result<Vec<u8>, CallError> {
    let refused = || {
        let message = "bytes are an even number of hexadecimal digits, such as 0a00ff";
        CallError::invalid(message)
    };
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    if digits.is_empty() || digits.len() % 2 == 1 {
        return Err(refused());
    }
    let byte = |pair: &[u8]| {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        u8::try_from(high << 4 | low).ok()
    };
    digits
        .chunks(2)
        .map(|pair| byte(pair).ok_or_else(refused))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_are_read_or_refused() {
        assert_eq!(number("0x2000_0000").unwrap(), 0x2000_0000);
        assert_eq!(number("17").unwrap(), 17);
        for text in ["", "0x", "-1", "0x1_0000_0000_0000_0000", "ff", "flash"] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!(bytes("0a 00FF").unwrap(), [0x0a, 0, 0xff]);
        for text in ["", "0", "0x00", "zz", "é0"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
