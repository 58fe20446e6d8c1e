//! Where a real debugger connects to this program.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gdb_port::StubAddress;
use qemu_launch::Endpoint;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::error::DebugError;

/// Somebody who has connected.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub(super) type Peer = Box<dyn Stream>;

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removes it when it is dropped")] SocketFile,
    ),
}

/// A socket's file, which is removed unless another has taken its place.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    /// Goes after the file.
    _folder: Option<TempDir>,
}

impl Listener {
    /// Listens there.
    pub(super) fn bind(at: &Endpoint) -> Result<(Self, StubAddress), DebugError> {
        let refused = |address: String| move |error| DebugError::Listen { address, error };
        match at {
            Endpoint::Loopback { port } => Self::bind_tcp((Ipv4Addr::LOCALHOST, *port).into()),
            Endpoint::Exposed(address) => Self::bind_tcp(*address),
            Endpoint::Socket(path) => {
                Self::bind_unix(path, None).map_err(refused(path.display().to_string()))
            }
            // There is nobody who could inherit it.
            _ => {
                let folder = private_folder();
                let folder = folder.map_err(refused("a private folder".to_owned()))?;
                let path = folder.path().join("gdb.sock");
                let address = path.display().to_string();
                Self::bind_unix(&path, Some(folder)).map_err(refused(address))
            }
        }
    }

    fn bind_tcp(address: SocketAddr) -> Result<(Self, StubAddress), DebugError> {
        let bound = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let listener = TcpListener::from_std(listener)?;
            Ok((Self::Tcp(listener), StubAddress::Tcp(address)))
        };
        bound().map_err(|error| DebugError::Listen {
            address: address.to_string(),
            error,
        })
    }

    fn bind_unix(path: &Path, folder: Option<TempDir>) -> io::Result<(Self, StubAddress)> {
        let listener = UnixListener::bind(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path),
            _folder: folder,
        };
        let address = StubAddress::Unix(path.to_owned());
        Ok((Self::Unix(listener, file), address))
    }

    /// The next who connects.
    pub(super) async fn accept(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(listener) => {
                let (peer, _) = listener.accept().await?;
                // A debugger's packets are small, and each waits for the one before it.
                peer.set_nodelay(true)?;
                Ok(Box::new(peer))
            }
            Self::Unix(listener, ..) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// A folder that nobody else can enter.
pub(super) fn private_folder() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("qemu-controller-gdb-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
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
