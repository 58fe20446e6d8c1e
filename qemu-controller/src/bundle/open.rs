//! Opening a bundle, whoever wrote it, and starting its machine.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use qemu_launch::Sandbox;
use rustix::fs::OFlags;
use serde_json::Value;
use tempfile::TempDir;

use super::error::BundleError;
use super::manifest::{
    FORMAT, FORMAT_VERSION, Manifest, MomentKind, SYMBOLS, loaded_name, symbols_name,
};
use super::record::hex;
use super::write::MANIFEST;
use super::{MOST_LOADED, MOST_STATE};
use crate::config::QemuConfig;
use crate::debug::{Cause, DebugError, Debugger, fault_called};
use crate::fork::MachineState;
use crate::session::Session;
use crate::source::CoreReport;

/// The longest manifest.
const MOST_MANIFEST: u64 = 4 * 1024 * 1024;

/// A failure that was written down, read and checked. Nothing runs yet.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    state: Option<MachineState>,
    /// Copies that nobody else can change, of the files that the machine loads.
    copies: TempDir,
    firmware: Option<PathBuf>,
    qemu: Option<PathBuf>,
}

impl Bundle {
    /// Reads a bundle, whoever wrote it. Blocks while it reads.
    ///
    /// # Errors
    /// [`BundleError`]: what is wrong with it, in words.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, BundleError> {
        let folder = folder.as_ref();
        let manifest = manifest(folder)?;
        if let Some(why) = manifest.machine.refusal() {
            return Err(BundleError::invalid(folder, why));
        }
        let has_state = manifest
            .moment
            .as_ref()
            .is_some_and(|moment| moment.has_state);
        let state = match has_state {
            true => Some(state(folder)?),
            false => None,
        };
        let copies = tempfile::Builder::new()
            .prefix("qemu-bundle-")
            .tempdir()
            .map_err(BundleError::file(&std::env::temp_dir()))?;
        for (index, loaded) in manifest.machine.loaded.iter().enumerate() {
            if loaded.is_here {
                copy(folder, &loaded_name(index), copies.path())?;
            }
        }
        for name in (0..SYMBOLS).map(symbols_name) {
            if folder.join(&name).symlink_metadata().is_ok() {
                copy(folder, &name, copies.path())?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
            state,
            copies,
            firmware: None,
            qemu: None,
        })
    }

    /// The firmware's file, where it is not in the bundle.
    #[must_use]
    pub fn firmware(mut self, path: impl Into<PathBuf>) -> Self {
        self.firmware = Some(path.into());
        self
    }

    /// Another QEMU than the first one of its name.
    #[must_use]
    pub fn qemu(mut self, program: impl Into<PathBuf>) -> Self {
        self.qemu = Some(program.into());
        self
    }

    /// What failed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// How, in one word.
    #[must_use]
    pub fn verdict(&self) -> &str {
        &self.manifest.verdict
    }

    /// How, in words. Whoever wrote the bundle chose them.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.manifest.message
    }

    /// What the guest was about to do at the moment of the state.
    #[must_use]
    pub fn moment(&self) -> Option<MomentKind> {
        self.manifest.moment.as_ref().map(|moment| moment.kind)
    }

    /// What each core was doing, in words, as they were written down.
    pub fn reports(&self) -> impl Iterator<Item = &str> {
        let moment = self.manifest.moment.iter();
        moment.flat_map(|moment| &moment.words).map(String::as_str)
    }

    /// The same as objects.
    #[must_use]
    pub fn reports_json(&self) -> &[Value] {
        let moment = self.manifest.moment.as_ref();
        moment.map_or(&[], |moment| &moment.cores)
    }

    /// What is not in it that could have been, and why.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.manifest.missing
    }

    /// What else the machine had: arguments for QEMU, in the words of whoever wrote it. None of
    /// them is passed on.
    #[must_use]
    pub fn beyond(&self) -> &[String] {
        &self.manifest.machine.beyond
    }

    /// The firmware could make semihosting calls, which the machine here serves only if it is told
    /// to.
    #[must_use]
    pub fn had_semihosting(&self) -> bool {
        self.manifest.machine.semihosting
    }

    /// QEMU's version.
    #[must_use]
    pub fn qemu_version(&self) -> &str {
        &self.manifest.qemu.version
    }

    /// The guest's memory in bytes; 0 where there is no state.
    pub(super) fn memory(&self) -> u64 {
        self.state
            .as_ref()
            .map_or(0, |state| state.taken_with().memory)
    }

    /// The machine, made of names and numbers that were checked. What it may do beyond, the caller
    /// adds.
    ///
    /// # Errors
    /// [`BundleError::NoFirmware`].
    pub fn config(&self) -> Result<QemuConfig, BundleError> {
        let machine = &self.manifest.machine;
        let mut files = Vec::new();
        for (index, loaded) in machine.loaded.iter().enumerate() {
            files.push(match (&self.firmware, loaded.is_here) {
                (Some(named), _) if index == 0 => named.clone(),
                (_, true) => self.copies.path().join(loaded_name(index)),
                _ => {
                    return Err(BundleError::NoFirmware {
                        name: loaded.name.clone(),
                        bytes: loaded.bytes,
                        hash: machine.hash.clone(),
                    });
                }
            });
        }
        let spec = machine.spec(&files);
        let spec = match &self.qemu {
            Some(program) => spec.qemu(program),
            None => spec,
        };
        let spec = match cfg!(target_os = "linux") {
            true => spec.sandbox(Sandbox::NoSpawn),
            false => spec,
        };
        let config = QemuConfig::default().with_spec(|_| spec);
        let symbols = (0..SYMBOLS).map(|index| self.copies.path().join(symbols_name(index)));
        let symbols = symbols.filter(|path| path.is_file());
        Ok(symbols.fold(config, QemuConfig::symbols))
    }

    /// The state at the moment.
    ///
    /// # Errors
    /// [`BundleError::NoState`].
    pub fn state(&self) -> Result<&MachineState, BundleError> {
        self.state.as_ref().ok_or_else(|| {
            let why = self.manifest.no_state.as_deref();
            let why = why.unwrap_or("why is not said").to_owned();
            BundleError::NoState { why }
        })
    }

    /// Starts the machine, which stands at the moment, paused.
    ///
    /// # Errors
    /// [`BundleError`]; [`StartError::OtherMachine`](crate::StartError::OtherMachine) says in what
    /// the QEMU or the firmware of here differs.
    pub async fn start(&self) -> Result<Session, BundleError> {
        self.start_with(|config| config).await
    }

    /// The same with a change to the configuration.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(
        &self,
        change: impl FnOnce(QemuConfig) -> QemuConfig,
    ) -> Result<Session, BundleError> {
        let state = self.state()?;
        let config = change(self.config()?).start_paused(true);
        Ok(Session::start_from(config, state).await?)
    }

    /// The general registers that are not what they were; of a machine at its moment there should
    /// be none.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn differing_registers(
        &self,
        debugger: &mut Debugger,
    ) -> Result<Vec<String>, DebugError> {
        let Some(moment) = &self.manifest.moment else {
            return Ok(Vec::new());
        };
        select(debugger, moment.core).await?;
        let now = debugger.read_registers().await?;
        let differ = moment.registers.iter().filter(|(name, value)| {
            let bytes = now.bytes(name).map(hex);
            bytes.as_ref() != Some(value)
        });
        Ok(differ.map(|(name, _)| name.clone()).collect())
    }

    /// Where the core is that the moment is of, how it came there, and why: of a machine at its
    /// moment as [`reports`](Self::reports) has it.
    ///
    /// # Errors
    /// [`DebugError`].
    pub async fn look(&self, debugger: &mut Debugger) -> Result<CoreReport, DebugError> {
        let mut cause = Cause::default();
        if let Some(moment) = &self.manifest.moment {
            select(debugger, moment.core).await?;
            if moment.kind == MomentKind::Fault {
                cause.fault = moment.exception.as_deref().and_then(fault_called);
            }
            cause.panic.clone_from(&moment.panicked_in);
        }
        debugger.report_of_stop(cause).await
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes a core the current one, if there is such a one.
async fn select(debugger: &mut Debugger, core: usize) -> Result<(), DebugError> {
    match debugger.threads().await?.get(core) {
        Some(thread) => debugger.select_thread(*thread).await,
        None => Ok(()),
    }
}

/// Opens a file of the bundle under this name, without following a link, and without waiting.
fn open(folder: &Path, name: &str, most: u64) -> Result<File, BundleError> {
    let path = folder.join(name);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&path);
    let invalid = |why: String| BundleError::invalid(folder, format!("{name} {why}"));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(invalid("is a link".to_owned()));
        }
        Err(error) => return Err(BundleError::file(&path)(error)),
    };
    let metadata = file.metadata().map_err(BundleError::file(&path))?;
    if !metadata.is_file() {
        return Err(invalid("is no regular file".to_owned()));
    }
    if metadata.len() > most {
        return Err(invalid(format!(
            "has {} bytes, and {most} is the most that is read",
            metadata.len()
        )));
    }
    Ok(file)
}

fn manifest(folder: &Path) -> Result<Manifest, BundleError> {
    let file = open(folder, MANIFEST, MOST_MANIFEST).map_err(|error| match error {
        BundleError::File { error, .. }
            if error.kind() == io::ErrorKind::NotFound && folder.is_dir() =>
        {
            BundleError::invalid(folder, format!("there is no {MANIFEST} in it: {error}"))
        }
        BundleError::File { .. } if folder.is_file() => {
            BundleError::invalid(folder, "it is a file, and a bundle is a folder")
        }
        other => other,
    })?;
    let mut text = Vec::new();
    let read = file.take(MOST_MANIFEST).read_to_end(&mut text);
    read.map_err(BundleError::file(&folder.join(MANIFEST)))?;
    let invalid =
        |error: serde_json::Error| BundleError::invalid(folder, format!("{MANIFEST}: {error}"));
    // First what says how the rest is to be read.
    let value: Value = serde_json::from_slice(&text).map_err(invalid)?;
    if value["format"] != FORMAT {
        return Err(BundleError::invalid(
            folder,
            format!("{MANIFEST} is of something else"),
        ));
    }
    match value["version"].as_u64() {
        Some(version) if version > FORMAT_VERSION => Err(BundleError::Newer { version }),
        _ => serde_json::from_value(value).map_err(invalid),
    }
}

fn state(folder: &Path) -> Result<MachineState, BundleError> {
    let file = open(folder, "state", MOST_STATE + 64 * 1024)?;
    MachineState::read(file)
        .map_err(|error| BundleError::invalid(folder, format!("its state cannot be used: {error}")))
}

fn copy(folder: &Path, name: &str, to: &Path) -> Result<(), BundleError> {
    let file = open(folder, name, MOST_LOADED)?;
    let path = to.join(name);
    let copying = || -> io::Result<()> {
        let mut bytes = Vec::new();
        file.take(MOST_LOADED).read_to_end(&mut bytes)?;
        File::create_new(&path)?.write_all(&bytes)
    };
    copying().map_err(BundleError::file(&folder.join(name)))
}
