//! An x86 core's triple fault: a fault whose handler it cannot enter, nor that of a double fault.
//!
//! QEMU 7.2 and 10.0 report it as a reset that the guest asked for. Their log alone tells which it
//! was, by a line `Triple fault` of the item `cpu_reset`. That item is logged to stderr where the
//! first reset ends the run and nobody else has the log: each further reset would log registers.
//! An accelerator such as KVM has no such line.

use std::ffi::OsString;

use qemu_launch::{Argv, ProcessHandle};
use qmp_proto::commands::HumanMonitorCommand;

use crate::client::Shared;
use crate::client::command::{Deadline, command};
use crate::error::CommandError;
use crate::session::stderr::has;

/// Why a reset may have been one.
pub(super) const ALIKE: &str = "QEMU reports both alike, and its log (-d cpu_reset) tells which, but \
                                not with KVM";

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
    // QEMU writes it before it reports the reset. Behind that of an earlier reset are registers.
    let said = process.stderr_tail().to_string_lossy();
    let mut said = said.lines().rev();
    let last = said.find(|line| *line == "Triple fault" || line.starts_with("CPU Reset"));
    if last == Some("Triple fault") {
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
    is_x86(argv)
        && ends
        && !is_accelerated(words)
        && !["d", "D", "trace"].iter().any(|log| has(words, log))
}

/// Whether the guest may be run by something else than QEMU's translator (TCG).
fn is_accelerated(words: &[OsString]) -> bool {
    let accelerators = ["kvm", "xen", "hvf", "whpx", "nvmm"];
    let mut words = words.iter().map(|word| word.to_string_lossy());
    words.any(|word| {
        matches!(&*word, "-enable-kvm" | "--enable-kvm")
            || word
                .split([',', ':'])
                .map(|part| part.rsplit('=').next().unwrap_or_default())
                .any(|part| accelerators.contains(&part))
    })
}

pub(super) fn is_x86(argv: &Argv) -> bool {
    matches!(argv.target(), Some("x86_64" | "i386" | "amd64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_log_tells() {
        for (program, words, is_told) in [
            ("qemu-system-x86_64", "-no-reboot", true),
            ("qemu-system-i386", "-action reboot=shutdown", true),
            (
                "qemu-system-x86_64",
                "-no-reboot -accel tcg,thread=single",
                true,
            ),
            (
                "qemu-system-x86_64",
                "-no-reboot -kernel /src/kvm/os.elf",
                true,
            ),
            ("qemu-system-x86_64", "", false),
            ("qemu-system-arm", "-no-reboot", false),
            ("qemu-system-x86_64", "-no-reboot -d int", false),
            ("qemu-system-x86_64", "-no-reboot -enable-kvm", false),
            (
                "qemu-system-x86_64",
                "-no-reboot -accel kvm,dirty-ring-size=4096",
                false,
            ),
            (
                "qemu-system-x86_64",
                "-no-reboot -machine q35,accel=kvm:tcg",
                false,
            ),
        ] {
            let words = words.split_whitespace().map(OsString::from).collect();
            let argv = Argv::new(program.into(), words);
            assert_eq!(is_logged(&argv), is_told, "{argv}");
        }
    }
}
