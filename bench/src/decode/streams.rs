//! What is decoded: a made-up busy session, and a schema that a real QEMU sent.

/// Whole messages, one a line.
pub struct Stream {
    pub bytes: Vec<u8>,
}

impl Stream {
    /// The lines that end within the first `length` bytes; all of them if there is none.
    pub fn prefix(&self, length: usize) -> &[u8] {
        let within = &self.bytes[..length.min(self.bytes.len())];
        let end = memchr::memrchr(b'\n', within).map_or(self.bytes.len(), |at| at + 1);
        &self.bytes[..end]
    }
}

/// Returns and events as QEMU spells them, in the proportions of a session that polls and
/// single-steps.
pub fn mixed(count: usize) -> Stream {
    let mut text = String::new();
    for n in 0..count {
        let time = format!(
            "{{\"timestamp\": {{\"seconds\": {}, \"microseconds\": {}}}, ",
            1_700_000_000 + n / 1000,
            n * 7919 % 1_000_000
        );
        let id = format!("\"id\": \"5e55101a-{n}\"}}\r\n");
        text += &match n % 10 {
            0 | 5 => format!("{time}\"event\": \"STOP\"}}\r\n"),
            1 | 6 => format!("{{\"return\": {{}}, {id}"),
            2 => format!("{time}\"event\": \"RESUME\"}}\r\n"),
            3 | 8 => format!(
                "{{\"return\": {{\"status\": \"running\", \"singlestep\": false, \"running\": true}}, {id}"
            ),
            4 => format!(
                "{time}\"event\": \"JOB_STATUS_CHANGE\", \"data\": {{\"status\": \"running\", \"id\": \"job{n}\"}}}}\r\n"
            ),
            7 => format!(
                "{time}\"event\": \"RESET\", \"data\": {{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}}}}\r\n"
            ),
            _ => format!(
                "{{\"return\": [{{\"thread-id\": 25627, \"props\": {{\"core-id\": 0, \"thread-id\": 0, \"socket-id\": 0}}, \
                 \"qom-path\": \"/machine/unattached/device[0]\", \"target\": \"arm\", \"cpu-index\": 0}}], {id}"
            ),
        };
    }
    Stream {
        bytes: text.into_bytes(),
    }
}

/// The reply to `query-qmp-schema`, from the recorded transcript.
pub fn schema() -> Stream {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../qmp-proto/tests/transcripts/schema.qmp"
    );
    let transcript = std::fs::read_to_string(path).expect("the transcript is in the repository");
    let longest = transcript
        .lines()
        .max_by_key(|line| line.len())
        .expect("it has lines");
    let reply = longest
        .strip_prefix("< ")
        .expect("the schema is the server's");
    Stream {
        bytes: format!("{reply}\r\n").into_bytes(),
    }
}

/// One reply of about so many bytes, a list of small objects as most large replies are.
pub fn one_of(length: usize) -> Stream {
    let mut text = r#"{"return": ["#.to_owned();
    while text.len() + 50 < length {
        text += r#"{"name": "reg", "width": 32, "value": [0, -1]}, "#;
    }
    text += "{}], \"id\": \"5e55101a-1\"}\r\n";
    Stream {
        bytes: text.into_bytes(),
    }
}
