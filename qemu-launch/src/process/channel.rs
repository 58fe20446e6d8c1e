//! The channels of a machine: their ids, their addresses, and the options that make them.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::argv::Args;
use crate::argv::option::{self, OptionList};
use crate::error::SpecError;
use crate::spec::MachineSpec;
use crate::spec::device::{Backend, Display, Monitor};
use crate::spec::endpoint::{Address, Endpoint};
use crate::spec::incoming::INCOMING;

/// The channel of the VNC display.
const VNC: &str = "vnc";
/// Where VNC's displays are counted from.
const VNC_PORT: u16 = 5900;

/// `sun_path` holds 108 bytes with its NUL on Linux, 104 elsewhere.
pub(crate) const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A character device that can be reached, and where.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) id: String,
    pub(crate) address: Address,
}

/// All character devices of a machine, in the order in which QEMU gets them.
#[derive(Debug)]
pub(crate) struct Channels {
    devices: Vec<(String, Resolved)>,
}

#[derive(Debug)]
enum Resolved {
    Address(Address),
    File { path: PathBuf, append: bool },
    RingBuffer { size: u32 },
    Null,
}

impl Channels {
    /// Resolves every endpoint: sockets into `folder`, inherited channels to the descriptors given,
    /// in order.
    pub(crate) fn of(
        spec: &MachineSpec,
        folder: &Path,
        mut descriptors: impl Iterator<Item = i32>,
    ) -> Result<Self, SpecError> {
        let wanted = wanted(spec);
        for (id, _) in &spec.chardevs {
            option::id("chardev", id)?;
        }
        let log = spec.log.as_ref().and_then(|log| log.file.as_deref());
        refuse_shared(&wanted, log)?;
        let devices = wanted
            .into_iter()
            .map(|(id, backend)| Ok((id.clone(), resolve(&id, backend, folder, &mut descriptors)?)))
            .collect::<Result<_, SpecError>>()?;
        Ok(Self { devices })
    }

    /// Writes `-chardev` for each device, and then who uses it.
    pub(crate) fn write(&self, spec: &MachineSpec, args: &mut Args) -> Result<(), SpecError> {
        for (id, resolved) in &self.devices {
            if !is_no_chardev(spec, id) {
                args.pair("-chardev", chardev(id, resolved)?);
            }
        }
        if spec.incoming {
            args.pair("-incoming", "defer");
        }
        if spec.qmp.is_some() {
            args.pair("-mon", mon("qmp", "control"));
        }
        for (n, monitor) in spec.monitors.iter().enumerate() {
            let mode = if matches!(monitor, Monitor::Qmp(_)) {
                "control"
            } else {
                "readline"
            };
            args.pair("-mon", mon(&format!("monitor{n}"), mode));
        }
        if spec.gdb.is_some() {
            args.pair("-gdb", "chardev:gdb");
        }
        for n in 0..spec.serials.len() {
            args.pair("-serial", format!("chardev:serial{n}"));
        }
        Ok(())
    }

    /// The value of `-display`.
    pub(crate) fn display(&self, spec: &MachineSpec) -> Result<OsString, SpecError> {
        let address = match &spec.display {
            Display::None => return Ok("none".into()),
            Display::Raw(words) => return Ok(option::value("display", words)?.to_owned()),
            Display::Vnc(_) => self.devices.iter().find(|(id, _)| id == VNC),
        };
        match address {
            Some((_, Resolved::Address(Address::Socket(path)))) => {
                let mut at = OsString::from("unix:");
                at.push(path);
                Ok(OptionList::empty().with("vnc", at).finish())
            }
            Some((_, Resolved::Address(Address::Tcp(address)))) if address.port() >= VNC_PORT => {
                let ip = match address {
                    SocketAddr::V4(address) => address.ip().to_string(),
                    SocketAddr::V6(address) => format!("[{}]", address.ip()),
                };
                let at = format!("{ip}:{}", address.port() - VNC_PORT);
                Ok(OptionList::empty().with("vnc", at).finish())
            }
            _ => Err(SpecError::Invalid {
                what: "display",
                message: format!(
                    "a VNC display needs a unix socket, or a TCP port of {VNC_PORT} or above"
                ),
            }),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Channel> {
        self.devices
            .into_iter()
            .filter_map(|(id, resolved)| match resolved {
                Resolved::Address(address) => Some(Channel { id, address }),
                _ => None,
            })
            .collect()
    }
}

/// Whether it is a channel that no `-chardev` makes.
fn is_no_chardev(spec: &MachineSpec, id: &str) -> bool {
    (spec.incoming && id == INCOMING) || (matches!(spec.display, Display::Vnc(_)) && id == VNC)
}

/// How many descriptors QEMU has to inherit.
pub(crate) fn count_inherited(spec: &MachineSpec) -> usize {
    let inherited = |backend: &Backend| *backend == Backend::Endpoint(Endpoint::Inherited);
    wanted(spec)
        .iter()
        .filter(|(_, backend)| inherited(backend))
        .count()
}

/// Whether a private folder is needed.
pub(crate) fn wants_folder(spec: &MachineSpec) -> bool {
    wanted(spec)
        .iter()
        .any(|(_, backend)| *backend == Backend::Endpoint(Endpoint::PrivateSocket))
}

/// Every character device under its id.
fn wanted(spec: &MachineSpec) -> Vec<(String, Backend)> {
    let mut wanted: Vec<(String, Backend)> = Vec::new();
    wanted.extend(
        spec.qmp
            .iter()
            .map(|endpoint| ("qmp".to_owned(), endpoint.clone().into())),
    );
    wanted.extend(
        spec.gdb
            .iter()
            .map(|endpoint| ("gdb".to_owned(), endpoint.clone().into())),
    );
    let serials = spec.serials.iter().cloned().enumerate();
    wanted.extend(serials.map(|(n, backend)| (format!("serial{n}"), backend)));
    let monitors = spec.monitors.iter().enumerate();
    wanted.extend(
        monitors.map(|(n, monitor)| (format!("monitor{n}"), monitor.endpoint().clone().into())),
    );
    wanted.extend(spec.chardevs.iter().cloned());
    if let Display::Vnc(endpoint) = &spec.display {
        wanted.push((VNC.to_owned(), endpoint.clone().into()));
    }
    // No character device, but QEMU inherits it as one.
    wanted.extend(
        spec.incoming
            .then(|| (INCOMING.to_owned(), Endpoint::Inherited.into())),
    );
    wanted
}

fn mon(chardev: &str, mode: &str) -> OsString {
    OptionList::empty()
        .with("chardev", chardev)
        .with("mode", mode)
        .finish()
}

/// Something that only one device can have.
#[derive(Debug, PartialEq, Eq)]
enum EndpointKey<'a> {
    Id(&'a str),
    /// A socket's or a file's.
    Path(PathBuf),
    Port(SocketAddr),
}

impl EndpointKey<'_> {
    fn at(path: &Path) -> Self {
        Self::Path(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    fn of(backend: &Backend) -> Option<Self> {
        match backend {
            Backend::Endpoint(Endpoint::Socket(path)) | Backend::File { path, .. } => {
                Some(Self::at(path))
            }
            Backend::Endpoint(endpoint) => Address::tcp(endpoint)
                .filter(|address| address.port() != 0)
                .map(Self::Port),
            _ => None,
        }
    }

    /// One port on two addresses is two keys, unless one of them is its family's wildcard.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Port(a), Self::Port(b)) => {
                let every = |a: &SocketAddr, b: &SocketAddr| {
                    a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4()
                };
                a.port() == b.port() && (a.ip() == b.ip() || every(a, b) || every(b, a))
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for EndpointKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "the id {id}"),
            Self::Path(path) => path.display().fmt(f),
            Self::Port(address) => write!(f, "TCP port {}", address.port()),
        }
    }
}

/// Two devices of one id, one port, one socket or one file: refused, with both named. The log's
/// file is one as well.
fn refuse_shared(wanted: &[(String, Backend)], log: Option<&Path>) -> Result<(), SpecError> {
    let devices = wanted.iter().flat_map(|(id, backend)| {
        let keys = [Some(EndpointKey::Id(id)), EndpointKey::of(backend)];
        keys.into_iter()
            .flatten()
            .map(move |key| (id.as_str(), key))
    });
    let log = log.map(|path| ("log", EndpointKey::at(path)));
    let mut seen: Vec<(&str, EndpointKey<'_>)> = Vec::new();
    for (id, key) in devices.chain(log) {
        if let Some((first, _)) = seen.iter().find(|(_, known)| known.overlaps(&key)) {
            return Err(SpecError::shared(key, first, id));
        }
        seen.push((id, key));
    }
    Ok(())
}

fn resolve(
    id: &str,
    backend: Backend,
    folder: &Path,
    descriptors: &mut impl Iterator<Item = i32>,
) -> Result<Resolved, SpecError> {
    Ok(match backend {
        Backend::Endpoint(Endpoint::Inherited) => match descriptors.next() {
            Some(fd) => Resolved::Address(Address::Inherited { fd }),
            None => {
                return Err(SpecError::unsupported(id, "inheritance"));
            }
        },
        Backend::Endpoint(Endpoint::PrivateSocket | Endpoint::Socket(_)) if !cfg!(unix) => {
            return Err(SpecError::unsupported(id, "unix socket"));
        }
        Backend::Endpoint(Endpoint::PrivateSocket) => Resolved::Address(Address::Socket(
            socket_path(folder.join(format!("{id}.sock")))?,
        )),
        Backend::Endpoint(Endpoint::Socket(path)) => {
            let path = PathBuf::from(option::path("socket", &path)?);
            Resolved::Address(Address::Socket(socket_path(path)?))
        }
        Backend::Endpoint(endpoint @ (Endpoint::Loopback { .. } | Endpoint::Exposed(_))) => {
            match Address::tcp(&endpoint) {
                Some(address) => Resolved::Address(Address::Tcp(address)),
                None => unreachable!("both are TCP endpoints"),
            }
        }
        Backend::File { path, append } => Resolved::File { path, append },
        Backend::RingBuffer { size } if size.is_power_of_two() => Resolved::RingBuffer { size },
        Backend::RingBuffer { size } => {
            return Err(SpecError::invalid(
                "ring buffer",
                format!("{id} has {size} bytes, which is no power of two"),
            ));
        }
        Backend::Null => Resolved::Null,
    })
}

fn socket_path(path: PathBuf) -> Result<PathBuf, SpecError> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(SpecError::invalid(
            "socket path",
            format!(
                "{} has {length} bytes, and {MAX_SOCKET_PATH} is the most that the system takes",
                path.display()
            ),
        ));
    }
    Ok(path)
}

fn chardev(id: &str, resolved: &Resolved) -> Result<OsString, SpecError> {
    let socket = || OptionList::new("backend", "socket").with("id", id);
    Ok(match resolved {
        Resolved::Address(Address::Inherited { fd }) => socket().with("fd", fd.to_string()),
        // `wait=off`: QEMU itself would block until a client connects.
        Resolved::Address(Address::Socket(path)) => {
            socket().with("path", path).on("server").off("wait")
        }
        // `nodelay`: event and reply are two writes, which Nagle's algorithm turns into 44 ms.
        Resolved::Address(Address::Tcp(address)) => socket()
            .with("host", address.ip().to_string())
            .with("port", address.port().to_string())
            .on("server")
            .off("wait")
            .on("nodelay"),
        Resolved::File { path, append } => {
            let list = OptionList::new("backend", "file")
                .with("id", id)
                .with("path", option::path("serial file", path)?);
            if *append { list.on("append") } else { list }
        }
        Resolved::RingBuffer { size } => OptionList::new("backend", "ringbuf")
            .with("id", id)
            .with("size", size.to_string()),
        Resolved::Null => OptionList::new("backend", "null").with("id", id),
    }
    .finish())
}
