//! Why a machine did not start, in the program's words where there are better ones than the library's.

use std::path::Path;

use qemu_controller::StartError;
use qemu_controller::qemu_launch::discover::Qemu;
use qemu_controller::qemu_launch::firmware::FirmwareError;
use qemu_controller::qemu_launch::{ExitKind, SpawnError, SpecError};

use crate::args::Run;
use crate::failure::Failure;
use crate::machine::{name, own_option};
use crate::settings::Settings;
use crate::test_run::test_option_among;

/// QEMU's options, and the program's option that sets the same.
const OWN_OPTIONS: [(&[&str], &str); 8] = [
    (&["s", "S", "gdb"], "--gdb"),
    (&["kernel"], "FIRMWARE"),
    (&["bios"], "--bios"),
    (&["machine", "M"], "--machine"),
    (&["cpu"], "--cpu"),
    (&["m"], "--memory"),
    (&["semihosting", "semihosting-config"], "--semihosting"),
    (&["icount"], "--deterministic"),
];

/// Why a run did not start.
pub(crate) fn explain(error: StartError, run: &Run, settings: &Settings) -> Failure {
    if let StartError::Launch(SpawnError::Spec(error)) = &error
        && let Some(failure) = refused_word(error)
    {
        return failure;
    }
    if let Some(option) = refused_test_option(&error, run) {
        return Failure::Usage(format!(
            "{option} came behind `--`, where QEMU's own arguments are: those of a firmware and its \
             tests come right behind FIRMWARE"
        ));
    }
    not_started(error, settings.program(), settings.machine.as_deref())
}

/// Why this machine of this QEMU did not start.
pub(crate) fn not_started(error: StartError, program: &Path, machine: Option<&str>) -> Failure {
    if let StartError::Exited { exit, .. } = &error {
        let said = exit.stderr().to_string_lossy();
        if lacks_sandbox(&said) {
            return Failure::NoSandbox(Box::new(error));
        }
        // As 7.2 says it, and as 10.0 does.
        let no_opensbi = [
            "Unable to load the RISC-V firmware \"opensbi",
            "Unable to find the RISC-V BIOS \"opensbi",
        ];
        if no_opensbi.iter().any(|words| said.contains(words)) {
            return Failure::NoOpenSbi(Box::new(error));
        }
        // QEMU 10.0, of the boards whose sound is no property on 7.2 (xlnx-zcu102).
        if said.contains("no default audio driver available") {
            return Failure::NoAudio(Box::new(error));
        }
        if let Some(machine) = machine.filter(|machine| !known(program, machine)) {
            return Failure::UnknownMachine {
                machine: machine.to_owned(),
                program: program.to_owned(),
            };
        }
    }
    match error {
        StartError::Launch(SpawnError::Firmware(error @ FirmwareError::WrongCpu { .. })) => {
            Failure::OtherCpu(error)
        }
        StartError::Launch(SpawnError::Firmware(error)) => Failure::Refused(error),
        error => Failure::Start {
            said: said(&error),
            error: Box::new(error),
        },
    }
}

/// The first word for QEMU that is an option of a test program's, where QEMU refuses it.
fn refused_test_option<'a>(error: &StartError, run: &'a Run) -> Option<&'a str> {
    let StartError::Exited { exit, .. } = error else {
        return None;
    };
    let option = test_option_among(&run.qemu_args)?;
    let said = exit.stderr().to_string_lossy();
    said.contains(&format!("{option}: invalid option"))
        .then_some(option)
}

/// A word for QEMU that the library refuses and that the program has an option for.
fn refused_word(error: &SpecError) -> Option<Failure> {
    let (SpecError::SetAgain { option, .. } | SpecError::Refused { option, .. }) = error else {
        return None;
    };
    let mut options = OWN_OPTIONS.iter();
    let (_, own) = options.find(|(names, _)| names.contains(&name(option)))?;
    Some(own_option(&option.to_string_lossy(), own))
}

/// Whether QEMU knows a board; where it cannot be asked, its own words have to do.
fn known(program: &Path, machine: &str) -> bool {
    let machines = Qemu::find(program)
        .ok()
        .and_then(|qemu| qemu.machines().ok());
    // Properties may follow.
    let name = machine.split(',').next().unwrap_or_default();
    machines.is_none_or(|machines| machines.iter().any(|known| known.name == name))
}

/// Whether this is how a QEMU ends that was built without seccomp, or that the kernel lets have none.
fn lacks_sandbox(said: &str) -> bool {
    let words = [
        "There is no option group 'sandbox'",
        "-sandbox support is not enabled in this QEMU binary",
        "seccomp support is disabled",
        "failed to install seccomp syscall filter",
    ];
    words.iter().any(|words| said.contains(words))
}

/// What QEMU said, where that is more than the error has.
fn said(error: &StartError) -> Option<String> {
    let StartError::Exited { exit, .. } = error else {
        return None;
    };
    let said = exit.stderr().to_string_lossy();
    let in_error = match exit.kind() {
        ExitKind::OptionError { line } => told(line),
        ExitKind::Lockup(_) | ExitKind::Aborted { line: Some(_) } => 1,
        // It has all of it.
        _ => return None,
    };
    (told(&said) > in_error).then_some(said)
}

/// How many lines of QEMU's tell more than a warning.
fn told(said: &str) -> usize {
    let lines = said.lines();
    let telling = lines.filter(|line| !line.is_empty() && !line.contains(": warning: "));
    telling.count()
}
