//! The code under test: a checksum, as a boot loader would have it.
#![no_std]
#![cfg_attr(test, no_main)]

// Vectors and start-up code, which a program has anyhow.
#[cfg(test)]
use cortex_m_rt as _;

/// Why an image is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is shorter than its checksum.
    TooShort,
    /// Its checksum is another.
    Damaged,
}

/// Fletcher's checksum of 16 bits.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let (mut low, mut high) = (0_u16, 0_u16);
    for &byte in bytes {
        low = (low + u16::from(byte)) % 255;
        high = (high + low) % 255;
    }
    high << 8 | low
}

/// The bytes of an image before its checksum.
///
/// # Errors
/// [`Error`].
pub fn verify(image: &[u8]) -> Result<&[u8], Error> {
    let (bytes, stored) = image.split_last_chunk().ok_or(Error::TooShort)?;
    match checksum(bytes) == u16::from_le_bytes(*stored) {
        true => Ok(bytes),
        false => Err(Error::Damaged),
    }
}

#[cfg(test)]
#[embedded_test::tests(default_timeout = 10)]
mod tests {
    use super::checksum;

    #[test]
    fn known_values() {
        assert_eq!(checksum(b"abcde"), 0xc8f0);
        assert_eq!(checksum(b"abcdef"), 0x2057);
    }

    #[test]
    fn of_nothing() {
        assert_eq!(checksum(b""), 0);
    }

    #[test]
    #[ignore]
    fn of_a_megabyte() {
        for _ in 0..1024 {
            core::hint::black_box(checksum(&[0x5a; 1024]));
        }
    }
}
