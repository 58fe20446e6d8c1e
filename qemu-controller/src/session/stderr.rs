//! QEMU's stderr: what the firmware prints there by semihosting (the file `:tt`, opened to append),
//! and QEMU's own messages.
//!
//! Both come through one descriptor, and nothing but their text distinguishes them.

use qemu_launch::Lines;

use crate::session::Session;

/// Messages of QEMU's boards that have no prefix, and come in good runs.
const OF_BOARDS: [&str; 1] = ["Timer with period zero, disabling"];

/// The lines of QEMU's stderr, each with who wrote it as far as that can be known; by
/// [`Session::stderr`].
#[derive(Debug)]
pub struct StderrLines {
    lines: Lines,
    /// Without semihosting the firmware has no standard error.
    has_semihosting: bool,
    /// QEMU is about to abort: what follows is its register dump.
    is_fatal: bool,
}

/// A line of QEMU's stderr, without its end; what is not UTF-8 becomes U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StderrLine {
    /// The line.
    pub text: String,
    /// It is the firmware's, by semihosting's standard error: the message of a panic or a failed
    /// assertion, for example. Otherwise it is QEMU's own.
    pub is_firmwares: bool,
    /// Bytes before this line that were gone before they could be read.
    pub dropped_before: u64,
}

impl StderrLines {
    /// The next line; `None` when QEMU has closed its stderr. May be dropped at any point.
    pub async fn next(&mut self) -> Option<StderrLine> {
        let line = self.lines.next_line().await?;
        self.is_fatal |= line.text.starts_with("qemu: fatal: ");
        Some(StderrLine {
            is_firmwares: self.has_semihosting && !self.is_fatal && !is_qemus(&line.text),
            text: line.text,
            dropped_before: line.dropped_before,
        })
    }
}

impl Session {
    /// What is written to QEMU's stderr, from the beginning as far as it is still kept: the
    /// firmware's standard error of [semihosting](crate::QemuConfig::semihosting), distinguished
    /// from QEMU's own messages by their text. `None` for a session that was attached.
    #[must_use]
    pub fn stderr(&self) -> Option<StderrLines> {
        let process = self.process()?;
        let mut words = process.argv().args().iter();
        Some(StderrLines {
            has_semihosting: words.any(|word| word.to_string_lossy().starts_with("-semihosting")),
            lines: process.stderr_lines(),
            is_fatal: false,
        })
    }
}

/// As far as it can be known.
fn is_qemus(line: &str) -> bool {
    let program = line.split(':').next().unwrap_or_default();
    program.starts_with("qemu-system-") && !program.contains(' ')
        || line.starts_with("qemu: ")
        || line.starts_with("QEMU: ")
        || OF_BOARDS.contains(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_s_messages_and_the_firmware_s() {
        for line in [
            "qemu-system-arm: warning: nic stellaris_enet.0 has no peer",
            "qemu-system-arm: terminating on signal 15 from pid 1 (x)",
            "qemu: fatal: Lockup: can't escalate 3 to HardFault (current priority -1)",
            "QEMU: Terminated via GDBstub",
            "Timer with period zero, disabling",
        ] {
            assert!(is_qemus(line), "{line}");
        }
        for line in [
            "",
            "panicked at 'boom', src/main.rs:5:9",
            "qemu-system is what: I am",
        ] {
            assert!(!is_qemus(line), "{line}");
        }
    }
}
