//! QEMU's stderr: what the firmware prints there by semihosting (the file `:tt`, opened to append),
//! and QEMU's own messages.
//!
//! Both come through one descriptor, and nothing but their text distinguishes them. QEMU's log
//! (`-d`, `-trace`) has no mark at all: where it goes to stderr, nothing there is taken for the
//! firmware's, or an expected text could be found in the log.

use std::ffi::OsString;

use qemu_launch::Lines;

use crate::session::Session;

/// What QEMU's boards and libraries (sound, GLib) say without QEMU's name in front, also in good
/// runs. Others that a firmware could say as well (`audio: …`) are taken for the firmware's.
const OF_PARTS: [&str; 4] = [
    "Timer with period zero, disabling",
    "ALSA lib ",
    "(qemu-system-",
    "** (qemu-system-",
];

/// The lines of QEMU's stderr, each with who wrote it as far as that can be known; by
/// [`Session::stderr`].
#[derive(Debug)]
pub struct StderrLines {
    lines: Lines,
    /// Without semihosting the firmware has no standard error; beside QEMU's log it cannot be told
    /// from that.
    can_be_firmwares: bool,
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
    /// assertion, for example. Otherwise it is QEMU's own, or cannot be told from that: QEMU's log
    /// (`-d`, `-trace`) comes here unless `-D` names a file.
    pub is_firmwares: bool,
    /// Bytes before this line that were gone before they could be read.
    pub dropped_before: u64,
}

impl StderrLines {
    /// The next line; `None` when QEMU has closed its stderr. May be dropped at any point.
    pub async fn next(&mut self) -> Option<StderrLine> {
        // A flood would leave the other futures of the task, such as a deadline, no turn.
        tokio::task::coop::consume_budget().await;
        let line = self.lines.next_line().await?;
        self.is_fatal |= line.text.starts_with("qemu: fatal: ");
        Some(StderrLine {
            is_firmwares: self.can_be_firmwares && !self.is_fatal && !is_qemus(&line.text),
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
        let words = process.argv().args();
        let has_log = has(words, "d") || has(words, "trace");
        Some(StderrLines {
            can_be_firmwares: (has(words, "semihosting") || has(words, "semihosting-config"))
                && (!has_log || has(words, "D")),
            lines: process.stderr_lines(),
            is_fatal: false,
        })
    }
}

/// Whether an option is among QEMU's arguments, with one dash or two.
pub(crate) fn has(words: &[OsString], option: &str) -> bool {
    words.iter().filter_map(|word| word.to_str()).any(|word| {
        let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        name == Some(option)
    })
}

/// As far as it can be known.
fn is_qemus(line: &str) -> bool {
    let program = line.split(':').next().unwrap_or_default();
    program.starts_with("qemu-system-") && !program.contains(' ')
        || line.starts_with("qemu: ")
        || line.starts_with("QEMU: ")
        || OF_PARTS.iter().any(|start| line.starts_with(start))
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
            "ALSA lib confmisc.c:855:(parse_card) cannot find card '0'",
            "(qemu-system-arm:77): GLib-WARNING **: 05:00:00.000: x",
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
