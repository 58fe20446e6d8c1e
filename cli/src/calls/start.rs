//! From a `start` to QEMU's configuration, and what a client may ask for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu_controller::bundle::{Bundle, BundleError};
use qemu_controller::qemu_launch::Sandbox;
use qemu_controller::qemu_launch::firmware::{Advice, fitting_machines};
use qemu_controller::{QemuConfig, Session, StartError};

use super::call::Start;
use super::error::{CallError, CallErrorKind};
use super::machine::Machine;
use super::printed::Printed;
use crate::failure::chain_with_advice;
use crate::machine::paused;
use crate::not_started::not_started;
use crate::open::{account, bundle_refusal, look};
use crate::settings::SemihostingMode;

/// How long QEMU may take to answer one command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// What whoever started this program lets its clients do.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Where relative paths begin; with `confined` the folder that the firmware has to be in.
    pub(crate) project: PathBuf,
    pub(crate) confined: bool,
    /// What the firmware reaches by semihosting.
    pub(crate) semihosting: SemihostingMode,
    pub(crate) defaults: Defaults,
}

/// What a machine has that no call names: as the configuration file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) machine: Option<String>,
    pub(crate) cpu: Option<String>,
    pub(crate) memory: Option<String>,
    pub(crate) deterministic: Option<u8>,
    /// The program, of any name and at any place.
    pub(crate) qemu: Option<PathBuf>,
    pub(crate) qemu_args: Vec<String>,
}

/// On what a firmware is run.
pub(crate) struct Board {
    program: PathBuf,
    machine: Option<String>,
    cpu: Option<String>,
}

impl Board {
    /// Why a machine on it did not start.
    pub(crate) async fn refusal(self, error: StartError) -> CallError {
        // It may ask QEMU for its boards, and waits for that.
        let explaining = move || {
            let failure = not_started(error, &self.program, self.machine.as_deref());
            failure.with_advice(advice_for_calls)
        };
        let words = tokio::task::spawn_blocking(explaining).await;
        CallError::new(
            CallErrorKind::Failed,
            words.unwrap_or_else(|panic| panic.to_string()),
        )
    }
}

impl Policy {
    /// The path of a file or folder, if it is one that may be read.
    pub(crate) fn file(&self, wanted: &Path) -> Result<PathBuf, CallError> {
        let unreadable = |path: &Path, error: std::io::Error| {
            let message = format!("{} cannot be read: {error}", path.display());
            CallError::invalid(message)
        };
        let project = self.project.canonicalize();
        let project = project.map_err(|error| unreadable(&self.project, error))?;
        let joined = project.join(wanted);
        // Nothing is told of files beyond the project, not even whether they are there.
        let beyond = || {
            let message = format!(
                "{} is not a file in the project {}; a path beyond it is taken only where the \
                 server was started with --any-path",
                wanted.display(),
                project.display()
            );
            CallError::invalid(message)
        };
        match joined.canonicalize() {
            Ok(path) if !self.confined || path.starts_with(&project) => Ok(path),
            Err(error) if !self.confined => Err(unreadable(&joined, error)),
            _ => Err(beyond()),
        }
    }

    /// QEMU and the board that are wanted, or that the configuration file says, or that the firmware
    /// fits.
    fn board(&self, wanted: &Start, firmware: &Path) -> Result<Board, CallError> {
        let defaults = &self.defaults;
        let fitting = fitting_machines(firmware);
        let fitting = fitting
            .map_err(|error| CallError::invalid(chain_with_advice(&error, advice_for_calls)))?;
        let fitting = fitting.first();
        let machine = wanted.machine.clone().or(defaults.machine.clone());
        let program = match (&wanted.qemu, &defaults.qemu, fitting) {
            (Some(qemu), ..) if !qemu.starts_with("qemu-system-") => {
                let message = format!("{qemu:?} is no QEMU, such as qemu-system-arm");
                return Err(CallError::invalid(message));
            }
            (Some(qemu), ..) => PathBuf::from(qemu),
            (None, Some(qemu), _) => qemu.clone(),
            // Its QEMU, where only the board was named.
            (None, None, Some(fitting)) => fitting.program.clone().into(),
            (None, None, None) => {
                let missing = match machine {
                    Some(_) => "qemu",
                    None => "qemu and machine",
                };
                let message = format!("no known board fits this firmware; name {missing}");
                return Err(CallError::invalid(message));
            }
        };
        let named = machine.is_some() || wanted.qemu.is_some() || defaults.qemu.is_some();
        let fitting = fitting.filter(|_| !named);
        Ok(Board {
            program,
            machine: machine.or(fitting.map(|fitting| fitting.machine.to_owned())),
            cpu: fitting.and_then(|fitting| fitting.cpu.map(str::to_owned)),
        })
    }

    /// The machine with this firmware, and the board that it is on.
    pub(crate) fn machine(&self, wanted: &Start) -> Result<(QemuConfig, Board), CallError> {
        let path = self.file(&wanted.firmware)?;
        let plain = [&wanted.machine, &wanted.cpu, &wanted.memory, &wanted.qemu];
        for name in plain.into_iter().flatten() {
            plain_name(name)?;
        }
        let board = self.board(wanted, &path)?;
        let defaults = &self.defaults;
        let mut config = controlled(QemuConfig::default().qemu(&board.program).firmware(path))
            .extra_args(&defaults.qemu_args);
        if let Some(machine) = &board.machine {
            config = config.machine(machine);
        }
        let cpu = wanted.cpu.as_ref().or(defaults.cpu.as_ref());
        if let Some(cpu) = cpu.or(board.cpu.as_ref()) {
            config = config.cpu(cpu);
        }
        if let Some(memory) = wanted.memory.as_ref().or(defaults.memory.as_ref()) {
            config = config.memory(memory);
        }
        if let Some(shift) = wanted.deterministic.or(defaults.deterministic) {
            config = config.deterministic(shift);
        }
        Ok((self.sandboxed(config), board))
    }

    fn sandboxed(&self, config: QemuConfig) -> QemuConfig {
        match cfg!(target_os = "linux") && self.semihosting != SemihostingMode::Full {
            true => config.with_spec(|spec| spec.sandbox(Sandbox::NoSpawn)),
            false => config,
        }
    }

    /// Starts a machine, paused before its first instruction.
    pub(crate) async fn start(&self, wanted: &Start) -> Result<Machine, CallError> {
        let (printed, transcript) = (Printed::default(), Printed::default());
        let has_semihosting = self.semihosting != SemihostingMode::Off;
        let (config, board) = self.machine(wanted)?;
        let config = self.semihosting.of(config);
        let config = config.qmp_transcript_to(transcript.clone());
        let session = Session::start(record(config, &printed, has_semihosting)).await;
        match session {
            Ok(session) => Ok(Machine::new(session, printed, transcript, has_semihosting)),
            Err(error) => Err(board.refusal(error).await),
        }
    }

    /// Starts the machine of a bundle, paused at its moment; how it failed, and where it is, in
    /// words that are escaped.
    pub(crate) async fn open(&self, folder: &Path) -> Result<(Machine, String, String), CallError> {
        let folder = self.file(folder)?;
        let invalid = |error: BundleError| {
            let words = bundle_refusal(&error, "`qemu-controller open --firmware`");
            CallError::invalid(words)
        };
        let bundle = tokio::task::spawn_blocking(move || Bundle::open(folder)).await;
        let bundle = bundle.map_err(|error| CallError::failed(&error))?;
        let bundle = bundle.map_err(invalid)?;
        let (printed, transcript) = (Printed::default(), Printed::default());
        let has_semihosting = self.semihosting != SemihostingMode::Off;
        let started = bundle.start_with(|config| {
            let config = self.semihosting.of(controlled(config));
            let config = config.qmp_transcript_to(transcript.clone());
            record(config, &printed, has_semihosting)
        });
        let session = started.await.map_err(invalid)?;
        let look = look(&bundle, &session, has_semihosting).await?;
        let text = format!("{}\n{look}", account(&bundle, false));
        let machine = Machine::new(session, printed, transcript, has_semihosting);
        Ok((machine, bundle.message().to_owned(), text))
    }
}

/// Paused, and bounded in time.
fn controlled(config: QemuConfig) -> QemuConfig {
    paused(config).command_deadline(COMMAND_DEADLINE)
}

/// Writes what the firmware prints down.
pub(crate) fn record(config: QemuConfig, printed: &Printed, has_semihosting: bool) -> QemuConfig {
    let config = config.serial_log_to(0, printed.clone());
    match has_semihosting {
        true => config.semihosting_log_to(printed.clone()),
        false => config,
    }
}

/// What can be done about a firmware that is refused, where only `run` can do it.
fn advice_for_calls(advice: Advice) -> String {
    let command = match advice {
        Advice::Unchecked => "run --unchecked",
        Advice::IntelHex => "run",
        Advice::RawImage => "run --raw",
        other => return other.to_string(),
    };
    format!("`qemu-controller {command}` does that, the calls do not")
}

/// A name and nothing else: the options that may follow it after a comma name files.
pub(crate) fn plain_name(name: &str) -> Result<(), CallError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_option = name.starts_with('-');
    if name.is_empty() || is_option || !name.bytes().all(is_plain) {
        let message =
            format!("{name:?}: only a plain name is taken, of letters, digits, . _ and -");
        return Err(CallError::invalid(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        for name in ["lm3s6965evb", "cortex-m3", "64K", "qemu-system-arm", "rv32"] {
            assert!(plain_name(name).is_ok(), "{name}");
        }
        for name in [
            "virt,dumpdtb=x",
            "",
            "-machine",
            "../qemu",
            "a b",
            "a=b",
            "a\n",
        ] {
            assert!(plain_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_confined_path_stays_in_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        std::fs::create_dir(&project).unwrap();
        for path in [folder.path().join("secret"), project.join("a.elf")] {
            std::fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("../secret", project.join("link")).unwrap();
        let policy = |confined| Policy {
            project: project.clone(),
            confined,
            semihosting: SemihostingMode::Off,
            defaults: Defaults::default(),
        };
        let refused = |path: &str| policy(true).file(Path::new(path)).unwrap_err().message;
        assert!(policy(true).file(Path::new("a.elf")).is_ok());
        for path in ["../secret", "link", "/etc/passwd", "/nowhere", "none.elf"] {
            assert!(
                refused(path).contains("is not a file in the project"),
                "{path}"
            );
        }
        assert!(policy(false).file(Path::new("../secret")).is_ok());
        assert!(policy(false).file(Path::new("../none")).is_err());
    }
}
