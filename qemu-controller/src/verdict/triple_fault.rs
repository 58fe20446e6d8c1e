//! An x86 core's triple fault: a fault whose handler it cannot enter, nor that of a double fault.
//!
//! QEMU 7.2 and 10.0 report it as a reset that the guest asked for. Their log alone tells which it
//! was, by a line `Triple fault` of the item `cpu_reset`. That item is logged to stderr where the
//! first reset ends the run and nobody else has the log: each further reset would log registers.

use qemu_launch::{Argv, ProcessHandle};
use qmp_proto::commands::HumanMonitorCommand;

use crate::client::Shared;
use crate::client::command::{Deadline, command};
use crate::error::CommandError;
use crate::session::stderr::has;

/// Has QEMU log triple faults; before the guest runs.
pub(crate) async fn log(
    shared: &Shared,
    deadline: impl Into<Deadline>,
    argv: &Argv,
) -> Result<(), CommandError> {
    if is_logged(argv) {
        let log = HumanMonitorCommand::new("log cpu_reset");
        command(shared, deadline.into(), &log).await?;
    }
    Ok(())
}

/// Whether a reset that the guest asked for was a triple fault; `None` where nobody can know.
pub(super) fn was(process: &ProcessHandle, is_over: bool) -> Option<bool> {
    let argv = process.argv();
    if !is_x86(argv) {
        return Some(false);
    }
    // QEMU writes it before it reports the reset. That of an earlier reset has registers behind it.
    let said = process.stderr_tail().to_string_lossy();
    if said.lines().next_back() == Some("Triple fault") {
        return Some(true);
    }
    // As long as QEMU stays, the line may still be on its way.
    (is_over && is_logged(argv)).then_some(false)
}

fn is_logged(argv: &Argv) -> bool {
    let words = argv.args();
    let ends = has(words, "no-reboot")
        || words
            .iter()
            .any(|word| word.to_string_lossy().contains("reboot=shutdown"));
    is_x86(argv) && ends && !["d", "D", "trace"].iter().any(|log| has(words, log))
}

fn is_x86(argv: &Argv) -> bool {
    matches!(argv.target(), Some("x86_64" | "i386" | "amd64"))
}
