//! Where a GDB stub listens: an address, a unix socket, or what QEMU's `query-chardev` says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::ParseAddressError;

/// Where a GDB stub listens.
///
/// Reads and prints as `127.0.0.1:1234`, `[::1]:1234` or `unix:/run/gdb.sock`; a prefix `tcp:` and
/// a bare path with a slash are read too. Host names are not: no name server is asked.
///
/// ```
/// use gdb_port::StubAddress;
///
/// let endpoint: StubAddress = "127.0.0.1:1234".parse()?;
/// assert_eq!(endpoint.to_string(), "127.0.0.1:1234");
/// assert!("unix:/tmp/gdb.sock".parse::<StubAddress>().is_ok());
/// assert!("localhost:1234".parse::<StubAddress>().is_err());
/// # Ok::<(), gdb_port::ParseAddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StubAddress {
    /// A TCP address, v4 or v6.
    Tcp(SocketAddr),
    /// A unix stream socket, by its path in the file system.
    Unix(PathBuf),
}

impl StubAddress {
    /// Whether a connection to it stays on this host for certain: a unix socket or a loopback
    /// address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for StubAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for StubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for StubAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |why: String| Err(ParseAddressError(why));
        let malformed =
            format!("'{text}' is no endpoint: write ADDRESS:PORT, [V6ADDRESS]:PORT, or unix:PATH");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.contains('\0') {
                refused(malformed)
            } else {
                Ok(Self::Unix(PathBuf::from(path)))
            };
        }
        let address = text.strip_prefix("tcp:").unwrap_or(text);
        if let Ok(address) = address.parse::<SocketAddr>() {
            return match address.port() {
                0 => refused(format!(
                    "port 0 in '{text}' is a request for any port: write the port the stub really got"
                )),
                _ => Ok(Self::Tcp(address)),
            };
        }
        if text.contains('/') && !text.contains('\0') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let names_a_host = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains(':')
        });
        refused(if names_a_host {
            format!("'{text}' names a host: write its numeric address, for example 127.0.0.1:1234")
        } else {
            malformed
        })
    }
}

/// What QEMU's `query-chardev` says of the stub's own chardev: the look that works on every
/// platform.
///
/// Read from the field `filename` of the entry whose `label` is `gdb`, as QEMU 7.2 and 10.0 print
/// it:
///
/// ```
/// use gdb_port::Chardev;
///
/// let free = Chardev::parse("disconnected:tcp:127.0.0.1:45277,server=on").expect("a socket that listens");
/// assert!(!free.attached);
/// let held = Chardev::parse("tcp:127.0.0.1:45277,server=on <-> 127.0.0.1:37518").expect("a socket that listens");
/// assert!(held.attached);
/// assert_eq!(free.endpoint, held.endpoint);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chardev {
    /// Where to connect. A wildcard address (`0.0.0.0`, `::`) has become the loopback address.
    pub endpoint: StubAddress,
    /// Whether a client is attached now.
    pub attached: bool,
}

impl Chardev {
    /// Reads a chardev's `filename`; `None` when it is no listening TCP or unix socket.
    #[must_use]
    pub fn parse(filename: &str) -> Option<Self> {
        let (rest, attached) = match filename.strip_prefix("disconnected:") {
            Some(rest) => (rest, false),
            None => (filename, true),
        };
        if let Some(path) = rest.strip_prefix("unix:") {
            let path = path
                .strip_suffix(",server=on")
                .or_else(|| path.strip_suffix(",server"))?;
            return (!path.is_empty()).then(|| Self {
                endpoint: StubAddress::Unix(path.into()),
                attached,
            });
        }
        let rest = rest.strip_prefix("tcp:")?;
        let listening = rest
            .split_once(" <-> ")
            .map_or(rest, |(listening, _)| listening);
        let address = listening
            .strip_suffix(",server=on")
            .or_else(|| listening.strip_suffix(",server"))?;
        let (host, port) = address.rsplit_once(':')?;
        // QEMU writes brackets around a v6 address only while a client is attached (7.2).
        let host: IpAddr = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()?;
        let mut address = SocketAddr::new(host, port.parse().ok()?);
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        (address.port() != 0).then_some(Self {
            endpoint: StubAddress::Tcp(address),
            attached,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_print_as_they_read() {
        for text in [
            "127.0.0.1:1234",
            "[::1]:1",
            "unix:/tmp/a b,c:1.sock",
            "10.0.0.7:65535",
        ] {
            let endpoint: StubAddress = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        assert_eq!(
            "tcp:127.0.0.1:9".parse::<StubAddress>(),
            "127.0.0.1:9".parse()
        );
        assert_eq!(
            "/run/x.sock".parse(),
            Ok(StubAddress::Unix("/run/x.sock".into()))
        );
    }

    #[test]
    fn what_is_no_endpoint_says_why() {
        for (text, why) in [
            ("localhost:1234", "names a host"),
            ("127.0.0.1:0", "is a request for any port"),
            ("127.0.0.1:65536", "is no endpoint"),
            ("", "is no endpoint"),
            (":1234", "is no endpoint"),
            ("1234", "is no endpoint"),
            ("127.0.0.1", "is no endpoint"),
            ("::1:1234x", "is no endpoint"),
            ("unix:", "is no endpoint"),
            ("a/\0", "is no endpoint"),
        ] {
            let error = text.parse::<StubAddress>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn chardevs_that_listen_are_read_and_others_are_not() {
        let check = |text: &str, endpoint: &str, attached: bool| {
            let chardev = Chardev::parse(text).unwrap();
            assert_eq!(
                (chardev.endpoint.to_string().as_str(), chardev.attached),
                (endpoint, attached),
                "{text}"
            );
        };
        check(
            "disconnected:unix:/tmp/a,server=on.sock,server=on",
            "unix:/tmp/a,server=on.sock",
            false,
        );
        check("unix:/tmp/g.sock,server=on", "unix:/tmp/g.sock", true);
        check(
            "disconnected:tcp:0.0.0.0:32933,server=on",
            "127.0.0.1:32933",
            false,
        );
        check(
            "disconnected:tcp:[::]:32933,server=on",
            "[::1]:32933",
            false,
        );
        check("tcp:[::1]:5,server=on <-> [::1]:6", "[::1]:5", true);
        check("disconnected:tcp:::1:40311,server=on", "[::1]:40311", false);
        for text in [
            "",
            "gdb",
            "null",
            "unix:",
            "pty:/dev/pts/1",
            "tcp:127.0.0.1:5 <-> 127.0.0.1:6",
            "tcp:,server=on",
        ] {
            assert_eq!(Chardev::parse(text), None, "{text}");
        }
    }
}
