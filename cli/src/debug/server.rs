//! The address where debuggers connect: one of them at a time, and nobody but the user's own.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use gdb_remote::packet::encode;
use qemu_controller::Endpoint;
use qemu_controller::debug::DebugError;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::relay;
use super::slot::HeldMachines;
use crate::debugger::{port_in_use, program};
use crate::report::{Failure, Reporter};

/// How long a connection may say nothing before it is no debugger's.
const SILENCE: Duration = Duration::from_secs(10);

/// So many connections may say nothing at once.
const SILENT: usize = 16;

/// After the system would not accept a connection, for want of descriptors mostly.
const RETRY: Duration = Duration::from_millis(100);

/// How long one that is refused has to read why.
const REFUSAL: Duration = Duration::from_secs(1);

/// A debugger's connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub(super) type Peer = Box<dyn Stream>;

/// Lets debuggers in.
pub(super) struct Server<'a> {
    listener: Listener,
    machines: HeldMachines,
    reporter: &'a Reporter,
}

/// Who has said something, what, and its name.
type Caller = (Peer, Vec<u8>, String);

impl<'a> Server<'a> {
    /// Listens there, for these machines.
    pub(super) fn bind(
        at: &Endpoint,
        machines: HeldMachines,
        reporter: &'a Reporter,
    ) -> Result<Self, Failure> {
        let listener = Listener::bind(at).map_err(|error| {
            let in_use = (error.kind() == io::ErrorKind::AddrInUse).then(|| port_in_use(at));
            let address = match at {
                Endpoint::Socket(path) => path.display().to_string(),
                at => format!("{at:?}"),
            };
            let other = DebugError::Listen { address, error };
            in_use.flatten().unwrap_or_else(|| other.into())
        })?;
        Ok(Self {
            listener,
            machines,
            reporter,
        })
    }

    /// Where a debugger finds it, as gdb takes it.
    pub(super) fn target(&self) -> String {
        match &self.listener {
            Listener::Tcp(_, address) => address.to_string(),
            Listener::Unix(_, SocketFile(path)) => path.display().to_string(),
        }
    }

    /// Serves one debugger after another; `greeting` is said once the first machine is there.
    pub(super) async fn serve(self, greeting: Option<String>) -> Infallible {
        if let (Ok(_), Some(greeting)) = (self.machines.current().await, greeting) {
            self.say(&greeting);
        }
        let mut silent = JoinSet::<Option<Caller>>::new();
        let mut served: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if silent.len() < SILENT => match accepted {
                    Ok((peer, Ok(name))) => drop(silent.spawn(first_words(peer, name))),
                    Ok((_, Err(why))) => self.say(&why),
                    Err(_) => sleep(RETRY).await,
                },
                Some(said) = silent.join_next(), if !silent.is_empty() => match said {
                    Ok(Some((peer, _, name))) if served.is_some() => {
                        self.say(&format!("{name} was turned away: a debugger is here already"));
                        tokio::spawn(refuse(peer, "another debugger is here already".to_owned()));
                    }
                    Ok(Some((peer, words, name))) => {
                        self.say(&format!("a debugger has come: {name}"));
                        served = Some(Box::pin(self.converse(peer, words)));
                    }
                    _ => {}
                },
                () = async {
                    match &mut served {
                        Some(served) => served.await,
                        None => std::future::pending().await,
                    }
                } => served = None,
            }
        }
    }

    async fn converse(&self, peer: Peer, words: Vec<u8>) {
        match relay::converse(peer, &words, &self.machines).await {
            // The machine says whether it runs on.
            Ok(true) => {}
            Ok(false) => self.say("the debugger has left"),
            Err((peer, why)) => {
                self.say(&format!("the debugger was turned away: {why}"));
                refuse(peer, why).await;
            }
        }
    }

    fn say(&self, words: &str) {
        // No file of JSON could be full.
        let _ = self.reporter.say(Some(words), &Value::Null);
    }
}

/// Waits until it says something. A look at the port is nobody, and a web page's request is no
/// packet.
async fn first_words(mut peer: Peer, name: String) -> Option<Caller> {
    let mut words = vec![0; 1024];
    let length = timeout(SILENCE, peer.read(&mut words)).await.ok()?.ok()?;
    words.truncate(length);
    let is_protocol = matches!(words.first(), Some(b'$' | b'+' | b'-' | 0x03));
    is_protocol.then_some((peer, words, name))
}

/// Answers with an error, which gdb shows, and hangs up.
async fn refuse(mut peer: Peer, why: String) {
    let mut answer = b"+".to_vec();
    encode(format!("E.{why}").as_bytes(), &mut answer);
    let refused = async {
        peer.write_all(&answer).await?;
        peer.shutdown().await?;
        // Read to the end, or the answer would be lost with a reset.
        while peer.read(&mut [0; 1024]).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(REFUSAL, refused).await;
}

enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// A socket's file, removed with it.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    fn bind(at: &Endpoint) -> io::Result<Self> {
        let address = match at {
            Endpoint::Socket(path) => {
                let listener = UnixListener::bind(path)?;
                return Ok(Self::Unix(listener, SocketFile(path.clone())));
            }
            Endpoint::Exposed(address) => *address,
            Endpoint::Loopback { port } => SocketAddr::from(([127, 0, 0, 1], *port)),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?, address))
    }

    /// The next who connects: its name, or why it is not let in.
    async fn accept(&self) -> io::Result<(Peer, Result<String, String>)> {
        match self {
            Self::Tcp(listener, _) => {
                let (peer, address) = listener.accept().await?;
                // A debugger's packets are small, and each waits for the one before it.
                peer.set_nodelay(true)?;
                let name = owner::of(address, peer.local_addr()?);
                Ok((Box::new(peer), name))
            }
            Self::Unix(listener, _) => {
                let (peer, _) = listener.accept().await?;
                let owner = peer.peer_cred()?;
                let name = match (owner::is_let_in(owner.uid()), owner.pid()) {
                    (false, _) => Err(owner::refusal(owner.uid())),
                    (true, Some(pid)) => Ok(program(pid.cast_unsigned())),
                    (true, None) => Ok("a program".to_owned()),
                };
                Ok((Box::new(peer), name))
            }
        }
    }
}

/// Whose a connection is.
mod owner {
    use std::net::SocketAddr;

    use rustix::process::getuid;

    #[cfg(target_os = "linux")]
    use crate::debugger::program;

    pub(super) fn is_let_in(user: u32) -> bool {
        user == 0 || user == getuid().as_raw()
    }

    pub(super) fn refusal(user: u32) -> String {
        format!("a connection of user {user} was refused")
    }

    /// The name of the program at the other end of a loopback connection, or why it is not let in.
    #[cfg(target_os = "linux")]
    pub(super) fn of(peer: SocketAddr, ours: SocketAddr) -> Result<String, String> {
        let tables = [procfs::net::tcp(), procfs::net::tcp6()];
        let mut entries = tables.into_iter().flatten().flatten();
        let entry = entries
            .find(|entry| entry.local_address == peer && entry.remote_address == ours)
            .ok_or("a connection was refused: its owner is gone, or cannot be known")?;
        match is_let_in(entry.uid) {
            true => Ok(holder(entry.inode).map_or_else(|| peer.to_string(), program)),
            false => Err(refusal(entry.uid)),
        }
    }

    /// Nothing tells whose it is: as on every debugger's port there.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(peer: SocketAddr, _: SocketAddr) -> Result<String, String> {
        Ok(peer.to_string())
    }

    /// A process that has this socket.
    #[cfg(target_os = "linux")]
    fn holder(inode: u64) -> Option<u32> {
        let processes = procfs::process::all_processes().ok()?.flatten();
        let mut processes = processes.filter(|process| {
            let descriptors = process.fd().into_iter().flatten().flatten();
            let mut targets = descriptors.map(|descriptor| descriptor.target);
            targets.any(|target| target == procfs::process::FDTarget::Socket(inode))
        });
        processes.next().map(|process| process.pid.cast_unsigned())
    }
}
