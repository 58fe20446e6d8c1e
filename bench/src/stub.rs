//! GDB's remote protocol by hand: packets as written down, and nothing is checked.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};

pub struct Stub {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Stub {
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends a packet, and waits for one: what it holds. The next packet acknowledges it.
    pub fn ask(&mut self, packet: &str) -> Result<&[u8]> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.stream
            .write_all(format!("${packet}#{sum:02x}").as_bytes())?;
        self.read.clear();
        loop {
            let mut chunk = [0; 16 * 1024];
            let length = self.stream.read(&mut chunk)?;
            ensure!(length > 0, "the stub has gone");
            self.read.extend_from_slice(&chunk[..length]);
            if let [.., b'#', _, _] = self.read[..] {
                let begin = self.read.iter().position(|&byte| byte == b'$');
                let end = self.read.len() - 3;
                return Ok(&self.read[begin.map_or(end, |begin| begin + 1)..end]);
            }
        }
    }
}
