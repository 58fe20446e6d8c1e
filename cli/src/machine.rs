//! From arguments and settings to the machine that is started.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use qemu_controller::qemu_launch::firmware::{check_symbols, fitting_machines};
use qemu_controller::qemu_launch::{Format, MachineSpec, Sandbox, Semihosting};
use qemu_controller::{Endpoint, QemuConfig};
use serde_json::json;

use crate::args::{self, Run};
use crate::coverage::Report;
use crate::escape;
use crate::failure::Failure;
use crate::logs::Logs;
use crate::reporter::Reporter;
use crate::settings::{SemihostingMode, Settings};

/// How long QEMU may take to be ready: ample also where a whole test suite starts at once.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long QEMU has to end after `quit`, after SIGTERM and after SIGKILL: no long wait is to
/// follow a `--timeout`.
const STOP: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// The library's default.
const DEFAULT_MACHINE: &str = "lm3s6965evb";

/// Makes a character device of QEMU's log to QEMU's stdout.
const LOG_TO_STDOUT: &str = if cfg!(target_os = "linux") {
    "logfile=/proc/self/fd/1"
} else {
    "logfile=/dev/fd/1"
};

/// What QEMU gets for its stdin and its stdout.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
}

/// What is to be started. The firmware is held until all that it prints can be read.
pub(crate) fn config(
    run: &Run,
    settings: &Settings,
    streams: Streams,
    logs: &Logs,
) -> Result<QemuConfig, Failure> {
    let config = base(run, settings, output_args(settings, logs))?
        .with_spec(|spec| spec.stdin(streams.stdin).stdout(streams.stdout));
    Ok(logs.config(semihosting(config, run, settings)))
}

/// The machine that tests are run on: what they print, the session reads.
pub(crate) fn config_for_tests(
    run: &Run,
    settings: &Settings,
    logs: &Logs,
) -> Result<QemuConfig, Failure> {
    let config = logs.config(base(run, settings, Vec::new())?);
    Ok(settings.semihosting().of(config))
}

/// Paused at its start, and bounded in time as all that this program starts.
pub(crate) fn paused(config: QemuConfig) -> QemuConfig {
    let [quit, terminate, kill] = STOP;
    config
        .start_paused(true)
        .start_deadline(START_DEADLINE)
        .stop_policy(quit, terminate, kill)
}

fn base(run: &Run, settings: &Settings, words: Vec<OsString>) -> Result<QemuConfig, Failure> {
    let mut config = paused(QemuConfig::default()).extra_args(extra_args(run, settings, words)?);
    if cfg!(target_os = "linux")
        && matches!(
            run.gdb,
            Some(Endpoint::Loopback { .. } | Endpoint::Exposed(_))
        )
        && !is_set("sandbox", run, settings)
    {
        // Every local user can be the debugger, and a debugger has the monitor.
        config = config.with_spec(|spec| spec.sandbox(Sandbox::NoSpawn));
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
    // A debugger's reset is to reset; QEMU does not distinguish the two.
    if settings.reboot != Some(true) && run.gdb.is_none() {
        config = config.no_reboot(true);
    }
    if let Some(shift) = settings.deterministic {
        config = config.deterministic(shift);
    }
    let program = settings.program().file_name().unwrap_or_default();
    let program = program.to_string_lossy();
    for symbols in &run.symbols {
        check_symbols(symbols, &program).map_err(Failure::Symbols)?;
        config = config.symbols(symbols);
    }
    if Report::is_wanted(run) {
        config = config.coverage(true);
    }
    if run.unchecked {
        config = config.with_spec(MachineSpec::without_firmware_checks);
    }
    firmware(config, run, settings)
}

/// The settings with a QEMU and a machine that the firmware fits, where none was named, and the
/// default is not one of those.
pub(crate) fn fitting(
    mut settings: Settings,
    run: &Run,
    reporter: &Reporter,
) -> Result<Settings, Failure> {
    let named = settings.qemu.is_some() || settings.machine.is_some() || settings.cpu.is_some();
    let Some(firmware) = run
        .firmware
        .as_deref()
        .filter(|_| !named && run.raw.is_none())
    else {
        return Ok(settings);
    };
    // What is no ELF file, or none that can be read, is refused later.
    let fitting = fitting_machines(firmware).unwrap_or_default();
    let [first, others @ ..] = &*fitting else {
        return Ok(settings);
    };
    if fitting
        .iter()
        .any(|fitting| fitting.machine == DEFAULT_MACHINE)
    {
        return Ok(settings);
    }
    let mut words = format!(
        "{} fits {} and machine {}",
        escape::line(&firmware.display().to_string()),
        first.program,
        first.machine
    );
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(|fitting| fitting.machine).collect();
        words.push_str(&format!("; also {}", others.join(", ")));
    }
    let object = json!({ "event": "machine", "qemu": first.program, "machine": first.machine });
    reporter.say(Some(&words), &object)?;
    settings.qemu = Some(first.program.clone().into());
    settings.machine = Some(first.machine.to_owned());
    settings.cpu = first.cpu.map(str::to_owned);
    Ok(settings)
}

fn firmware(config: QemuConfig, run: &Run, settings: &Settings) -> Result<QemuConfig, Failure> {
    if run.firmware.is_none()
        && run.bios.is_none()
        && !words_of(run, settings).any(is_beginning)
        && !asks_for_list(run, settings)
    {
        return Err(Failure::Usage(args::no_firmware()));
    }
    let config = match &run.bios {
        Some(bios) => config.with_spec(|spec| spec.bios(bios)),
        None => config,
    };
    if let Some(initrd) = &run.initrd {
        // Modules of a multiboot kernel with their arguments, `a.mod verbose,b.mod`, are no one file.
        let are_modules = initrd.to_string_lossy().contains([' ', ',']);
        // QEMU looks at it only where the firmware is a kernel.
        if !are_modules {
            Format::of(initrd).map_err(Failure::Firmware)?;
        }
    }
    let Some(path) = run.firmware.as_deref() else {
        let rom = run.bios.as_deref();
        return Ok(
            match rom.filter(|rom| matches!(Format::of(rom), Ok(Format::Elf))) {
                Some(rom) => config.symbols(rom),
                None => config,
            },
        );
    };
    if let Some(address) = run.raw {
        return Ok(config.with_spec(|spec| spec.raw_image(path, address)));
    }
    match Format::of(path).map_err(Failure::Firmware)? {
        Format::IntelHex => Ok(config.with_spec(|spec| spec.intel_hex(path))),
        Format::LinuxKernel => Ok(config.with_spec(|spec| spec.unchecked_firmware(path))),
        Format::Unknown => Err(Failure::UnknownFormat {
            path: path.to_owned(),
        }),
        // The checks of an ELF are the library's.
        _ => Ok(config.firmware(path)),
    }
}

/// Whether a word for QEMU brings what a machine may begin with: code, a medium, a saved state.
fn is_beginning(word: &OsStr) -> bool {
    let options = [
        "bios", "blockdev", "cdrom", "drive", "fda", "hda", "incoming", "kernel", "loadvm",
        "mtdblock", "pflash", "sd",
    ];
    options.contains(&name(word)) || word.to_string_lossy().starts_with("loader,")
}

/// The words for QEMU: the configuration file's, and those after `--`.
pub(crate) fn words_of<'a>(
    run: &'a Run,
    settings: &'a Settings,
) -> impl Iterator<Item = &'a OsStr> {
    let file = settings.qemu_args.iter().map(OsStr::new);
    file.chain(run.qemu_args.iter().map(|word| &**word))
}

/// Whether the words for QEMU have an option of this name.
fn is_set(option: &str, run: &Run, settings: &Settings) -> bool {
    words_of(run, settings).any(|word| name(word) == option)
}

/// Whether QEMU is asked for a list or its version in place of a run.
pub(crate) fn asks_for_list(run: &Run, settings: &Settings) -> bool {
    let is_list = |text: &str| {
        let last = text.rsplit([',', '=']).next();
        matches!(last, Some("help" | "?"))
    };
    let set = [&settings.machine, &settings.cpu];
    set.into_iter().flatten().any(|text| is_list(text))
        || words_of(run, settings).any(|word| {
            matches!(name(word), "h" | "help" | "version") || word.to_str().is_some_and(is_list)
        })
}

/// What brings all output into one pipe.
fn output_args(settings: &Settings, logs: &Logs) -> Vec<OsString> {
    let mut devices = Vec::new();
    if !logs.reads_serial() {
        devices.push("serial0");
    }
    if settings.semihosting() != SemihostingMode::Off {
        devices.push("semihosting");
    }
    let mut words = Vec::new();
    for device in devices {
        for option in [LOG_TO_STDOUT, "logappend=on"] {
            let option = format!("chardev.{device}.{option}");
            words.extend([OsString::from("-set"), option.into()]);
        }
    }
    words
}

/// The words for QEMU, and before them these.
fn extra_args(
    run: &Run,
    settings: &Settings,
    mut words: Vec<OsString>,
) -> Result<Vec<OsString>, Failure> {
    if is_set("S", run, settings) {
        return Err(own_option("-S", "--gdb"));
    }
    let log = ["-d", "-D"]
        .into_iter()
        .find(|word| is_set(&word[1..], run, settings));
    if let Some(word) = log.filter(|_| Report::is_wanted(run)) {
        return Err(own_option(word, "--coverage"));
    }
    if is_set("sandbox", run, settings) && settings.semihosting() != SemihostingMode::Full {
        return Err(own_option("-sandbox", "--semihosting"));
    }
    // Its log would come between what the firmware prints on stderr.
    let has_log = ["d", "trace"]
        .iter()
        .any(|option| is_set(option, run, settings));
    if has_log && !is_set("D", run, settings) && !run.verbose {
        words.extend(["-D", "/dev/null"].map(OsString::from));
    }
    for (option, value) in [
        ("-append", run.append.as_deref()),
        ("-initrd", run.initrd.as_deref().map(Path::as_os_str)),
    ] {
        words.extend(
            value
                .map(|value| [option.into(), value.to_owned()])
                .into_iter()
                .flatten(),
        );
    }
    // There is no window here in any case.
    let theirs = words_of(run, settings).filter(|word| name(word) != "nographic");
    words.extend(theirs.map(OsStr::to_owned));
    Ok(words)
}

/// The firmware's command line begins with its name, as a program's does; that of one whose test is
/// wanted says which.
fn semihosting(config: QemuConfig, run: &Run, settings: &Settings) -> QemuConfig {
    let Some(served) = settings.semihosting().served() else {
        return config;
    };
    if let Some(test) = &run.test {
        let address = test.address().to_string();
        return config.semihosting(served.argument("run_addr").argument(address));
    }
    let firmware = run.firmware.as_deref().or(run.bios.as_deref());
    let words = firmware.map(Path::as_os_str);
    let words = words
        .into_iter()
        .chain(run.arguments.iter().map(|word| &**word));
    config.semihosting(words.fold(served, Semihosting::argument))
}

/// A word's name, where it is an option of QEMU's, which takes one dash or two.
pub(crate) fn name(word: &OsStr) -> &str {
    let text = word.to_str().unwrap_or_default();
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
    name.unwrap_or_default()
}

pub(crate) fn own_option(word: &str, option: &'static str) -> Failure {
    Failure::OwnOption {
        word: word.to_owned(),
        option,
    }
}
