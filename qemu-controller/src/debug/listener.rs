//! Where real debuggers connect to this program: an address that lets in nobody but the user's own
//! and root's.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gdb_port::{StubAddress, caller};
use gdb_remote::packet::encode;
use qemu_launch::Endpoint;
use rustix::process::getuid;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::error::DebugError;

/// How long a connection may say nothing before it is no debugger's.
const SILENCE: Duration = Duration::from_secs(10);

/// So many connections may say nothing at once.
const SILENT: usize = 16;

/// After the system would not accept a connection, for want of descriptors mostly.
const RETRY: Duration = Duration::from_millis(100);

/// How long one that is refused has to read why.
const REFUSAL: Duration = Duration::from_secs(1);

/// Waits for debuggers at one address.
///
/// Whoever reaches a stub can run commands as its owner, so a connection to a loopback address or a
/// unix socket is let in only where it is this user's or root's. Where [`Endpoint::Exposed`] names an
/// address that other hosts reach, everybody is let in.
#[derive(Debug)]
pub struct DebuggerListener {
    socket: Socket,
    address: StubAddress,
    silent: JoinSet<Option<Visitor>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removes it when it is dropped")] SocketFile,
    ),
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stranger {
    /// It is another user's, whose number this is.
    #[error("a connection of user {0} was refused")]
    OtherUser(u32),
    /// It has hung up before it was known whose it was.
    #[error("a connection was refused: its owner is gone")]
    Gone,
    /// The system does not tell whose a TCP connection is.
    #[error(
        "a connection was refused, since the system does not tell whose it is ({0}); it tells that of a unix socket"
    )]
    Unknown(io::Error),
}

impl DebuggerListener {
    /// Listens there. [`Endpoint::PrivateSocket`] is a unix socket in a folder that nobody else can
    /// enter. A socket's file goes with this, unless another has taken its place.
    ///
    /// # Errors
    /// [`DebugError::Listen`], with the port or path.
    pub fn bind(at: &Endpoint) -> Result<Self, DebugError> {
        let refused = |address: String| move |error| DebugError::Listen { address, error };
        let (socket, address) = match at {
            Endpoint::Loopback { port } => bind_tcp((Ipv4Addr::LOCALHOST, *port).into())?,
            Endpoint::Exposed(address) => bind_tcp(*address)?,
            Endpoint::Socket(path) => {
                bind_unix(path, None).map_err(refused(path.display().to_string()))?
            }
            // There is nobody who could inherit it.
            _ => {
                let folder = private_folder();
                let folder = folder.map_err(refused("a private folder".to_owned()))?;
                let path = folder.path().join("gdb.sock");
                let address = path.display().to_string();
                bind_unix(&path, Some(folder)).map_err(refused(address))?
            }
        };
        Ok(Self {
            socket,
            address,
            silent: JoinSet::new(),
        })
    }

    /// Where a debugger connects; a port that was left to the system is known here.
    #[must_use]
    pub fn address(&self) -> &StubAddress {
        &self.address
    }

    /// The next who has connected and has begun to speak the protocol: a look at the port is nobody,
    /// and a web page's request is no packet. Nobody is lost where the future is dropped.
    ///
    /// # Errors
    /// [`Stranger`]: somebody was not let in. Ask again for the next.
    pub async fn next(&mut self) -> Result<Visitor, Stranger> {
        loop {
            tokio::select! {
                accepted = self.socket.accept(), if self.silent.len() < SILENT => match accepted {
                    Ok(visitor) => drop(self.silent.spawn(visitor?.first_words())),
                    Err(_) => sleep(RETRY).await,
                },
                Some(spoken) = self.silent.join_next(), if !self.silent.is_empty() => {
                    if let Ok(Some(visitor)) = spoken {
                        return Ok(visitor);
                    }
                }
            }
        }
    }
}

/// A debugger that has connected. What it has said is read first.
#[derive(Debug)]
pub struct Visitor {
    stream: Box<dyn Stream>,
    words: Vec<u8>,
    pid: Option<u32>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> Stream for T {}

impl Visitor {
    /// The debugger's process, where this user may see it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Answers with an error, which gdb shows, and hangs up.
    pub async fn refuse(mut self, why: &str) {
        let mut answer = b"+".to_vec();
        encode(format!("E.{why}").as_bytes(), &mut answer);
        let refused = async {
            self.write_all(&answer).await?;
            self.shutdown().await?;
            // Read to the end, or the answer would be lost with a reset.
            while self.read(&mut [0; 1024]).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(REFUSAL, refused).await;
    }

    /// Waits until it says something of the protocol's.
    async fn first_words(mut self) -> Option<Self> {
        let mut words = vec![0; 1024];
        let read = timeout(SILENCE, self.stream.read(&mut words)).await;
        words.truncate(read.ok()?.ok()?);
        let is_protocol = matches!(words.first(), Some(b'$' | b'+' | b'-' | 0x03));
        self.words = words;
        is_protocol.then_some(self)
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.words.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = buffer.remaining().min(self.words.len());
        buffer.put_slice(&self.words[..length]);
        self.words.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Socket {
    /// Whoever connects next, or why it is not let in.
    async fn accept(&self) -> io::Result<Result<Visitor, Stranger>> {
        let (stream, owner): (Box<dyn Stream>, _) = match self {
            Self::Tcp(listener, address) => {
                let (stream, from) = listener.accept().await?;
                // A debugger's packets are small, and each waits for the one before it.
                stream.set_nodelay(true)?;
                let owner = match is_checked(*address) {
                    true => owner(from, stream.local_addr()?),
                    false => Ok(None),
                };
                (Box::new(stream), owner)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let owner = stream.peer_cred()?;
                let pid = owner.pid().map(i32::cast_unsigned);
                (Box::new(stream), let_in(owner.uid(), pid))
            }
        };
        Ok(owner.map(|pid| Visitor {
            stream,
            words: Vec::new(),
            pid,
        }))
    }
}

/// Whether the system tells who connects to it. Elsewhere it is as open as every debugger's port.
fn is_checked(address: SocketAddr) -> bool {
    cfg!(target_os = "linux") && address.ip().to_canonical().is_loopback()
}

/// The process at the other end of a loopback connection, if it is let in.
fn owner(from: SocketAddr, to: SocketAddr) -> Result<Option<u32>, Stranger> {
    let owner = caller(from, to).map_err(Stranger::Unknown)?;
    let owner = owner.ok_or(Stranger::Gone)?;
    let_in(owner.user, owner.pid)
}

fn let_in(user: u32, pid: Option<u32>) -> Result<Option<u32>, Stranger> {
    match user == 0 || user == getuid().as_raw() {
        true => Ok(pid),
        false => Err(Stranger::OtherUser(user)),
    }
}

fn bind_tcp(address: SocketAddr) -> Result<(Socket, StubAddress), DebugError> {
    let bound = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        Ok((Socket::Tcp(listener, address), StubAddress::Tcp(address)))
    };
    bound().map_err(|error| DebugError::Listen {
        address: address.to_string(),
        error,
    })
}

fn bind_unix(path: &Path, folder: Option<TempDir>) -> io::Result<(Socket, StubAddress)> {
    let listener = UnixListener::bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path),
        _folder: folder,
    };
    let address = StubAddress::Unix(path.to_owned());
    Ok((Socket::Unix(listener, file), address))
}

/// A folder that nobody else can enter.
pub(super) fn private_folder() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("qemu-controller-gdb-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
}

/// A socket's file, which is removed unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    /// Goes after the file.
    _folder: Option<TempDir>,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use rustix::thread::set_thread_uid;

    use super::*;

    const OTHER: u32 = 65534;

    fn connect(address: &StubAddress) -> Box<dyn io::Write + Send> {
        match address {
            StubAddress::Tcp(address) => Box::new(TcpStream::connect(address).unwrap()),
            StubAddress::Unix(path) => Box::new(UnixStream::connect(path).unwrap()),
            other => panic!("{other}"),
        }
    }

    fn listeners() -> [DebuggerListener; 2] {
        [Endpoint::free_port(), Endpoint::PrivateSocket]
            .map(|at| DebuggerListener::bind(&at).unwrap())
    }

    #[tokio::test]
    async fn the_user_s_own_are_let_in_and_the_silent_hold_nobody_up() {
        for mut listener in listeners() {
            let address = listener.address().clone();
            let silent: Vec<_> = (1..SILENT).map(|_| connect(&address)).collect();
            let mut page = connect(&address);
            page.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut debugger = connect(&address);
            debugger.write_all(b"+$?#3f").unwrap();
            let mut visitor = timeout(SILENCE / 2, listener.next())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(visitor.pid(), Some(std::process::id()));
            let mut said = [0; 6];
            visitor.read_exact(&mut said[..1]).await.unwrap();
            visitor.read_exact(&mut said[1..]).await.unwrap();
            assert_eq!(&said, b"+$?#3f");
            drop(silent);
        }
    }

    #[tokio::test]
    async fn one_that_is_refused_reads_why() {
        let [mut listener, _] = listeners();
        let StubAddress::Tcp(address) = *listener.address() else {
            panic!("{listener:?}")
        };
        let mut second = TcpStream::connect(address).unwrap();
        second.write_all(b"$?#3f").unwrap();
        let visitor = listener.next().await.unwrap();
        let reader = thread::spawn(move || {
            let mut answer = String::new();
            second.read_to_string(&mut answer).unwrap();
            answer
        });
        visitor.refuse("one is here").await;
        assert!(reader.join().unwrap().starts_with("+$E.one is here#"));
    }

    #[tokio::test]
    async fn another_user_is_a_stranger() {
        assert!(let_in(0, None).is_ok());
        assert!(let_in(getuid().as_raw(), None).is_ok());
        let other = getuid().as_raw().wrapping_add(1);
        assert!(matches!(let_in(other, None), Err(Stranger::OtherUser(user)) if user == other));
        // Only root can be somebody else.
        if !getuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("gdb.sock");
        for at in [Endpoint::free_port(), Endpoint::Socket(path.clone())] {
            let mut listener = DebuggerListener::bind(&at).unwrap();
            if path.exists() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            }
            let address = listener.address().clone();
            let stranger = thread::spawn(move || {
                // Of this thread alone.
                set_thread_uid(rustix::process::Uid::from_raw(OTHER)).unwrap();
                connect(&address)
            });
            let refused = listener.next().await.unwrap_err();
            assert!(matches!(refused, Stranger::OtherUser(OTHER)), "{refused}");
            drop(stranger.join().unwrap());
        }
    }
}
