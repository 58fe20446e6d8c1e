//! From arguments and settings to the machine that is started.

use std::path::Path;
use std::time::Duration;

use qemu_controller::qemu_launch::discover::Qemu;
use qemu_controller::qemu_launch::firmware::FirmwareError;
use qemu_controller::qemu_launch::{Format, Semihosting, SpawnError};
use qemu_controller::{QemuConfig, StartError};

use crate::args::Run;
use crate::report::Failure;
use crate::settings::Settings;

/// How long QEMU may take to be ready: ample also where a whole test suite starts at once.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// What is to be started. The firmware is held until all that it prints can be heard.
pub(crate) fn config(run: &Run, settings: &Settings) -> Result<QemuConfig, Failure> {
    let mut config = QemuConfig::default()
        .start_paused(true)
        .start_deadline(START_DEADLINE)
        .semihosting(semihosting(run))
        .extra_args(&settings.qemu_args)
        .extra_args(&run.qemu_args);
    if let Some(endpoint) = &run.gdb {
        config = config.gdb(endpoint.clone());
    }
    if let Some(machine) = &settings.machine {
        config = config.machine(machine);
    }
    if let Some(cpu) = &settings.cpu {
        config = config.cpu(cpu);
    }
    if let Some(memory) = &settings.memory {
        config = config.memory(memory);
    }
    if let Some(qemu) = &settings.qemu {
        config = config.qemu(qemu);
    }
    if settings.reboot != Some(true) {
        config = config.no_reboot(true);
    }
    if let Some(shift) = settings.deterministic {
        config = config.deterministic(shift);
    }
    firmware(config, &run.firmware, run.raw)
}

fn firmware(config: QemuConfig, path: &Path, raw: Option<u64>) -> Result<QemuConfig, Failure> {
    if let Some(address) = raw {
        return Ok(config.with_spec(|spec| spec.raw_image(path, address)));
    }
    match Format::of(path).map_err(Failure::Firmware)? {
        Format::IntelHex => Ok(config.with_spec(|spec| spec.intel_hex(path))),
        Format::Unknown => Err(Failure::UnknownFormat {
            path: path.to_owned(),
        }),
        // QEMU's own checks of an ELF are the library's.
        _ => Ok(config.firmware(path)),
    }
}

/// The firmware's command line begins with its name, as a program's does.
fn semihosting(run: &Run) -> Semihosting {
    let words =
        std::iter::once(run.firmware.as_os_str()).chain(run.arguments.iter().map(|word| &**word));
    words.fold(Semihosting::native(), Semihosting::argument)
}

/// Why it did not start; said first that QEMU does not know the board, where that is so: its own
/// words name none.
pub(crate) fn explain(error: StartError, settings: &Settings) -> Failure {
    let program = settings
        .qemu
        .as_deref()
        .unwrap_or(Path::new("qemu-system-arm"));
    let known = |machine: &str| {
        // Where it cannot be asked, its own words have to do.
        let machines = Qemu::find(program)
            .ok()
            .and_then(|qemu| qemu.machines().ok());
        machines.is_none_or(|machines| machines.iter().any(|known| known.name == machine))
    };
    match &settings.machine {
        Some(machine) if matches!(error, StartError::Exited { .. }) && !known(machine) => {
            Failure::UnknownMachine {
                machine: machine.clone(),
                program: program.to_owned(),
            }
        }
        _ if is_for_another_cpu(&error) => Failure::OtherCpu(error),
        _ => Failure::Start(error),
    }
}

fn is_for_another_cpu(error: &StartError) -> bool {
    use FirmwareError::{WrongByteOrder, WrongClass, WrongMachine};
    let StartError::Launch(SpawnError::Firmware(error)) = error else {
        return false;
    };
    matches!(
        error,
        WrongMachine { .. } | WrongClass { .. } | WrongByteOrder { .. }
    )
}
