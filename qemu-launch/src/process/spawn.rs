//! Starting the process: checks, channels, and handing over to a thread that outlives it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use tempfile::TempDir;

use crate::argv::command_line::Argv;
use crate::argv::{Plan, check_board, plan};
use crate::discover;
use crate::error::{SpawnError, SpecError};
use crate::firmware::{self, Checked, Rewritten};
use crate::process::channel::{self, Channel};
use crate::process::environment;
use crate::process::exec::{self, Failure, Inherited, Standard};
use crate::process::parent_guard::ParentGuard;
use crate::process::set_once::SetOnce;
use crate::process::spawn_thread;
use crate::process::supervise::{Attached, SpawnedProcess, end_unserved};
use crate::process::{Opened, Process, Shared};
use crate::spec::endpoint::Address;
use crate::spec::image::{Bios, LoadedImage};
use crate::spec::{MachineSpec, Stdio};

/// The id of the channel that is QEMU's stdout, where it is one.
const STDOUT: &str = "stdout";

/// How much of stdout and of stderr is kept.
const KEPT_OUTPUT: usize = 64 * 1024;

/// Checks the machine, starts QEMU, and returns once it executes: less than a millisecond, most of
/// it the system's. Whether it likes its options is seen later, from the monitor or from
/// [`ProcessHandle::wait`](crate::ProcessHandle::wait).
///
/// QEMU gets: a process group of its own; umask 077; no core dumps; stdin from nowhere; of the
/// environment `PATH`, `HOME`, `TMPDIR`, `TZ` and what the description names; the standard streams
/// and its channels as the only descriptors. On Linux it is killed when this program ends, however
/// that comes.
///
/// # Errors
/// The description, the firmware or the program is at fault, or the system refuses; nothing is left
/// behind.
pub fn spawn(spec: &MachineSpec) -> Result<Process, SpawnError> {
    let program = discover::find(&spec.program)?;
    check_board(spec, &program)?;
    let checked = firmware::check_all(spec, &program)?;
    let folder = private_folder(spec, !checked.rewritten.is_empty())?;
    let pairs = channel::count_inherited(spec) + usize::from(spec.stdout_is_channel());
    let inherited =
        Inherited::pairs(pairs).map_err(|source| system("make a socket pair", source))?;
    let path = folder
        .as_ref()
        .map_or(Path::new("/"), |folder| folder.path());
    let spec = &changed(spec, path, checked)?;
    let planned = plan(spec, &program, path, inherited.numbers().into_iter())?;
    refuse_taken_sockets(&planned)?;
    launch(
        planned,
        environment::variables(&spec.environment),
        inherited,
        folder,
    )
}

/// As [`spawn`], for async code: the checks and the start are done on another thread, and no
/// particular runtime is needed. If the future is dropped, no process stays, not even one that is
/// to [keep running](MachineSpec::keep_running).
///
/// # Errors
/// As [`spawn`].
pub async fn spawn_async(spec: MachineSpec) -> Result<Process, SpawnError> {
    let done = Arc::new(SetOnce::new());
    let kept = spec.kept;
    let starter = {
        let done = Arc::clone(&done);
        move || {
            // A panic must not leave the caller waiting. A process that nobody takes is dropped,
            // and ends with that.
            let outcome = catch_unwind(AssertUnwindSafe(|| Ok(spawn(&spec)?.keep(false))));
            done.set(outcome.unwrap_or_else(|_| Err(panicked())));
        }
    };
    spawn_thread("qemu-start", starter).map_err(no_thread)?;
    Ok(done.take().await?.keep(kept))
}

fn no_thread(source: io::Error) -> SpawnError {
    system("start a thread", source)
}

fn panicked() -> SpawnError {
    system("start a process", io::Error::other("the start panicked"))
}

/// Starts the program with these arguments and nothing else, for a question that it answers on
/// stdout.
pub(crate) fn bare(program: &Path, args: &[&str]) -> Result<Process, SpawnError> {
    let argv = Argv::new(
        program.to_owned(),
        args.iter().map(OsString::from).collect(),
    );
    launch(
        Plan {
            argv,
            channels: Vec::new(),
            kept: false,
            current_dir: None,
            stdout_is_channel: false,
            stdio: Stdio::default(),
        },
        environment::variables(&[]),
        Inherited::default(),
        None,
    )
}

/// The machine with the files that QEMU would misread replaced by what was rewritten, and without
/// QEMU's own firmware where there is another in its place.
fn changed<'a>(
    spec: &'a MachineSpec,
    folder: &Path,
    checked: Checked,
) -> Result<Cow<'a, MachineSpec>, SpawnError> {
    let mut spec = Cow::Borrowed(spec);
    if checked.replaces_bios {
        spec.to_mut().bios = Some(Bios::None);
    }
    for Rewritten { image, contents } in checked.rewritten {
        let path = folder.join(format!("image{image}.hex"));
        std::fs::write(&path, contents).map_err(|source| system("write a file", source))?;
        spec.to_mut().images[image] = LoadedImage::IntelHex { path };
    }
    Ok(spec)
}

/// A folder for private sockets and files, where one is wanted; mode 0700 from the moment it
/// exists.
fn private_folder(spec: &MachineSpec, has_files: bool) -> Result<Option<TempDir>, SpawnError> {
    if !has_files && !channel::wants_folder(spec) {
        return Ok(None);
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("qemu-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let folder = builder.tempdir();
    folder
        .map(Some)
        .map_err(|source| system("make a private folder", source))
}

/// QEMU would remove whatever is at the path of a socket that it is to listen on.
fn refuse_taken_sockets(planned: &Plan) -> Result<(), SpecError> {
    for channel in &planned.channels {
        if let Address::Socket(path) = &channel.address
            && path.symlink_metadata().is_ok()
        {
            return Err(SpecError::SocketPathTaken { path: path.clone() });
        }
    }
    Ok(())
}

/// Starts the process and the thread that serves it.
fn launch(
    planned: Plan,
    environment: Vec<(OsString, OsString)>,
    inherited: Inherited,
    folder: Option<TempDir>,
) -> Result<Process, SpawnError> {
    let Plan {
        argv,
        mut channels,
        kept,
        current_dir,
        stdout_is_channel,
        stdio,
    } = planned;
    let (mut for_qemu, for_us) = inherited.split();
    // stdout's pair is the last one: the others have their numbers in the command line.
    let stdout = if stdout_is_channel {
        for_qemu.pop()
    } else {
        None
    };
    if stdout.is_some() {
        channels.push(Channel {
            id: STDOUT.to_owned(),
            address: Address::Inherited { fd: 1 },
        });
    }
    let stdin = duplicate(stdio.stdin)?;
    let stdout = stdout.or(duplicate(stdio.stdout)?);
    let sockets = sockets_outside(folder.as_ref(), &channels);
    let start = Start {
        argv,
        environment,
        inherited: for_qemu,
        standard: Standard { stdin, stdout },
        folder,
        sockets,
        current_dir,
        kept,
    };
    let shared = start.on_its_thread()?;
    Ok(Process::new(shared, open_channels(channels, for_us), kept))
}

/// A copy for this process: the description keeps its own for the next one.
fn duplicate(
    descriptor: Option<Arc<exec::Descriptor>>,
) -> Result<Option<exec::Descriptor>, SpawnError> {
    let copy = descriptor.as_deref().map(exec::duplicate).transpose();
    copy.map_err(|source| system("duplicate a descriptor", source))
}

/// The sockets that are not removed with the private folder.
fn sockets_outside(folder: Option<&TempDir>, channels: &[Channel]) -> Vec<PathBuf> {
    let sockets = channels
        .iter()
        .filter_map(|channel| match &channel.address {
            Address::Socket(path) => Some(path),
            _ => None,
        });
    sockets
        .filter(|path| folder.is_none_or(|folder| !path.starts_with(folder.path())))
        .cloned()
        .collect()
}

/// The part of a start that is done on the thread that then serves QEMU.
struct Start {
    argv: Argv,
    environment: Vec<(OsString, OsString)>,
    inherited: Vec<exec::Descriptor>,
    standard: Standard,
    folder: Option<TempDir>,
    sockets: Vec<PathBuf>,
    current_dir: Option<PathBuf>,
    kept: bool,
}

impl Start {
    /// Starts QEMU on a thread of its own, which serves it until it is gone.
    ///
    /// `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends, not its process: a QEMU
    /// that was started by a worker of a runtime would die with that worker. This thread lives
    /// exactly as long as its QEMU, and one that is held up in `execve`, for example by a network
    /// file system, holds up no other start.
    fn on_its_thread(self) -> Result<Arc<Shared>, SpawnError> {
        let (answer, answered) = mpsc::channel();
        let work = move || match self.run() {
            Ok(spawned) => {
                // The caller waits for it below.
                let _ = answer.send(Ok(spawned.shared()));
                drop(answer);
                spawned.serve();
            }
            Err(error) => drop(answer.send(Err(error))),
        };
        spawn_thread("qemu-serve", work).map_err(no_thread)?;
        answered.recv().unwrap_or_else(|_| Err(panicked()))
    }

    fn run(self) -> Result<SpawnedProcess, SpawnError> {
        let argv = self.argv;
        let started = exec::start(
            &argv,
            self.environment,
            self.inherited,
            self.standard,
            self.current_dir.as_deref(),
            self.kept,
        );
        let started = match started {
            Ok(started) => started,
            Err(Failure::System { what, source }) => {
                return Err(SpawnError::System { what, source });
            }
            Err(Failure::Exec(source)) => {
                let argv = Box::new(argv);
                return Err(SpawnError::Exec { argv, source });
            }
        };
        let guard = match self.kept {
            true => Ok(ParentGuard::none()),
            false => ParentGuard::for_group(started.child.id()),
        };
        let guard = guard.map_err(|source| {
            end_unserved(&started.child);
            system("start a guard process", source)
        })?;
        let attached = Attached {
            folder: self.folder,
            sockets: self.sockets,
            guard,
        };
        SpawnedProcess::new(argv, started, KEPT_OUTPUT, attached)
            .map_err(|source| system("wait for the exit of a process", source))
    }
}

fn system(what: &'static str, source: io::Error) -> SpawnError {
    SpawnError::System { what, source }
}

/// Hands each inherited channel our end of its socket pair.
fn open_channels(channels: Vec<Channel>, ours: Vec<exec::Stream>) -> Vec<Opened> {
    let mut ours = ours.into_iter();
    channels
        .into_iter()
        .map(|Channel { id, address }| Opened {
            stream: match address {
                Address::Inherited { .. } => ours.next(),
                _ => None,
            },
            id,
            address,
        })
        .collect()
}
