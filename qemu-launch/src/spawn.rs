//! Starting the process: checks, channels, the one lasting thread that forks, and what the child does before `exec`.

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::argv::{Plan, plan};
use crate::channel::{self, Channel};
use crate::child::Child;
use crate::discover;
use crate::endpoint::Address;
use crate::error::{SpawnError, SpecError};
use crate::exec::{self, Inherited};
use crate::exit::Exit;
use crate::firmware;
use crate::once::Once;
use crate::output::{self, Tail};
use crate::process::{Opened, Process, Shared};
use crate::ring::Ring;
use crate::spec::MachineSpec;

/// How much of stdout and of stderr is kept.
const KEPT_OUTPUT: usize = 64 * 1024;

/// How long output may still come once the process is reaped; only a program that left its group can hold it open.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// Variables that QEMU gets from this process. Not among them, on purpose: `LD_PRELOAD`, `LD_LIBRARY_PATH` and
/// `QEMU_MODULE_DIR`, which make it load code.
const ENVIRONMENT: &[&str] = if cfg!(windows) {
    &["PATH", "SystemRoot", "TEMP", "TMP", "USERPROFILE"]
} else {
    &["PATH", "HOME", "TMPDIR", "TZ"]
};

/// Checks the machine, starts QEMU, and returns once it executes: a millisecond or two, most of it the system's.
/// Whether it likes its options is seen later, from the monitor or from [`Watch::wait`](crate::Watch::wait).
///
/// QEMU gets: a process group of its own; umask 077; no core dumps; stdin from nowhere; of the environment `PATH`,
/// `HOME`, `TMPDIR`, `TZ` and what the description names; the standard streams and its channels as the only
/// descriptors. On Linux it is killed when this program ends, however that comes.
///
/// # Errors
/// The description, the firmware or the program is at fault, or the system refuses; nothing is left behind.
pub fn spawn(spec: &MachineSpec) -> Result<Process, SpawnError> {
    let program = discover::find(&spec.program)?;
    firmware::check_all(spec, &program)?;
    let folder = private_folder(spec)?;
    let inherited =
        Inherited::pairs(channel::count_inherited(spec)).map_err(|source| SpawnError::System {
            what: "make a socket pair",
            source,
        })?;
    let path = folder.as_ref().map_or(Path::new("/"), |folder| folder.path());
    let planned = plan(spec, &program, path, inherited.numbers().into_iter())?;
    refuse_taken_sockets(&planned)?;
    launch(planned, environment(&spec.environment), inherited, folder)
}

/// As [`spawn`], for async code: the checks and the start are done on another thread, and no particular runtime is
/// needed. If the future is dropped, no process stays.
///
/// # Errors
/// As [`spawn`].
pub async fn spawn_async(spec: MachineSpec) -> Result<Process, SpawnError> {
    type Slot = Arc<Mutex<Option<Result<Process, SpawnError>>>>;
    let done: Arc<Once<Slot>> = Arc::new(Once::new());
    let starter = {
        let done = Arc::clone(&done);
        move || done.set(Arc::new(Mutex::new(Some(spawn(&spec)))))
    };
    spawn_thread("qemu-start", starter).map_err(|source| SpawnError::System {
        what: "start a thread",
        source,
    })?;
    let slot = done.wait().await;
    let outcome = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    outcome.unwrap_or_else(|| unreachable!("only this future takes the outcome"))
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

/// The variables that QEMU gets, and no others.
fn environment(wanted: &[(OsString, Option<OsString>)]) -> Vec<(OsString, OsString)> {
    let of_this_process = |name: &OsStr| std::env::var_os(name).map(|value| (name.to_owned(), value));
    let mut variables: Vec<_> = ENVIRONMENT
        .iter()
        .filter_map(|name| of_this_process(name.as_ref()))
        .collect();
    variables.extend(wanted.iter().filter_map(|(name, value)| match value {
        Some(value) => Some((name.clone(), value.clone())),
        None => of_this_process(name),
    }));
    variables
}

/// Starts the process and the threads that serve it.
pub(crate) fn launch(
    planned: Plan,
    environment: Vec<(OsString, OsString)>,
    inherited: Inherited,
    folder: Option<tempfile::TempDir>,
) -> Result<Process, SpawnError> {
    let Plan { argv, channels } = planned;
    let (for_qemu, for_us) = inherited.split();
    let mut child = {
        let argv = argv.clone();
        on_lasting_thread(move || exec::start(&argv, environment, for_qemu))?
    }
    .map_err(|source| SpawnError::Exec {
        argv: Box::new(argv.clone()),
        source,
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let shared = Arc::new(Shared {
        pid: child.id(),
        argv,
        child: Child::new(child),
        stdout: Arc::new(Ring::new(KEPT_OUTPUT)),
        stderr: Arc::new(Ring::new(KEPT_OUTPUT)),
        exit: Once::new(),
    });
    let served = serve(&shared, stdout, stderr, folder);
    served.map_err(|source| {
        // Without its threads the process would wedge on its output and never be reaped.
        shared.child.kill();
        let _ = shared.child.wait();
        SpawnError::System {
            what: "start a thread",
            source,
        }
    })?;
    Ok(Process::new(shared, open_channels(channels, for_us)))
}

/// The threads that drain the output, wait for the end, and tell everybody.
fn serve(
    shared: &Arc<Shared>,
    stdout: Option<impl io::Read + Send + 'static>,
    stderr: Option<impl io::Read + Send + 'static>,
    folder: Option<tempfile::TempDir>,
) -> io::Result<()> {
    let ring = Arc::clone(&shared.stdout);
    spawn_thread("qemu-stdout", move || {
        stdout.map_or_else(|| ring.close(), |pipe| output::drain(pipe, &ring))
    })?;
    let ring = Arc::clone(&shared.stderr);
    spawn_thread("qemu-stderr", move || {
        stderr.map_or_else(|| ring.close(), |pipe| output::drain(pipe, &ring))
    })?;
    let shared = Arc::clone(shared);
    spawn_thread("qemu-wait", move || {
        let status = shared.child.wait().ok();
        let deadline = Instant::now() + DRAIN_WAIT;
        shared.stdout.wait_closed(deadline);
        shared.stderr.wait_closed(deadline);
        // Before anybody is told, so that whoever waited finds it gone.
        drop(folder);
        let name = shared
            .argv
            .program()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        shared
            .exit
            .set(Exit::new(&name, status, Tail::of(&shared.stderr)));
    })
}

/// A thread with a small stack: those here do little but wait.
pub(crate) fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 * 1024)
        .spawn(work)
        .map(drop)
}

/// Runs `work` on the one thread that lasts as long as this program.
///
/// `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, not its process: QEMU forked from a worker of a
/// runtime would die with that worker.
fn on_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SpawnError> {
    type Work = Box<dyn FnOnce() + Send>;
    static LASTING: Mutex<Option<Sender<Work>>> = Mutex::new(None);

    let failed = |source| SpawnError::System {
        what: "start a thread",
        source,
    };
    let (answer, answered) = channel();
    let work: Work = Box::new(move || {
        // The receiver waits for as long as this takes.
        let _ = answer.send(work());
    });
    {
        let mut lasting = LASTING.lock().unwrap_or_else(PoisonError::into_inner);
        if lasting.is_none() {
            let (sender, receiver) = channel::<Work>();
            // It never ends: the sender is never dropped, and a panic of the work is caught, for it would take every
            // running QEMU with it.
            spawn_thread("qemu-spawn", move || {
                for work in receiver {
                    let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(work));
                }
            })
            .map_err(failed)?;
            *lasting = Some(sender);
        }
        if let Some(lasting) = &*lasting {
            let _ = lasting.send(work);
        }
    }
    answered
        .recv()
        .map_err(|_| failed(io::Error::other("the thread that starts processes is gone")))
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
        Opened { id, address, stream }
    };
    channels.into_iter().map(open).collect()
}
