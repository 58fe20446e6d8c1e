//! The QMP traffic of a session as text, in the form of [`qmp_proto::transcript`].

use std::io::Write;
use std::time::Instant;

use qmp_proto::transcript::{Speaker, TranscriptLine};
use tracing::warn;

/// Writes down what is said, each line with a remark of its time. Stops at the first write that
/// fails: the session is worth more than its log.
pub(crate) struct Transcript {
    writer: Option<Box<dyn Write + Send>>,
    since: Instant,
    /// The beginning of a line that the server has not ended yet.
    unfinished: Vec<u8>,
}

impl Transcript {
    pub(crate) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self {
            writer: Some(writer),
            since: Instant::now(),
            unfinished: Vec::new(),
        }
    }

    /// A command, whole.
    pub(crate) fn sent(&mut self, command: &[u8]) {
        self.write(Speaker::Client, command);
    }

    /// What was read, cut anywhere.
    pub(crate) fn received(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let mut line = std::mem::take(&mut self.unfinished);
            line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.write(Speaker::Server, &line);
        }
        self.unfinished.extend_from_slice(bytes);
    }

    fn write(&mut self, speaker: Speaker, text: &[u8]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let seconds = self.since.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(text);
        let line = TranscriptLine {
            speaker,
            text: &text,
        };
        // At once: a writer that several sessions share gets nobody else's line in between.
        let entry = format!("# {seconds:.6} s\n{line}");
        if let Err(error) = writer
            .write_all(entry.as_bytes())
            .and_then(|()| writer.flush())
        {
            warn!(%error, "the QMP transcript cannot be written and stops here");
            self.writer = None;
        }
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        let unfinished = std::mem::take(&mut self.unfinished);
        if !unfinished.is_empty() {
            self.write(Speaker::Server, &unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use qmp_proto::transcript::server_bytes;

    use super::*;
    use crate::client::log_sink::LogSink;

    #[test]
    fn what_is_written_reads_back_however_the_stream_was_cut() {
        let wire = b"{\"QMP\": {}}\r\n{\r\n    \"event\": \"STOP\"\r\n}\r\n";
        for size in 1..wire.len() {
            let written = Arc::new(Mutex::new(Vec::new()));
            let writer: Arc<Mutex<dyn Write + Send>> = Arc::clone(&written) as _;
            let mut transcript = Transcript::new(LogSink::Writer(writer).open().unwrap());
            transcript.sent(b"{\"execute\":\"stop\"}");
            wire.chunks(size)
                .for_each(|chunk| transcript.received(chunk));
            drop(transcript);
            let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
            assert_eq!(server_bytes(&text).unwrap(), wire, "{text}");
            assert!(text.contains("> {\"execute\":\"stop\"}\n"), "{text}");
        }
    }
}
