//! What a test printed: bounded, the oldest dropped and counted.

/// A test that prints without end is known by its last lines.
const MOST_BYTES: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(super) struct Capture {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Capture {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Not for each piece: dropping moves all that is kept.
        if self.bytes.len() > 2 * MOST_BYTES {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.bytes.len().saturating_sub(MOST_BYTES);
        self.bytes.drain(..excess);
        self.dropped += excess as u64;
    }

    /// What is kept, and how many bytes came before it.
    pub(super) fn finish(mut self) -> (Vec<u8>, u64) {
        self.trim();
        (self.bytes, self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_rest_counted() {
        let mut capture = Capture::default();
        for n in 0..100_000_u32 {
            capture.push(format!("{n:09}\n").as_bytes());
        }
        let (bytes, dropped) = capture.finish();
        assert_eq!(bytes.len() as u64 + dropped, 1_000_000);
        assert_eq!(bytes.len(), MOST_BYTES);
        assert!(bytes.ends_with(b"000099999\n"));
    }
}
