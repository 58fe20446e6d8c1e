//! From a machine to QEMU's command line: nothing is opened, looked up or started.

pub(crate) mod command_line;
mod conflict;
pub(crate) mod option;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::board;
use crate::error::SpecError;
use crate::process::channel::{Channel, Channels};
use crate::process::environment;
use crate::spec::device::{
    Action, Blockdev, Device, Drive, Icount, Log, Monitor, Nic, Sandbox, Semihosting,
    SemihostingLevel,
};
use crate::spec::endpoint::Address;
use crate::spec::image::{Bios, LoadedImage};
use crate::spec::{MachineSpec, Stdio};
use crate::target::Target;
use command_line::Argv;
use option::OptionList;

/// The first descriptor that can be inherited: 0, 1 and 2 are the standard streams.
const FIRST_FD: i32 = 3;

/// The command line of a machine, and where its channels will be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) argv: Argv,
    pub(crate) channels: Vec<Channel>,
    /// It outlives its handle and this program.
    pub(crate) kept: bool,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) stdout_is_channel: bool,
    pub(crate) stdio: Stdio,
}

impl MachineSpec {
    /// The command line that this machine makes, for the `program` given and with unix sockets in
    /// `folder`.
    ///
    /// Nothing is looked up or opened; the description and the current folder, from which relative
    /// paths are made absolute, are all that it depends on. Inherited channels are shown with the
    /// descriptors 3, 4, ..., in the order QMP, GDB, serial ports, monitors, other character
    /// devices; a started process has numbers of its own (see
    /// [`ProcessHandle::argv`](crate::ProcessHandle::argv)).
    ///
    /// # Errors
    /// Whatever contradicts itself, or can't be passed to QEMU unharmed.
    pub fn argv(&self, program: &Path, folder: &Path) -> Result<Argv, SpecError> {
        Ok(plan(self, program, folder, FIRST_FD..)?.argv)
    }
}

/// What was asked for, by a setter or among the extra arguments.
impl MachineSpec {
    pub(crate) fn stdout_is_channel(&self) -> bool {
        self.stdout_is_channel && self.stdio.stdout.is_none()
    }

    /// The file for `-kernel`, if one was given.
    #[must_use]
    pub fn firmware_path(&self) -> Option<&Path> {
        self.kernels.first().map(|kernel| kernel.path.as_path())
    }

    /// Whether the guest is held at its start (`-S`).
    #[must_use]
    pub fn starts_stopped(&self) -> bool {
        self.start_stopped || self.is_set(&["S"])
    }

    /// Whether a ROM was named, or that there is to be none.
    pub(crate) fn has_bios(&self) -> bool {
        self.bios.is_some() || self.is_set(&["bios"])
    }

    /// Whether the extra arguments have one of these options.
    fn is_set(&self, options: &[&str]) -> bool {
        let words = self.extra_args.iter().filter_map(|word| word.to_str());
        let mut names = words.filter_map(|word| {
            let word = word.strip_prefix('-')?;
            Some(word.strip_prefix('-').unwrap_or(word))
        });
        names.any(|name| options.contains(&name))
    }
}

/// Makes the command line and says where the channels will be.
pub(crate) fn plan(
    spec: &MachineSpec,
    program: &Path,
    folder: &Path,
    descriptors: impl Iterator<Item = i32>,
) -> Result<Plan, SpecError> {
    environment::check(&spec.environment)?;
    check_board(spec, program)?;
    let channels = Channels::of(spec, folder, descriptors)?;
    let mut args = Args::default();
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-display", channels.display(spec)?);
    machine(spec, &mut args)?;
    contents(spec, program, &mut args)?;
    channels.write(spec, &mut args)?;
    storage_and_devices(spec, &mut args)?;
    behaviour(spec, &mut args)?;
    silence(spec, &mut args)?;
    let extra = conflict::check_extra(&args.words, &spec.extra_args)?;
    args.words.extend(extra);
    if let Some(folder) = &spec.current_dir {
        option::value("current folder", folder.as_os_str())?;
    }
    Ok(Plan {
        argv: Argv::new(program.to_owned(), args.words),
        channels: channels.into_vec(),
        kept: spec.kept,
        current_dir: spec.current_dir.clone(),
        stdout_is_channel: spec.stdout_is_channel(),
        stdio: spec.stdio.clone(),
    })
}

/// The default board is one of Arm's: any other QEMU needs a board to be named.
pub(crate) fn check_board(spec: &MachineSpec, program: &Path) -> Result<(), SpecError> {
    let target = Target::of(spec, program);
    if !spec.is_default_board() || target.has_default_board() {
        return Ok(());
    }
    Err(SpecError::Invalid {
        what: "machine",
        message: format!(
            "{} has to be told its machine: the default, {}, is one of qemu-system-arm",
            target.program(),
            spec.board_name()
        ),
    })
}

/// The words after the program, in the making.
#[derive(Debug, Default)]
pub(crate) struct Args {
    words: Vec<OsString>,
}

impl Args {
    pub(crate) fn flag(&mut self, option: &'static str) {
        self.words.push(option.into());
    }

    pub(crate) fn pair(&mut self, option: &'static str, value: impl Into<OsString>) {
        self.words.push(option.into());
        self.words.push(value.into());
    }
}

fn machine(spec: &MachineSpec, args: &mut Args) -> Result<(), SpecError> {
    let (machine, behind) = properties_behind("machine", &spec.machine)?;
    let mut list = OptionList::new("type", option::word("machine", machine)?);
    for (key, value) in behind {
        push_property(&mut list, "machine property", key, value.as_ref())?;
    }
    push_properties(&mut list, "machine property", &spec.machine_properties)?;
    args.pair("-machine", list.finish());
    match (spec.cpu_model(), spec.cpu_properties.first()) {
        (Some(cpu), _) => args.pair("-cpu", cpu_model(cpu, &spec.cpu_properties)?),
        (None, None) => {}
        (None, Some((property, _))) => {
            let problem = format!("{property} needs a CPU model to go with");
            return Err(SpecError::invalid("CPU property", problem));
        }
    }
    if let Some(memory) = spec.memory_size() {
        args.pair("-m", checked_memory(memory)?);
    }
    if let Some(cpus) = spec.smp {
        args.pair("-smp", cpus.to_string());
    }
    Ok(())
}

/// A name, and the properties behind it.
type NameAndProperties<'a> = (&'a str, Vec<(&'a str, &'a str)>);

/// The `key=value` pairs behind a name, as QEMU's manual writes them: `virt,secure=on`. A value
/// can't have a comma here.
fn properties_behind<'a>(
    what: &'static str,
    text: &'a str,
) -> Result<NameAndProperties<'a>, SpecError> {
    let mut pieces = text.split(',');
    let name = pieces.next().unwrap_or_default();
    let pairs: Option<Vec<_>> = pieces.map(|piece| piece.split_once('=')).collect();
    match pairs {
        Some(pairs) => Ok((name, pairs)),
        None => Err(SpecError::bad_name(what, text)),
    }
}

fn cpu_model(model: &str, properties: &[(String, String)]) -> Result<String, SpecError> {
    let (model, behind) = properties_behind("cpu", model)?;
    let set = properties.iter().map(|(key, value)| (&**key, &**value));
    let mut text = option::word("cpu", model)?.to_owned();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (key, value) in behind.into_iter().chain(set) {
        option::key("cpu property", key)?;
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == key) {
            let (first, value) = (first.as_ref(), value.as_ref());
            return Err(SpecError::set_twice("cpu property", key, first, value));
        }
        option::value("cpu property", value.as_ref())?;
        if value.contains(',') {
            let problem =
                format!("{key}={value:?} contains a comma, which QEMU's -cpu can't be given");
            return Err(SpecError::invalid("CPU property", problem));
        }
        text.push_str(&format!(",{key}={value}"));
        seen.push((key, value));
    }
    Ok(text)
}

fn checked_memory(text: &str) -> Result<&str, SpecError> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']);
    let suffix = text.len() - digits.len();
    if suffix <= 1 && digits.parse::<u64>().is_ok_and(|n| n > 0) && !digits.starts_with('+') {
        Ok(text)
    } else {
        Err(SpecError::Invalid {
            what: "memory",
            message: format!(
                "{text:?} is no amount of memory: a number above 0, in MiB unless K, M, G or T follows"
            ),
        })
    }
}

fn contents(spec: &MachineSpec, program: &Path, args: &mut Args) -> Result<(), SpecError> {
    let target = Target::of(spec, program);
    if let [first, second, ..] = spec.kernels.as_slice() {
        let (first, second) = (first.path.display(), second.path.display());
        return Err(SpecError::Conflict {
            message: format!("two firmwares: {first} and {second}"),
        });
    }
    if let Some(kernel) = spec.kernels.first() {
        let option = target.firmware_option();
        if option == "-bios" && spec.bios.is_some() {
            return Err(SpecError::Conflict {
                message: format!(
                    "two firmwares: {}, which this target takes as its ROM, and a ROM",
                    kernel.path.display()
                ),
            });
        }
        args.pair(option, option::path("firmware", &kernel.path)?);
    }
    for image in &spec.images {
        args.pair("-device", loader(image)?);
    }
    match &spec.bios {
        Some(Bios::File(path)) => args.pair("-bios", option::path("bios", path)?),
        Some(Bios::None) => args.pair("-bios", "none"),
        None => {}
    }
    if let Some(semihosting) = &spec.semihosting
        && semihosting.level != SemihostingLevel::Off
    {
        let list = semihosting_config(semihosting)?;
        if target.has_semihosting() {
            args.pair("-semihosting-config", list);
        }
    }
    Ok(())
}

/// A board with sound plays it to nobody, unless the extra arguments say where.
fn silence(spec: &MachineSpec, args: &mut Args) -> Result<(), SpecError> {
    let sound = board::known(spec.board_name()).and_then(|board| board.sound);
    if let Some(driver) = sound
        && !spec.is_set(&["audio", "audiodev"])
    {
        args.pair("-audiodev", "none,id=audio");
        args.pair("-global", global(driver, "audiodev", "audio".as_ref())?);
    }
    Ok(())
}

fn loader(image: &LoadedImage) -> Result<OsString, SpecError> {
    let list =
        OptionList::new("driver", "loader").with("file", option::path("image", image.path())?);
    Ok(match image {
        // Without `force-raw` the loader would try the file as ELF, U-Boot image and Intel HEX
        // first.
        LoadedImage::Raw { address, .. } => {
            list.with("addr", format!("{address:#x}")).on("force-raw")
        }
        LoadedImage::IntelHex { .. } => list,
    }
    .finish())
}

fn semihosting_config(semihosting: &Semihosting) -> Result<OsString, SpecError> {
    let mut list = OptionList::empty().on("enable").with("target", "native");
    if let Some(chardev) = &semihosting.chardev {
        list.push("chardev", option::id("semihosting console", chardev)?);
    }
    for word in &semihosting.arguments {
        list.push("arg", option::value("semihosting argument", word)?);
    }
    Ok(list.finish())
}

fn storage_and_devices(spec: &MachineSpec, args: &mut Args) -> Result<(), SpecError> {
    for drive in &spec.drives {
        args.pair("-drive", drive_list(drive)?);
    }
    for blockdev in &spec.blockdevs {
        args.pair("-blockdev", blockdev_list(blockdev)?);
    }
    for Device { driver, properties } in &spec.devices {
        let mut list = OptionList::new("driver", option::word("device", driver)?);
        push_properties(&mut list, "device property", properties)?;
        args.pair("-device", list.finish());
    }
    for Nic { kind, properties } in &spec.nics {
        let mut list = OptionList::new("type", option::word("nic", kind)?);
        push_properties(&mut list, "nic property", properties)?;
        args.pair("-nic", list.finish());
    }
    Ok(())
}

fn drive_list(drive: &Drive) -> Result<OsString, SpecError> {
    let mut list = OptionList::empty()
        .with("if", option::word("drive interface", &drive.interface)?)
        .with("format", option::word("drive format", &drive.format)?)
        .with("file", option::path("drive", &drive.path)?);
    push_properties(&mut list, "drive property", &drive.properties)?;
    Ok(list.finish())
}

/// As `key=value` and not as JSON, the other form of `-blockdev`: JSON can't carry a path that is
/// not UTF-8. The driver of the file is named, so that QEMU never takes the path for `json:` or a
/// protocol.
fn blockdev_list(blockdev: &Blockdev) -> Result<OsString, SpecError> {
    let mut list = OptionList::empty()
        .with("driver", option::word("blockdev format", &blockdev.format)?)
        .with("node-name", option::id("blockdev node", &blockdev.node)?)
        .with("file.driver", "file")
        .with("file.filename", option::path("blockdev", &blockdev.path)?);
    push_properties(&mut list, "blockdev property", &blockdev.properties)?;
    Ok(list.finish())
}

fn push_properties(
    list: &mut OptionList,
    what: &'static str,
    properties: &[(String, OsString)],
) -> Result<(), SpecError> {
    for (key, value) in properties {
        push_property(list, what, key, value)?;
    }
    Ok(())
}

fn push_property(
    list: &mut OptionList,
    what: &'static str,
    key: &str,
    value: &OsStr,
) -> Result<(), SpecError> {
    option::key(what, key)?;
    if let Some(first) = list.value_of(key)
        && !is_list(what, key)
    {
        return Err(SpecError::set_twice(what, key, first, value));
    }
    list.push(key, option::value(what, value)?);
    Ok(())
}

/// What a network card may have several of (`StringList` in QEMU's `qapi/net.json`).
fn is_list(what: &str, key: &str) -> bool {
    what == "nic property" && matches!(key, "hostfwd" | "guestfwd" | "dnssearch")
}

fn behaviour(spec: &MachineSpec, args: &mut Args) -> Result<(), SpecError> {
    if spec.start_stopped {
        args.flag("-S");
    }
    if spec.no_reboot {
        args.flag("-no-reboot");
    }
    if let Some(icount) = spec.icount {
        args.pair("-icount", icount_list(icount)?);
    }
    if let Some(list) = spec.action.and_then(action_list) {
        args.pair("-action", list);
    }
    if let Some(log) = &spec.log {
        log_options(log, args)?;
    }
    for (driver, property, value) in &spec.globals {
        args.pair("-global", global(driver, property, value)?);
    }
    match spec.sandbox.unwrap_or_else(|| default_sandbox(spec)) {
        Sandbox::Off => {}
        Sandbox::NoSpawn => args.pair("-sandbox", "on,spawn=deny"),
        Sandbox::Strict => args.pair(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ),
    }
    Ok(())
}

/// The sandbox where the caller sets none, be it by an extra argument.
fn default_sandbox(spec: &MachineSpec) -> Sandbox {
    let is = |word: &OsString, option: &str| {
        word.to_str()
            .is_some_and(|word| word.trim_start_matches('-') == option)
    };
    if !cfg!(target_os = "linux") || spec.extra_args.iter().any(|word| is(word, "sandbox")) {
        return Sandbox::Off;
    }
    let monitors = spec.monitors.iter().map(Monitor::endpoint);
    let listens = (spec.qmp.iter().chain(&spec.gdb).chain(monitors))
        .any(|endpoint| Address::tcp(endpoint).is_some());
    let listens_by_extra = spec.extra_args.windows(2).any(|pair| {
        let tcp = ["tcp:", "telnet:", "websocket:"];
        ["gdb", "qmp", "qmp-pretty", "monitor"]
            .iter()
            .any(|option| is(&pair[0], option))
            && tcp
                .iter()
                .any(|kind| pair[1].to_string_lossy().contains(kind))
    });
    let console_only = spec
        .semihosting
        .as_ref()
        .is_some_and(|semihosting| semihosting.level == SemihostingLevel::Console);
    if listens || listens_by_extra || console_only {
        Sandbox::NoSpawn
    } else {
        Sandbox::Off
    }
}

fn icount_list(icount: Icount) -> Result<OsString, SpecError> {
    let list = match icount.shift {
        Some(shift @ 0..=10) => OptionList::empty().with("shift", shift.to_string()),
        Some(shift) => {
            return Err(SpecError::Invalid {
                what: "icount",
                message: format!("an icount shift of {shift} is outside 0 to 10"),
            });
        }
        None => OptionList::empty().with("shift", "auto"),
    };
    Ok(if icount.sleep {
        list
    } else {
        list.off("sleep")
    }
    .finish())
}

fn action_list(action: Action) -> Option<OsString> {
    let wanted = [
        ("reboot", action.reboot),
        ("shutdown", action.shutdown),
        ("panic", action.panic),
        ("watchdog", action.watchdog),
    ];
    let mut list = OptionList::empty();
    for (event, what) in wanted {
        if let Some(what) = what {
            list.push(event, what);
        }
    }
    Some(list.finish()).filter(|list| !list.is_empty())
}

fn log_options(log: &Log, args: &mut Args) -> Result<(), SpecError> {
    if log.items.is_empty() {
        return Err(SpecError::Invalid {
            what: "log",
            message: "a log needs at least one item, such as guest_errors".to_owned(),
        });
    }
    for item in &log.items {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_:*?".contains(&b);
        if item.is_empty() || !item.bytes().all(plain) {
            return Err(SpecError::bad_name("log item", item));
        }
    }
    args.pair("-d", log.items.join(","));
    if let Some(file) = &log.file {
        let path = option::path("log file", file)?;
        if path.as_encoded_bytes().contains(&b'%') {
            let file = file.display();
            let problem =
                format!("{file} has a % in its absolute path, which QEMU reads as a template");
            return Err(SpecError::invalid("log file", problem));
        }
        args.pair("-D", path);
    }
    Ok(())
}

/// As a list: `driver.property=value` is another property where the driver's name has a dot
/// (`cfi.pflash01`).
fn global(driver: &str, property: &str, value: &OsStr) -> Result<OsString, SpecError> {
    let list = OptionList::empty()
        .with("driver", option::key("global driver", driver)?)
        .with("property", option::key("global property", property)?)
        .with("value", option::value("global value", value)?);
    Ok(list.finish())
}
