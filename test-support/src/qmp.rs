//! As much of QMP as tests below the session need: one command, one reply, events passed over.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::PATIENCE;

/// A blocking client of one monitor.
#[derive(Debug)]
pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Takes the greeting and negotiates capabilities.
    ///
    /// # Panics
    /// QEMU does not greet within [`PATIENCE`].
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Self(BufReader::new(stream));
        // On a socket that QEMU listens on, events can come before it.
        let greeting = loop {
            let message = qmp.message();
            if message.get("event").is_none() {
                break message;
            }
        };
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Panics
    /// The command fails, or QEMU closes its monitor.
    #[track_caller]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.try_execute(command, arguments)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Runs a command that may fail; the error is QEMU's description.
    ///
    /// # Errors
    /// QEMU answers with an error.
    ///
    /// # Panics
    /// QEMU closes its monitor.
    #[track_caller]
    pub fn try_execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.send(command, arguments);
        loop {
            let mut message = self.message();
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                return Err(error["desc"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// Runs a line of the human monitor and returns what it prints.
    #[track_caller]
    pub fn human(&mut self, line: &str) -> String {
        let printed = self.execute("human-monitor-command", json!({ "command-line": line }));
        printed.as_str().unwrap().to_owned()
    }

    /// The run state, as `query-status` names it.
    #[track_caller]
    pub fn run_state(&mut self) -> String {
        let status = self.execute("query-status", json!({}));
        status["status"].as_str().unwrap().to_owned()
    }

    /// Sends a command and leaves the reply to whoever reads next.
    #[track_caller]
    pub fn send(&mut self, command: &str, arguments: Value) {
        // In one piece and without a newline: QEMU acts at the closing brace, and may have quit
        // before another write.
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Whether anything comes within this time after a question. Where nothing does, nothing more
    /// can be asked.
    pub fn answers_within(&mut self, patience: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(patience)).unwrap();
        self.send("query-status", json!({}));
        self.0.read_line(&mut String::new()).is_ok()
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        assert_ne!(read, 0, "QEMU has closed its monitor");
        serde_json::from_str(&line).unwrap()
    }
}
