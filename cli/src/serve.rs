//! `serve`: holds a machine for one-shot calls, on a unix socket that only its owner can reach.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::calls::{Answer, Call, CallError, Defaults, Machines, Policy, Request, Start};
use crate::config_file;
use crate::reporter::Reporter;
use crate::runtime;
use crate::settings::{SemihostingMode, Settings};
use crate::signals::Signals;

/// The longest request, in bytes, and how long one may take to come.
const REQUEST: u64 = 64 * 1024;
const ARRIVAL: Duration = Duration::from_secs(10);

/// How many requests are worked on at once; others wait.
const CLIENTS: usize = 16;

/// How many clients may be connected; a further one is turned away. Most of them say nothing.
const CONNECTED: usize = 256;

/// Hold a firmware in QEMU for the calls of `qemu-controller ctl`
///
/// The firmware is paused before its first instruction. It ends with `ctl stop`, a signal (Ctrl-C, a
/// closed terminal), or when nothing was asked for the time of --idle; QEMU ends with it.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    start: Start,
    /// A name for `ctl --session`
    #[arg(long, value_name = "NAME", default_value = DEFAULT)]
    session: String,
    /// End when nothing was asked for this long, such as 30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    idle: Duration,
    /// What the firmware reaches by semihosting, as of `run`
    #[arg(long, value_name = "WHAT")]
    semihosting: Option<SemihostingMode>,
    /// Read this configuration file [default: as of `run`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The session that is meant where none is named.
pub(crate) const DEFAULT: &str = "default";

/// Where the session of this name is served.
pub(crate) fn socket(name: &str) -> Result<PathBuf, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || name.len() > 32 || !name.bytes().all(is_plain) {
        return Err("a session's name has 1 to 32 letters, digits, _ and -".to_owned());
    }
    let user = rustix::process::getuid().as_raw();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => Path::new(&folder).join("qemu-controller"),
        None => std::env::temp_dir().join(format!("qemu-controller-{user}")),
    };
    Ok(folder.join(format!("{name}.sock")))
}

/// Refuses a folder that somebody else could have put there, or can enter.
pub(crate) fn check_folder(socket: &Path) -> Result<(), String> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    let words = |error: io::Error| format!("{}: {error}", folder.display());
    let metadata = folder.symlink_metadata().map_err(words)?;
    let is_ours = metadata.uid() == rustix::process::getuid().as_raw();
    if !metadata.is_dir() || !is_ours || metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "{} has to be a folder of yours that nobody else can enter (chmod 700)",
            folder.display()
        ));
    }
    Ok(())
}

/// The socket, while the lock beside it says whose it is.
pub(crate) struct SessionSocket {
    listener: UnixListener,
    socket: PathBuf,
    _lock: File,
}

impl SessionSocket {
    pub(crate) fn take(name: &str) -> Result<Self, String> {
        let socket = socket(name)?;
        let words = |error: io::Error| format!("{}: {error}", socket.display());
        if let Some(folder) = socket.parent() {
            let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(format!("{}: {error}", folder.display()));
                }
                _ => check_folder(&socket)?,
            }
        }
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(socket.with_extension("lock")).map_err(words)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(format!(
                "the session {name} is served already; `qemu-controller ctl --session {name} stop` \
                 ends it, and --session gives this one another name"
            ));
        }
        // Of one that was killed: whoever holds the lock serves.
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(words(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(words)?;
        Ok(Self {
            listener,
            socket,
            _lock: lock,
        })
    }
}

impl Drop for SessionSocket {
    fn drop(&mut self) {
        // The lock's file stays: removed, two could hold two of them.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Serves until it is to end; the exit status.
pub(crate) fn serve(serve: Serve) -> u8 {
    runtime::status_of(run(serve))
}

async fn run(serve: Serve) -> Result<u8, String> {
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let place = SessionSocket::take(&serve.session)?;
    let project = std::env::current_dir().map_err(|error| error.to_string())?;
    let settings = configured(serve.config.as_deref(), &project)?;
    let machines = Arc::new(Machines::new(Policy {
        project,
        confined: false,
        semihosting: serve.semihosting.unwrap_or(settings.semihosting()),
        defaults: Defaults {
            machine: settings.machine,
            cpu: settings.cpu,
            memory: settings.memory,
            deterministic: settings.deterministic,
            qemu: settings.qemu,
            qemu_args: settings.qemu_args,
        },
    }));
    let start = Request::main(Call::Start(serve.start));
    let started = tokio::select! {
        started = machines.perform(start) => started.map_err(|error| error.message)?,
        signal = signals.next() => return Ok(128 + signal),
    };
    // Who started it may not listen.
    let words = started.words();
    let _ = writeln!(io::stdout(), "{words}; {}", steering(&serve.session));
    Ok(hold(place, &machines, serve.idle, &mut signals).await)
}

/// Holds the machines until none is left, nothing was asked for too long, or a signal comes.
pub(crate) async fn hold(
    place: SessionSocket,
    machines: &Arc<Machines>,
    idle: Duration,
    signals: &mut Signals,
) -> u8 {
    let status = tokio::select! {
        status = clients(&place.listener, machines, idle) => status,
        signal = signals.next() => 128 + signal,
    };
    // Nobody is to find a session that ends.
    drop(place);
    machines.stop_all().await;
    status
}

/// What the configuration file says, as for `run`; what is said of that goes to stderr.
pub(crate) fn configured(named: Option<&Path>, folder: &Path) -> Result<Settings, String> {
    let reporter = Reporter::new(None, &[]).map_err(|failure| failure.words())?;
    config_file::settings(named, folder, &reporter).map_err(|failure| failure.words())
}

/// How a session of this name is steered.
pub(crate) fn steering(session: &str) -> String {
    match session {
        DEFAULT => "steer it with `qemu-controller ctl`".to_owned(),
        name => format!("steer it with `qemu-controller ctl --session {name}`"),
    }
}

/// Serves clients until no machine is left, or nothing was asked for too long.
async fn clients(listener: &UnixListener, machines: &Arc<Machines>, idle: Duration) -> u8 {
    let connected = Arc::new(Semaphore::new(CONNECTED));
    let workers = Arc::new(Semaphore::new(CLIENTS));
    let (served, mut latest) = watch::channel(());
    loop {
        let is_quiet = connected.available_permits() == CONNECTED;
        let quiet_until = Instant::now().checked_add(idle).filter(|_| is_quiet);
        let quiet = async {
            match quiet_until {
                Some(instant) => sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = latest.changed() => {
                if machines.names().is_empty() {
                    return 0;
                }
                continue;
            }
            () = quiet => return 0,
        };
        let Ok((stream, _)) = accepted else {
            // As where there are too many descriptors: not at once again.
            tokio::time::sleep(ARRIVAL / 100).await;
            continue;
        };
        let Ok(place) = Arc::clone(&connected).try_acquire_owned() else {
            continue;
        };
        let (machines, served) = (Arc::clone(machines), served.clone());
        let workers = Arc::clone(&workers);
        tokio::spawn(async move {
            // A client that is gone has its reasons.
            let _ = client_of(stream, &machines, &workers).await;
            drop(place);
            served.send_replace(());
        });
    }
}

/// One request, and its answer. A client that says nothing takes no place among the workers.
async fn client_of(stream: UnixStream, machines: &Machines, workers: &Semaphore) -> io::Result<()> {
    // The folder keeps others out already.
    if stream.peer_cred()?.uid() != rustix::process::getuid().as_raw() {
        return Ok(());
    }
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input).take(REQUEST);
    let mut line = Vec::new();
    let Ok(read) = timeout(ARRIVAL, input.read_until(b'\n', &mut line)).await else {
        return Ok(());
    };
    read?;
    let answer = match request(&line) {
        Ok(request) => tokio::select! {
            answer = async {
                // The semaphore is never closed.
                let _place = workers.acquire().await;
                machines.perform(request).await
            } => answer,
            // Whoever asked is gone, or says more than one request.
            _ = input.read_u8() => return Ok(()),
        },
        Err(error) => Err(error),
    };
    let answer = to_json(answer).to_string() + "\n";
    timeout(ARRIVAL, output.write_all(answer.as_bytes()))
        .await
        .unwrap_or(Ok(()))
}

fn request(line: &[u8]) -> Result<Request, CallError> {
    if line.last() != Some(&b'\n') {
        return Err(CallError::invalid(format!(
            "a request is one line of at most {REQUEST} bytes"
        )));
    }
    let object = serde_json::from_slice(line);
    Request::from_json(object.map_err(|error| CallError::invalid(error.to_string()))?)
}

fn to_json(answer: Result<Answer, CallError>) -> Value {
    match answer {
        Ok(answer) => json!({ "words": answer.words(), "answer": answer }),
        Err(error) => json!({ "error": error }),
    }
}
