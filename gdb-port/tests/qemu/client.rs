//! A debugger's connection, reduced to attaching and detaching.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gdb_port::StubAddress;

use test_support::PATIENCE;
use test_support::machine::Machine;

/// Where its stub listens.
pub(crate) fn address(machine: &Machine) -> StubAddress {
    machine.endpoint.parse().unwrap()
}

pub(crate) trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// An attached client. Dropped, it closes without a word, and the guest stays stopped.
pub(crate) struct Client(Box<dyn Connection>);

impl Client {
    /// Connects, without waiting until it is accepted.
    pub(crate) fn connect(endpoint: &StubAddress) -> Self {
        match endpoint {
            StubAddress::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, Duration::from_secs(5)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Self(Box::new(stream))
            }
            StubAddress::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Self(Box::new(stream))
            }
            other => panic!("no client for {other}"),
        }
    }

    /// Connects and waits until QEMU has it.
    pub(crate) fn attach(machine: &mut Machine) -> Self {
        let client = Self::connect(&address(machine));
        machine.await_attached(true);
        client
    }

    /// Sends a packet as it stands and waits for something that ends with `reply`.
    pub(crate) fn ask(&mut self, packet: &str, reply: &str) {
        self.0.write_all(packet.as_bytes()).unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(reply.as_bytes()) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            heard.push(byte[0]);
        }
    }

    /// Agrees to `multiprocess+`, as gdb does; QEMU remembers it for every later client.
    pub(crate) fn agree_multiprocess(&mut self) {
        self.ask("+$qSupported:multiprocess+#c6", "multiprocess+#");
    }

    /// Detaches in the form that QEMU takes always, so that the guest runs on, and closes.
    pub(crate) fn detach(mut self) {
        self.ask("+$D;1#b0", "$OK#9a");
    }
}
