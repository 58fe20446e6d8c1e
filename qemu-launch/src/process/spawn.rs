//! Starting the process: checks, channels, and handing over to the one lasting thread that starts
//! every QEMU.

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use crate::argv::command_line::Argv;
use crate::argv::{Plan, plan};
use crate::discover;
use crate::error::{SpawnError, SpecError};
use crate::firmware;
use crate::process::channel::{self, Channel};
use crate::process::environment;
use crate::process::exec::{self, Failure, Inherited, Standard};
use crate::process::parent_guard::Guard;
use crate::process::set_once::Once;
use crate::process::spawner_thread::{self, spawn_thread};
use crate::process::supervise::{Attached, Newborn};
use crate::process::{Opened, Process};
use crate::spec::endpoint::Address;
use crate::spec::{MachineSpec, Stdio};

/// The channel that QEMU's stdout is, where it is one.
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
    firmware::check_all(spec, &program)?;
    let folder = private_folder(spec)?;
    let pairs = channel::count_inherited(spec) + usize::from(spec.stdout_is_channel());
    let inherited = Inherited::pairs(pairs).map_err(|source| SpawnError::System {
        what: "make a socket pair",
        source,
    })?;
    let path = folder
        .as_ref()
        .map_or(Path::new("/"), |folder| folder.path());
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
/// to
/// [keep running](MachineSpec::keep_running).
///
/// # Errors
/// As [`spawn`].
pub async fn spawn_async(spec: MachineSpec) -> Result<Process, SpawnError> {
    let done = Arc::new(Once::new());
    let kept = spec.kept;
    let starter = {
        let done = Arc::clone(&done);
        move || {
            // Should it panic, whoever waits must hear of it. Until it is taken nobody has a
            // handle, so it is dropped as any other.
            let outcome = catch_unwind(AssertUnwindSafe(|| Ok(spawn(&spec)?.keep(false))));
            done.set(outcome.unwrap_or_else(|_| Err(panicked())));
        }
    };
    spawn_thread("qemu-start", starter).map_err(no_thread)?;
    Ok(done.take().await?.keep(kept))
}

fn no_thread(source: io::Error) -> SpawnError {
    SpawnError::System {
        what: "start a thread",
        source,
    }
}

fn panicked() -> SpawnError {
    SpawnError::System {
        what: "start a process",
        source: io::Error::other("the start panicked"),
    }
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
            stdout_is_channel: false,
            stdio: Stdio::default(),
        },
        environment::variables(&[]),
        Inherited::default(),
        None,
    )
}

/// A folder for private sockets, where one is wanted; mode 0700 from the moment it exists.
fn private_folder(spec: &MachineSpec) -> Result<Option<tempfile::TempDir>, SpawnError> {
    if !channel::wants_folder(spec) {
        return Ok(None);
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("qemu-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let folder = builder.tempdir();
    folder.map(Some).map_err(|source| SpawnError::System {
        what: "make a private folder",
        source,
    })
}

/// QEMU removes whatever stands at the path of a socket that it is to listen on.
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

/// Starts the process and the threads that serve it.
pub(crate) fn launch(
    planned: Plan,
    environment: Vec<(OsString, OsString)>,
    inherited: Inherited,
    folder: Option<tempfile::TempDir>,
) -> Result<Process, SpawnError> {
    let Plan {
        argv,
        mut channels,
        kept,
        stdout_is_channel,
        stdio,
    } = planned;
    let (mut for_qemu, for_us) = inherited.split();
    // Its pair is the last one: the others have their numbers in the command line.
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
    let own = |descriptor: Option<Arc<exec::Descriptor>>| {
        let descriptor = descriptor.as_deref().map(exec::duplicate).transpose();
        descriptor.map_err(|source| SpawnError::System {
            what: "duplicate a descriptor",
            source,
        })
    };
    let stdin = own(stdio.stdin)?;
    let stdout = stdout.or(own(stdio.stdout)?);
    let sockets = sockets_outside(folder.as_ref(), &channels);
    let (answer, answered) = mpsc::channel();
    let start = move || match begin(
        argv,
        environment,
        (for_qemu, Standard { stdin, stdout }),
        (folder, sockets),
        kept,
    ) {
        Ok(newborn) => {
            // Whoever asked waits for it below.
            let _ = answer.send(Ok(newborn.shared()));
            newborn.serve_later();
        }
        Err(error) => drop(answer.send(Err(error))),
    };
    spawner_thread::run(start).map_err(no_thread)?;
    match answered.recv() {
        Ok(started) => Ok(Process::new(
            started?,
            open_channels(channels, for_us),
            kept,
        )),
        Err(_) => Err(panicked()),
    }
}

/// The sockets that do not go with the private folder.
fn sockets_outside(folder: Option<&tempfile::TempDir>, channels: &[Channel]) -> Vec<PathBuf> {
    let outside = |path: &&PathBuf| folder.is_none_or(|folder| !path.starts_with(folder.path()));
    let socket = |channel| match channel {
        &Channel {
            address: Address::Socket(ref path),
            ..
        } => Some(path),
        _ => None,
    };
    channels
        .iter()
        .filter_map(socket)
        .filter(outside)
        .cloned()
        .collect()
}

/// The part that has to be done on a lasting thread.
fn begin(
    argv: Argv,
    environment: Vec<(OsString, OsString)>,
    (inherited, standard): (Vec<exec::Descriptor>, Standard),
    (folder, sockets): (Option<tempfile::TempDir>, Vec<PathBuf>),
    kept: bool,
) -> Result<Newborn, SpawnError> {
    let started = match exec::start(&argv, environment, inherited, standard, kept) {
        Ok(started) => started,
        Err(Failure::System { what, source }) => return Err(SpawnError::System { what, source }),
        Err(Failure::Exec(source)) => {
            return Err(SpawnError::Exec {
                argv: Box::new(argv),
                source,
            });
        }
    };
    let guard = if kept {
        Ok(Guard::none())
    } else {
        Guard::over(started.child.id())
    };
    match guard {
        Ok(guard) => {
            let attached = Attached {
                folder,
                sockets,
                guard,
            };
            Ok(Newborn::new(argv, started, KEPT_OUTPUT, attached))
        }
        Err(source) => {
            // It has just been started by this thread: what can fail is that it has ended already.
            started.child.kill();
            let _ = started.child.wait();
            Err(SpawnError::System {
                what: "set a guard",
                source,
            })
        }
    }
}

/// Hands each inherited channel our end of its socket pair.
fn open_channels(channels: Vec<Channel>, ours: Vec<exec::Stream>) -> Vec<Opened> {
    let mut ours = ours.into_iter();
    let open = |Channel { id, address }: Channel| {
        let stream = if matches!(address, Address::Inherited { .. }) {
            ours.next()
        } else {
            None
        };
        Opened {
            id,
            address,
            stream,
        }
    };
    channels.into_iter().map(open).collect()
}
