//! QEMU's stderr: what the firmware prints there by semihosting (the file `:tt`, opened to append)
//! is its output; QEMU's own messages are not.

use qemu_controller::StderrLines;
use serde_json::json;

use crate::escape;
use crate::output::{Cut, Output, Stream};
use crate::reporter::Reporter;

/// Prints what the firmware prints to stderr, and with `verbose` what QEMU says there, until QEMU
/// is gone. While nobody takes it, QEMU's stderr is not read, and what is lost by that is counted:
/// QEMU never waits for it.
pub(crate) async fn print(
    mut lines: StderrLines,
    verbose: bool,
    output: &Output,
    reporter: &Reporter,
) -> Result<(), Cut> {
    loop {
        output.until_ending(reporter.room()).await;
        let Some(line) = lines.next().await else {
            return Ok(());
        };
        if line.dropped_before > 0 {
            let lost = line.dropped_before;
            let words = format!("{lost} bytes that came on QEMU's stderr are lost");
            let object = json!({ "event": "lost", "bytes": lost });
            reporter.say(Some(&words), &object).map_err(Cut::Failed)?;
        }
        if !line.is_firmwares {
            if verbose {
                reporter.pass_on(&escape::line(&line.text));
            }
            continue;
        }
        let object = json!({ "event": "stderr", "text": line.text });
        reporter
            .firmware_said(&line.text, &object)
            .map_err(Cut::Failed)?;
        output
            .tap(Stream::Stderr, format!("{}\n", line.text).as_bytes())
            .await?;
    }
}
