//! QEMU's stderr: what the firmware prints there by semihosting (the file `:tt`, opened to append)
//! is its output; QEMU's own messages are not.
//!
//! Both come through one descriptor, and nothing but their text distinguishes them.

use qemu_controller::qemu_launch::Lines;
use serde_json::json;

use crate::escape;
use crate::output::{Cut, Output, Stream};
use crate::report::Reporter;

/// Messages of QEMU's boards that have no prefix, and come in good runs.
const OF_BOARDS: [&str; 1] = ["Timer with period zero, disabling"];

/// Prints what the firmware prints to stderr, and with `verbose` what QEMU says there, until QEMU
/// is gone.
pub(crate) async fn print(
    mut lines: Lines,
    verbose: bool,
    output: &Output,
    reporter: &Reporter,
) -> Result<(), Cut> {
    let mut fatal = false;
    while let Some(line) = lines.next_line().await {
        if line.dropped_before > 0 {
            let lost = line.dropped_before;
            let words = format!("{lost} bytes that came on QEMU's stderr are lost");
            let object = json!({ "event": "lost", "bytes": lost });
            reporter.say(Some(&words), &object).map_err(Cut::Failed)?;
        }
        // A register dump follows.
        fatal |= line.text.starts_with("qemu: fatal: ");
        if fatal || is_qemus(&line.text) {
            if verbose {
                reporter.pass_on(&escape::line(&line.text));
            }
            continue;
        }
        let object = json!({ "event": "stderr", "text": line.text });
        reporter
            .firmware_said(&line.text, &object)
            .map_err(Cut::Failed)?;
        output.tap(Stream::Stderr, format!("{}\n", line.text).as_bytes())?;
    }
    Ok(())
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
