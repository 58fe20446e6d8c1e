//! What a test leaves: what it printed, bounded, the oldest dropped and counted; and the calls that
//! it made.

use tokio::sync::mpsc;

use super::frames::{FrameSource, TestFrames};
use super::run::Event;
use crate::coverage::ExecutedCode;
use crate::semihosting::Call;

/// A test that prints without end is known by its last lines.
const MOST_BYTES: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(super) struct Capture {
    bytes: Vec<u8>,
    dropped: u64,
    live: Option<Live>,
    frames: TestFrames,
    /// The semihosting instructions that it came to: they are answered before QEMU translates them,
    /// and are in no log of it.
    calls: ExecutedCode,
}

/// Who gets it as it comes: the test's index, and the run's events.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) test: usize,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Capture {
    pub(super) fn live(live: Live, frames: TestFrames) -> Self {
        Self {
            live: Some(live),
            frames,
            ..Self::default()
        }
    }

    /// Adds what came this way, which may be frames.
    pub(super) fn push_from(&mut self, source: FrameSource, bytes: &[u8]) {
        match self.frames.text(source, bytes) {
            Some(text) => self.push(text.as_bytes()),
            None => self.push(bytes),
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        let rest = self.frames.finish();
        self.push(rest.as_bytes());
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(Live { test, events }) = &self.live {
            // Nobody is there any more once the run was dropped.
            let _ = events.send(Event::Output(*test, bytes.to_vec()));
        }
        self.bytes.extend_from_slice(bytes);
        // Not for each piece: dropping moves all that is kept.
        if self.bytes.len() > 2 * MOST_BYTES {
            self.trim();
        }
    }

    pub(super) fn push_line(&mut self, line: &str) {
        self.push(line.as_bytes());
        self.push(b"\n");
    }

    pub(super) fn called(&mut self, call: &Call) {
        self.calls.insert(call.at..call.after);
    }

    /// What QEMU's log has, where there is one, and the calls.
    pub(super) fn with_calls(&self, log: Option<ExecutedCode>) -> Option<ExecutedCode> {
        let mut executed = log?;
        executed.merge(&self.calls);
        Some(executed)
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
