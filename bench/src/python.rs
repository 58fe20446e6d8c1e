//! The Python package `qemu.qmp`, driven over a pipe: a line says what to measure, a line of JSON
//! answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

/// An interpreter that runs `qemu_qmp.py`, and ends when it is dropped.
pub struct Python {
    child: Child,
    /// Closed to end it.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Python {
    /// Fails where the interpreter has no `qemu.qmp`.
    pub fn start(interpreter: &Path) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/qemu_qmp.py");
        let mut command = Command::new(interpreter);
        command
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| interpreter.display().to_string())?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).context("no pipes")?;
        let mut python = Self {
            child,
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
        };
        python.line().context("it has no usable qemu.qmp")?;
        Ok(python)
    }

    /// One round of one measurement.
    pub fn ask(&mut self, what: &str, path: &Path, count: usize) -> Result<Vec<f64>> {
        self.ask_at_once(what, path, count, 1)
    }

    pub fn ask_at_once(
        &mut self,
        what: &str,
        path: &Path,
        count: usize,
        depth: usize,
    ) -> Result<Vec<f64>> {
        let question = json!({"do": what, "path": path, "count": count, "depth": depth});
        let stdin = self.stdin.as_mut().context("it has been ended")?;
        writeln!(stdin, "{question}")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "Python ended");
        Ok(line)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It ends by itself then, and its QEMU with it.
        self.stdin = None;
        // It can only fail for a process that has been reaped.
        let _ = self.child.wait();
    }
}
