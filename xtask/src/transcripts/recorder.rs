//! A QEMU with its monitor on stdin and stdout, and what was said to it and by it.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// How long anything may take before the recording is given up.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A QEMU with its monitor on stdin and stdout, and what was said so far.
pub(super) struct Recorder {
    qemu: Child,
    reader: BufReader<ChildStdout>,
    pub(super) writer: ChildStdin,
    pub(super) text: String,
    last_id: u32,
}

impl Recorder {
    /// Starts QEMU and reads its greeting.
    pub(super) fn start(qemu: &str, about: &str, monitor: &str, more: &[&str]) -> Result<Self> {
        let version = Command::new(qemu)
            .arg("--version")
            .output()
            .with_context(|| format!("running {qemu}"))?;
        let version = String::from_utf8_lossy(&version.stdout);
        let arguments = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-chardev",
            "stdio,id=qmp",
        ];
        let mut qemu = Command::new(qemu)
            .args(arguments)
            .args(["-mon", &format!("chardev=qmp,mode=control{monitor}")])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let reader = qemu.stdout.take().context("stdout is piped")?;
        let writer = qemu.stdin.take().context("stdin is piped")?;
        let version = version.lines().next().unwrap_or_default();
        let mut text = format!("# {about}\n# {version}, {}\n", more.join(" "));
        writeln!(text, "# Made by 'cargo xtask transcripts'.")?;
        let mut recorder = Self {
            qemu,
            reader: BufReader::new(reader),
            writer,
            text,
            last_id: 0,
        };
        recorder.message()?;
        Ok(recorder)
    }

    /// Sends a command with the next id and reads up to its answer.
    pub(super) fn execute(&mut self, name: &str, arguments: Value) -> Result<Value> {
        self.command("execute", name, arguments)
    }

    pub(super) fn command(&mut self, verb: &str, name: &str, arguments: Value) -> Result<Value> {
        self.last_id += 1;
        let id = format!("0000002a-{}", self.last_id);
        let arguments = if arguments.is_null() {
            String::new()
        } else {
            format!(",\"arguments\":{arguments}")
        };
        self.send(&format!(
            "{{\"{verb}\":\"{name}\"{arguments},\"id\":\"{id}\"}}"
        ))?;
        self.until(|message| message["id"] == *id)
    }

    pub(super) fn send(&mut self, text: &str) -> Result<()> {
        writeln!(self.text, "> {text}")?;
        self.writer.write_all(text.as_bytes())?;
        Ok(self.writer.flush()?)
    }

    /// Reads messages up to the one that is meant.
    pub(super) fn until(&mut self, is_meant: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let message = self.message()?;
            if is_meant(&message) {
                return Ok(message);
            }
            ensure!(
                start.elapsed() < DEADLINE,
                "no such answer within {DEADLINE:?}; the last message was {message}"
            );
        }
    }

    /// Reads a message, over as many lines as it takes.
    fn message(&mut self) -> Result<Value> {
        let mut message = String::new();
        loop {
            let before = message.len();
            ensure!(
                self.reader.read_line(&mut message)? > 0,
                "QEMU closed its monitor"
            );
            let line = &message[before..];
            ensure!(
                line.ends_with("\r\n"),
                "a line of QEMU's that does not end in CRLF: {line:?}"
            );
            writeln!(self.text, "< {}", line.trim_end_matches("\r\n"))?;
            match serde_json::from_str(&message) {
                Ok(message) => return Ok(message),
                Err(error) if error.is_eof() => {}
                Err(error) => bail!("{error} in {message}"),
            }
        }
    }

    /// Ends QEMU and takes what was said.
    pub(super) fn quit(mut self) -> Result<String> {
        self.execute("quit", Value::Null)?;
        self.qemu.wait()?;
        Ok(std::mem::take(&mut self.text))
    }
}

impl Drop for Recorder {
    /// A recording that failed leaves no process.
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
