//! Writing a bundle: all of it or nothing, under a name that nothing has.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::BundleError;
use super::manifest::{
    FORMAT, FORMAT_VERSION, MachineNote, Manifest, QemuNote, SYMBOLS, loaded_name, symbols_name,
};
use super::open::Bundle;
use super::record::Recorder;
use super::{MOST_CORE, MOST_LOADED, MOST_STATE, MOST_TEXT, core_file};
use crate::fork::MachineState;
use crate::session::Session;
use crate::snapshot::LoadedFiles;

/// So many names are tried.
const NAMES: u32 = 10_000;

/// The longest part of a name.
const NAME: usize = 80;

/// What is told of a failure beside the machine.
#[derive(Clone, Debug)]
#[must_use]
pub struct Account {
    name: String,
    verdict: String,
    message: String,
    beyond: Option<Vec<String>>,
    texts: Vec<(String, Vec<u8>)>,
}

impl Account {
    /// Of what failed, a firmware or a test by its name, and how, in one word. The folder is called
    /// by both.
    pub fn new(name: impl Into<String>, verdict: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            verdict: verdict.into(),
            message: String::new(),
            beyond: None,
            texts: Vec::new(),
        }
    }

    /// What is said of it in words.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The arguments for QEMU that a machine of the bundle does not have, and that are to be named.
    /// Default: all that the configuration has.
    pub fn extra_args(mut self, words: impl IntoIterator<Item = String>) -> Self {
        self.beyond = Some(words.into_iter().collect());
        self
    }

    /// A text, under this name: `output.txt`. Of more than 1 MiB the end is kept.
    pub fn text(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.texts.push((plain(name), bytes.into()));
        self
    }
}

/// A bundle that was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Written {
    /// Its folder.
    pub folder: PathBuf,
    /// Its machine can be started: it has a state that was loaded once.
    pub can_start: bool,
    /// What it lacks, and why.
    pub missing: Vec<String>,
}

impl Recorder {
    /// Writes a folder of this failure into the folder `into`, which is made if it is not there.
    /// Whatever becomes of this future, a bundle that has its name is whole.
    ///
    /// The machine is started once from what was written, as [`Bundle::start`] does: that it can be
    /// is known here, and not on the day on which it is wanted. The session may have ended.
    ///
    /// Blocks while files are written, 256 MiB of state at the most: from a thread of their own half a
    /// folder would be left where the program ends meanwhile.
    ///
    /// # Errors
    /// [`BundleError::File`]. What cannot be had is no error: [`Written::missing`] names it.
    pub async fn write(
        &self,
        session: &Session,
        account: Account,
        into: impl AsRef<Path>,
    ) -> Result<Written, BundleError> {
        let into = into.as_ref();
        fs::create_dir_all(into).map_err(BundleError::file(into))?;
        let folder = tempfile::Builder::new()
            .prefix(".writing-")
            .tempdir_in(into)
            .map_err(BundleError::file(into))?;
        let mut writing = Writing::new(session, &account, folder);
        writing.texts(session, account.texts)?;
        let program = session.inner.config.as_ref().map(|config| config.program());
        if self.save(session, &mut writing)? {
            writing.manifest()?;
            writing.check(program).await?;
        }
        writing.manifest()?;
        writing.finish(into)
    }

    /// The state that was kept, or why it cannot be written.
    fn state(&self) -> Result<&MachineState, String> {
        let moment = self
            .moment
            .as_ref()
            .ok_or("QEMU was gone, or answered no more, before the guest could be stopped")?;
        match &moment.state {
            Err(why) => Err(why.clone()),
            Ok(state) if state.bytes() > MOST_STATE => {
                Err(format!("it has {} MiB", state.bytes() >> 20))
            }
            Ok(state) => Ok(state),
        }
    }

    /// The state, and the files that its machine loads.
    fn save(&self, session: &Session, writing: &mut Writing) -> Result<bool, BundleError> {
        writing.manifest.moment = self.moment.as_ref().map(|moment| moment.note.clone());
        let state = match self.state() {
            Ok(state) => state,
            Err(why) => {
                if let Some(moment) = &mut writing.manifest.moment {
                    moment.has_state = false;
                }
                writing.misses(format!("the machine's state: {why}"));
                writing.manifest.no_state = Some(why);
                writing.loaded(session, None)?;
                return Ok(false);
            }
        };
        let path = writing.path("state");
        let persisted = state.persist(&path);
        persisted.map_err(|error| BundleError::file(&path)(io::Error::other(error)))?;
        writing.loaded(session, Some(&state.taken_with().firmware))
    }
}

/// A bundle that is being written.
struct Writing {
    folder: TempDir,
    manifest: Manifest,
    can_start: bool,
}

impl Writing {
    fn new(session: &Session, account: &Account, folder: TempDir) -> Self {
        let config = session.inner.config.as_ref();
        let plain = config.map(|config| config.plain());
        let mut machine = MachineNote::of(plain.unwrap_or_default());
        machine.semihosting = config.is_some_and(|config| config.has_semihosting());
        if let Some(beyond) = &account.beyond {
            machine.beyond.clone_from(beyond);
        }
        let argv = session.process().map(|process| {
            let words = process.argv().args().to_vec();
            let program = process.argv().program().as_os_str().to_owned();
            let words = [program].into_iter().chain(words);
            words
                .map(|word: OsString| word.to_string_lossy().into_owned())
                .collect()
        });
        Self {
            folder,
            can_start: false,
            manifest: Manifest {
                format: FORMAT.to_owned(),
                version: FORMAT_VERSION,
                written_by: concat!("qemu-controller ", env!("CARGO_PKG_VERSION")).to_owned(),
                name: account.name.clone(),
                verdict: account.verdict.clone(),
                message: account.message.clone(),
                qemu: QemuNote {
                    version: session.qemu_version().to_string(),
                    argv: argv.unwrap_or_default(),
                },
                machine,
                moment: None,
                missing: Vec::new(),
                no_state: None,
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn misses(&mut self, what: String) {
        self.manifest.missing.push(what);
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.path(name);
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let written = options
            .open(&path)
            .and_then(|mut file| file.write_all(bytes));
        written.map_err(BundleError::file(&path))
    }

    fn manifest(&self) -> Result<(), BundleError> {
        let text = serde_json::to_string_pretty(&self.manifest);
        let text = text.map_err(|error| BundleError::file(&self.path(MANIFEST))(error.into()))?;
        self.file(MANIFEST, text.as_bytes())
    }

    fn texts(&self, session: &Session, texts: Vec<(String, Vec<u8>)>) -> Result<(), BundleError> {
        for (name, bytes) in texts {
            self.file(&name, &bytes[bytes.len().saturating_sub(MOST_TEXT)..])?;
        }
        let stderr = session.process().map(|process| process.stderr_tail());
        match stderr.filter(|tail| !tail.to_string_lossy().is_empty()) {
            Some(tail) => self.file("stderr.txt", tail.to_string_lossy().as_bytes()),
            None => Ok(()),
        }
    }

    /// Copies the files that the machine loads, as far as they are what they were: by their hash,
    /// where it is known. Whether all are there.
    fn loaded(&mut self, session: &Session, hash: Option<&str>) -> Result<bool, BundleError> {
        let Some(config) = session.inner.config.as_ref() else {
            return Ok(true);
        };
        let files: Vec<_> = config
            .plain()
            .loaded
            .into_iter()
            .map(|(_, path)| path)
            .collect();
        let now = LoadedFiles::of(files.iter().map(PathBuf::as_path)).hash();
        let now = now.unwrap_or_default();
        let is_as_it_was = hash.is_none_or(|hash| hash == now);
        self.manifest.machine.hash = hash.unwrap_or(&now).to_owned();
        let mut all = true;
        for (index, path) in files.iter().enumerate() {
            let name = &self.manifest.machine.loaded[index].name;
            let length = path.metadata().map_err(BundleError::file(path));
            let why = match length {
                Err(error) => Some(error.to_string()),
                Ok(_) if !is_as_it_was => Some("it was changed since the start".to_owned()),
                Ok(file) if file.len() > MOST_LOADED => {
                    Some(format!("it has {} MiB", file.len() >> 20))
                }
                Ok(_) => None,
            };
            match why {
                Some(why) => {
                    let what = format!("{name}: {why}");
                    self.misses(what);
                    all = false;
                }
                None => {
                    let bytes = fs::read(path).map_err(BundleError::file(path))?;
                    self.file(&loaded_name(index), &bytes)?;
                    self.manifest.machine.loaded[index].is_here = true;
                }
            }
        }
        let further = config.further_symbols().iter().take(SYMBOLS);
        for (index, path) in further.enumerate() {
            match fs::metadata(path) {
                Ok(file) if file.len() <= MOST_LOADED => {
                    let bytes = fs::read(path).map_err(BundleError::file(path))?;
                    self.file(&symbols_name(index), &bytes)?;
                }
                Ok(_) => self.misses(format!(
                    "the symbols of {}: they are too long",
                    path.display()
                )),
                Err(error) => self.misses(format!("the symbols of {}: {error}", path.display())),
            }
        }
        Ok(all)
    }

    /// Opens it, and has QEMU write the core of its machine.
    async fn check(&mut self, program: Option<PathBuf>) -> Result<(), BundleError> {
        let mut bundle = Bundle::open(self.folder.path())?;
        if let Some(program) = program {
            bundle = bundle.qemu(program);
        }
        let session = match bundle.start().await {
            Ok(session) => session,
            Err(error) => {
                self.misses(format!("a machine that can be opened: {error}"));
                return Ok(());
            }
        };
        self.can_start = true;
        let differing = match session.debugger().await {
            Ok(mut debugger) => bundle.differing_registers(&mut debugger).await,
            Err(error) => Err(error),
        };
        let differing = differing.unwrap_or_default();
        if !differing.is_empty() {
            let names = differing.join(", ");
            self.misses(format!(
                "the registers {names}, which QEMU does not bring back"
            ));
        }
        let memory = bundle.memory();
        let written = match memory > MOST_CORE {
            true => Err(format!("the machine has {} MiB of memory", memory >> 20)),
            false => core_file::write(&session, &self.path("core")).await,
        };
        if let Err(why) = written {
            self.misses(format!("a core file for gdb: {why}"));
        }
        // Dropped, it ends too.
        let _ = session.stop().await;
        Ok(())
    }

    /// Gives the folder its name.
    fn finish(self, into: &Path) -> Result<Written, BundleError> {
        let Manifest {
            name,
            verdict,
            missing,
            ..
        } = self.manifest;
        let can_start = self.can_start;
        let name = format!("{}-{}", plain(&name), plain(&verdict));
        let made = self.folder.keep();
        for number in 1..=NAMES {
            let name = match number {
                1 => name.clone(),
                number => format!("{name}-{number}"),
            };
            let folder = into.join(name);
            // A folder that is not empty is not replaced, and an empty one is nobody's bundle.
            match fs::rename(&made, &folder) {
                Ok(()) => {
                    return Ok(Written {
                        folder,
                        can_start,
                        missing,
                    });
                }
                Err(error) if is_taken(&error) => {}
                Err(error) => {
                    // What is left of it is of no use.
                    let _ = fs::remove_dir_all(&made);
                    return Err(BundleError::file(&folder)(error));
                }
            }
        }
        let _ = fs::remove_dir_all(&made);
        let full = io::Error::other(format!("there are {NAMES} bundles of this name"));
        Err(BundleError::file(into)(full))
    }
}

pub(super) const MANIFEST: &str = "bundle.json";

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
    )
}

/// As a part of a file's name.
fn plain(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let letters = text
        .chars()
        .map(|letter| if is_plain(letter) { letter } else { '_' });
    let name: String = letters.take(NAME).collect();
    match name.trim_start_matches('.') {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}
