//! GDB's remote protocol by hand: packets as written down, and nothing is checked.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peers::tokio_stream;

/// What is read at once.
const CHUNK: usize = 16 * 1024;

/// A stream that blocks ([`UnixStream`]), or tokio's.
pub struct Stub<S = UnixStream> {
    stream: S,
    read: Vec<u8>,
}

impl<S> Stub<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Whether what was read ends a packet.
    fn is_whole(&self) -> bool {
        matches!(self.read[..], [.., b'#', _, _])
    }

    /// What the packet holds.
    fn payload(&self) -> &[u8] {
        let begin = self.read.iter().position(|&byte| byte == b'$');
        let end = self.read.len() - 3;
        &self.read[begin.map_or(end, |begin| begin + 1)..end]
    }
}

impl Stub {
    /// Sends a packet, and waits for one: what it holds. The next packet acknowledges it.
    pub fn ask(&mut self, packet: &str) -> Result<&[u8]> {
        self.stream.write_all(framed(packet).as_bytes())?;
        self.read.clear();
        while !self.is_whole() {
            let mut chunk = [0; CHUNK];
            let length = self.stream.read(&mut chunk)?;
            ensure!(length > 0, "the stub has gone");
            self.read.extend_from_slice(&chunk[..length]);
        }
        Ok(self.payload())
    }

    /// In a runtime.
    pub fn into_tokio(self) -> Result<Stub<tokio::net::UnixStream>> {
        Ok(Stub::new(tokio_stream(self.stream)?))
    }
}

impl Stub<tokio::net::UnixStream> {
    /// As the blocking one does.
    pub async fn ask(&mut self, packet: &str) -> Result<()> {
        self.stream.write_all(framed(packet).as_bytes()).await?;
        self.read.clear();
        while !self.is_whole() {
            let mut chunk = [0; CHUNK];
            let length = self.stream.read(&mut chunk).await?;
            ensure!(length > 0, "the stub has gone");
            self.read.extend_from_slice(&chunk[..length]);
        }
        Ok(())
    }
}

fn framed(packet: &str) -> String {
    let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
    format!("${packet}#{sum:02x}")
}
