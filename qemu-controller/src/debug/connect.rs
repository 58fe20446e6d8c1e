//! A connection to QEMU's stub: one made for it, or to the stub that the session was started with.
//!
//! | where | how | nothing listens |
//! |---|---|---|
//! | the monitor is a unix socket | one end of a socket pair, passed over it | yes |
//! | the monitor is TCP | QEMU listens in a private folder until it is connected to | after that |
//! | the session has a stub of its own, and nobody is there | connected to | no |

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gdb_port::{Chardev, StubAddress};
use qmp_proto::commands::{HumanMonitorCommand, QueryChardev};
use qmp_proto::{Command, Empty};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::error::DebugError;
use super::listener::private_folder;
use crate::client::Shared;
use crate::client::command::command;
use crate::client::transport::tokio_stream;
use crate::error::CommandError;

/// Distinguishes the chardevs of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Serialize)]
struct Getfd {
    fdname: String,
}

impl Command for Getfd {
    const NAME: &'static str = "getfd";
    type Return = Empty;
}

/// `chardev-add` of a socket whose descriptor was passed before.
#[derive(Serialize)]
struct AddChardev {
    id: String,
    backend: serde_json::Value,
}

impl Command for AddChardev {
    const NAME: &'static str = "chardev-add";
    type Return = serde_json::Value;
}

/// Whose the stub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Made for this connection: it goes with it.
    Us,
    /// The session was started with it, or whoever started its QEMU made it: it stays.
    Others,
}

/// Connects, which stops the guest. On an error there is no stub that was not there before. The
/// turn is the caller's.
pub(super) async fn connect(
    shared: &Shared,
    deadline: Duration,
) -> Result<(UnixStream, Owner), DebugError> {
    let chardevs = command(shared, deadline, &QueryChardev).await?;
    let stub = chardevs.into_iter().find(|chardev| chardev.label == "gdb");
    if let Some(stub) = stub.and_then(|stub| Chardev::parse(&stub.filename)) {
        match connect_to_listener(stub, deadline).await {
            // Of a session that has ended without taking it away.
            Err(DebugError::Unreachable { error, .. })
                if error.kind() == io::ErrorKind::NotFound => {}
            connected => return Ok((connected?, Owner::Others)),
        }
    }
    let made = match make(shared, deadline).await? {
        Some(made) => made,
        None => make_by_listening(shared, deadline).await?,
    };
    Ok((made, Owner::Us))
}

/// Takes a stub that is ours away; the run state stays.
pub(super) async fn remove(shared: &Shared, deadline: Duration) -> Result<(), DebugError> {
    human_monitor(shared, "gdbserver none", deadline).await?;
    Ok(())
}

/// `None` where the monitor takes no descriptor.
async fn make(shared: &Shared, deadline: Duration) -> Result<Option<UnixStream>, DebugError> {
    let (ours, theirs) = UnixStream::pair().map_err(DebugError::Socket)?;
    let name = format!("qemu-controller-gdb-{}", NEXT.fetch_add(1, Relaxed));
    if !pass(shared, &theirs, deadline).await? {
        return Ok(None);
    }
    let fdname = name.clone();
    command(shared, deadline, &Getfd { fdname }).await?;
    drop(theirs);
    let backend = serde_json::json!({ "type": "socket", "data": {
        "addr": { "type": "fd", "data": { "str": name } }, "server": false,
    }});
    let id = name.clone();
    command(shared, deadline, &AddChardev { id, backend }).await?;
    gdbserver(shared, format!("chardev:{name}"), deadline).await?;
    Ok(Some(ours))
}

/// For a monitor that takes no descriptor. The folder is nobody else's, and gone when this returns.
async fn make_by_listening(shared: &Shared, deadline: Duration) -> Result<UnixStream, DebugError> {
    let folder = private_folder().map_err(DebugError::Socket)?;
    let path = folder.path().join("gdb.sock");
    // QEMU takes a doubled comma for one.
    let escaped = path.to_string_lossy().replace(',', ",,");
    gdbserver(
        shared,
        format!("unix:{escaped},server=on,wait=off"),
        deadline,
    )
    .await?;
    let connected = UnixStream::connect(&path);
    if connected.is_err() {
        remove(shared, deadline).await?;
    }
    connected.map_err(|error| DebugError::Unreachable {
        address: StubAddress::Unix(path).to_string(),
        error,
    })
}

async fn gdbserver(shared: &Shared, device: String, deadline: Duration) -> Result<(), DebugError> {
    let line = format!("gdbserver {device}");
    let said = human_monitor(shared, &line, deadline).await;
    if said
        .as_ref()
        .is_ok_and(|said| said.contains("Waiting for gdb connection"))
    {
        return Ok(());
    }
    // Of a QEMU that answers late, too.
    let removed = remove(shared, deadline).await;
    let text = said?.trim().to_owned();
    removed?;
    Err(CommandError::HumanMonitor { line, text }.into())
}

async fn human_monitor(
    shared: &Shared,
    line: &str,
    deadline: Duration,
) -> Result<String, DebugError> {
    Ok(command(shared, deadline, &HumanMonitorCommand::new(line)).await?)
}

/// Sends QEMU's end of the pair over the monitor's socket; whether that takes any.
async fn pass(
    shared: &Shared,
    theirs: &UnixStream,
    deadline: Duration,
) -> Result<bool, DebugError> {
    let passing = async {
        loop {
            let sent = shared.state().send_descriptor(theirs.as_fd());
            match sent {
                None => return Ok(false),
                Some(Ok(())) => return Ok(true),
                // A command is being written; the driver is at it, for long where QEMU does not read.
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(Duration::from_millis(1)).await;
                }
                Some(Err(error)) => return Err(DebugError::Socket(error)),
            }
        }
    };
    let what = "to a command before, so that it got no socket";
    let passed = timeout(deadline, passing).await;
    passed.unwrap_or(Err(DebugError::Deadline { what, deadline }))
}

/// Connects to the stub that the session was started with.
async fn connect_to_listener(stub: Chardev, deadline: Duration) -> Result<UnixStream, DebugError> {
    let address = stub.endpoint.to_string();
    if stub.attached {
        return Err(DebugError::StubInUse(address));
    }
    let unreachable = |error| DebugError::Unreachable { address, error };
    match stub.endpoint {
        StubAddress::Unix(path) => UnixStream::connect(path).map_err(unreachable),
        StubAddress::Tcp(address) => bridge(address, deadline).await.map_err(unreachable),
        _ => Err(unreachable(io::ErrorKind::Unsupported.into())),
    }
}

/// A unix stream in place of a TCP connection, so that there is one kind.
async fn bridge(address: SocketAddr, deadline: Duration) -> io::Result<UnixStream> {
    let mut tcp = timeout(deadline, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    tcp.set_nodelay(true)?;
    let (ours, inner) = UnixStream::pair()?;
    let mut inner = tokio_stream(inner)?;
    // Ends with both ends.
    tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut inner, &mut tcp).await;
    });
    Ok(ours)
}
