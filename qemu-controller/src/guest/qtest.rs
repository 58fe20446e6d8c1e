//! Writing the guest's memory while it runs, over QEMU's own test protocol.
//!
//! No monitor command writes memory, and a GDB stub stops the guest. The protocol `qtest`, a line
//! of text a request, does neither. It is there only in a QEMU that was started with it, on a
//! socket pair of its own.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::CommandError;
use crate::guest::memory::{Location, MemoryError};
use crate::session::Session;

/// How many bytes one request writes.
const CHUNK: usize = 4096;

/// How many short requests are sent before their answers are read: both fit into a socket.
const PIPELINED: usize = 64;

/// A device's register in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) address: u64,
    /// 1, 2, 4 or 8 bytes.
    pub(crate) size: u8,
}

impl Register {
    /// The letter that the protocol has for its size.
    fn letter(self) -> char {
        match self.size {
            1 => 'b',
            2 => 'w',
            4 => 'l',
            _ => 'q',
        }
    }
}

/// What is to be written to physical memory.
#[cfg(feature = "rtt")]
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Bytes(u64, Vec<u8>),
    /// Four bytes in the guest's order, at once.
    Word(u64, u32),
}

#[cfg(feature = "rtt")]
impl Write {
    fn line(&self) -> String {
        match self {
            Self::Word(at, value) => format!("writel {at:#x} {value:#x}\n"),
            Self::Bytes(at, bytes) => {
                let mut line = format!("write {at:#x} {:#x} 0x", bytes.len());
                bytes.iter().for_each(|byte| {
                    // A `String` takes all that is written to it.
                    let _ = write!(line, "{byte:02x}");
                });
                line.push('\n');
                line
            }
        }
    }
}

/// The way to write memory.
#[derive(Debug, Clone)]
pub(crate) struct Qtest(Arc<Mutex<BufReader<UnixStream>>>);

impl Qtest {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(BufReader::new(stream))))
    }

    /// Requests and an answer to each, in a task of their own on the session's runtime: dropped
    /// half-way, or with the caller's runtime, the next one would get this one's answer. The answer
    /// is what follows `OK`.
    async fn request(&self, runtime: &Handle, lines: Vec<String>) -> io::Result<Vec<String>> {
        let stream = Arc::clone(&self.0);
        let exchange = runtime.spawn(async move {
            let mut stream = stream.lock().await;
            let mut answers = Vec::with_capacity(lines.len());
            for lines in lines.chunks(PIPELINED) {
                stream.write_all(lines.concat().as_bytes()).await?;
                for _ in lines {
                    let mut answer = String::new();
                    stream.read_line(&mut answer).await?;
                    match answer.trim_end().strip_prefix("OK") {
                        Some(value) => answers.push(value.trim().to_owned()),
                        None if answer.is_empty() => {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        None => return Err(io::Error::other(format!("QEMU answered {answer:?}"))),
                    }
                }
            }
            Ok(answers)
        });
        exchange
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Reads registers in this order.
    pub(crate) async fn read(
        &self,
        runtime: &Handle,
        registers: &[Register],
    ) -> io::Result<Vec<u64>> {
        let line =
            |register: &Register| format!("read{} {:#x}\n", register.letter(), register.address);
        let lines = registers.iter().map(line).collect();
        let answers = self.request(runtime, lines).await?;
        answers.iter().map(|answer| number(answer)).collect()
    }

    /// Reads pieces of physical memory, by address and length, and then writes; in one exchange.
    #[cfg(feature = "rtt")]
    pub(crate) async fn exchange(
        &self,
        runtime: &Handle,
        reads: &[(u64, u64)],
        writes: &[Write],
    ) -> io::Result<Vec<Vec<u8>>> {
        let reading = reads
            .iter()
            .map(|(at, length)| format!("read {at:#x} {length:#x}\n"));
        let lines = reading.chain(writes.iter().map(Write::line)).collect();
        let answers = self.request(runtime, lines).await?;
        answers[..reads.len()]
            .iter()
            .zip(reads)
            .map(|(answer, (_, length))| {
                let bytes = bytes(answer).filter(|bytes| bytes.len() as u64 == *length);
                bytes.ok_or_else(|| io::Error::other("QEMU answered with other bytes"))
            })
            .collect()
    }

    /// Writes registers in this order.
    pub(crate) async fn write(
        &self,
        runtime: &Handle,
        values: &[(Register, u64)],
    ) -> io::Result<()> {
        let line = |(register, value): &(Register, u64)| {
            let letter = register.letter();
            format!("write{letter} {:#x} {value:#x}\n", register.address)
        };
        let lines = values.iter().map(line).collect();
        self.request(runtime, lines).await.map(drop)
    }
}

/// `0x00ff`: each byte as two digits.
#[cfg(feature = "rtt")]
fn bytes(answer: &str) -> Option<Vec<u8>> {
    let digits = answer.strip_prefix("0x")?.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// `0x0000000000001234`.
fn number(answer: &str) -> io::Result<u64> {
    let digits = answer.strip_prefix("0x").unwrap_or(answer);
    u64::from_str_radix(digits, 16)
        .map_err(|_| io::Error::other(format!("QEMU answered {answer:?}, which is no number")))
}

impl Session {
    /// Writes the guest's memory, by symbol or by physical address, without stopping the guest.
    /// It takes a session that has started its QEMU.
    ///
    /// The guest may see a long piece half written, or have read what was there before and store
    /// over what is written; [`pause`](Self::pause) it where that matters. What was there is read
    /// before and after, to tell memory from what is none; so this is not for the registers of
    /// devices. Code that the guest has run is translated again.
    ///
    /// # Errors
    /// [`MemoryError`]: [`NotWritable`](MemoryError::NotWritable) where the session was attached, [`ReadOnly`](MemoryError::ReadOnly) where it did not change, such as flash. What
    /// lay before the place that failed may be written.
    pub async fn write_memory<'a>(
        &self,
        to: impl Into<Location<'a>>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<(), MemoryError> {
        let bytes = bytes.as_ref();
        let qtest = self.inner.qtest.as_ref().ok_or(MemoryError::NotWritable)?;
        // A load between the write and the look at its effect would pass for read-only memory.
        let _turn = self
            .inner
            .shared
            .take_turn("write memory", self.deadline.into())
            .await?;
        let mut address = self.address(to.into()).await?;
        let before = self.read_memory(address, bytes.len() as u64).await?;
        for (chunk, before) in bytes.chunks(CHUNK).zip(before.chunks(CHUNK)) {
            let mut line = format!("write {address:#x} {:#x} 0x", chunk.len());
            chunk.iter().for_each(|byte| {
                let _ = write!(line, "{byte:02x}");
            });
            line.push('\n');
            let (request, deadline) = (
                qtest.request(&self.inner.shared.runtime, vec![line]),
                self.deadline,
            );
            let written = timeout(deadline, request)
                .await
                .map_err(|_| MemoryError::WriteDeadline { deadline })?;
            if let Err(error) = written {
                return Err(self.broken_off(error).await);
            }
            let after = self.read_memory(address, chunk.len() as u64).await?;
            if after == before && after != chunk {
                return Err(MemoryError::ReadOnly { address });
            }
            address += chunk.len() as u64;
        }
        Ok(())
    }

    /// The channel ends with QEMU; how that ended is the session's to say.
    async fn broken_off(&self, error: io::Error) -> MemoryError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            && let Ok(ended) = timeout(self.deadline, self.inner.shared.end()).await
        {
            return CommandError::Ended {
                command: "write memory".to_owned(),
                ended,
            }
            .into();
        }
        MemoryError::Failed {
            message: format!("the channel to write memory by failed: {error}"),
        }
    }

    /// Writes one byte, as [`write_memory`](Self::write_memory) does.
    ///
    /// # Errors
    /// As there.
    pub async fn write_u8<'a>(
        &self,
        to: impl Into<Location<'a>>,
        value: u8,
    ) -> Result<(), MemoryError> {
        self.write_memory(to, [value]).await
    }

    /// Writes two bytes as a number in the guest's byte order, as
    /// [`write_memory`](Self::write_memory) does.
    ///
    /// # Errors
    /// As there.
    pub async fn write_u16<'a>(
        &self,
        to: impl Into<Location<'a>>,
        value: u16,
    ) -> Result<(), MemoryError> {
        self.write_number(to.into(), value.into(), 2).await
    }

    /// Writes four bytes as a number in the guest's byte order, as
    /// [`write_memory`](Self::write_memory) does.
    ///
    /// # Errors
    /// As there.
    pub async fn write_u32<'a>(
        &self,
        to: impl Into<Location<'a>>,
        value: u32,
    ) -> Result<(), MemoryError> {
        self.write_number(to.into(), value.into(), 4).await
    }

    /// Writes eight bytes as a number in the guest's byte order, as
    /// [`write_memory`](Self::write_memory) does.
    ///
    /// # Errors
    /// As there.
    pub async fn write_u64<'a>(
        &self,
        to: impl Into<Location<'a>>,
        value: u64,
    ) -> Result<(), MemoryError> {
        self.write_number(to.into(), value, 8).await
    }

    /// The last so many bytes of a number, which is 2, 4 or 8.
    async fn write_number(
        &self,
        to: Location<'_>,
        value: u64,
        size: usize,
    ) -> Result<(), MemoryError> {
        let bytes = if self.is_big_endian(to).await? {
            value.to_be_bytes()[8 - size..].to_vec()
        } else {
            value.to_le_bytes()[..size].to_vec()
        };
        self.write_memory(to, bytes).await
    }

    /// The guest's byte order: that of its firmware, or else as QEMU reads what is there.
    async fn is_big_endian(&self, at: Location<'_>) -> Result<bool, MemoryError> {
        let file = self.ask_firmware(|firmware| firmware.is_little_endian());
        if let Ok(is_little_endian) = file.await {
            return Ok(!is_little_endian);
        }
        let bytes = self.read_memory(at, 2).await?;
        let read = self.read_u16(at).await?.to_be_bytes();
        Ok(bytes[0] != bytes[1] && *bytes == read)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_request_outlives_its_callers_runtime() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qtest, session) = (Qtest::new(ours), Handle::current());
        let (first, runtime) = (qtest.clone(), session.clone());
        let left = tokio::task::spawn_blocking(move || {
            let caller = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let request = first.request(&runtime, vec!["first\n".to_owned()]);
            caller.block_on(async { timeout(Duration::from_millis(10), request).await.is_err() })
        });
        assert!(left.await.unwrap(), "nobody has answered");
        let answer = async {
            let mut theirs = BufReader::new(theirs);
            for (asked, answer) in [("first\n", "FAIL\n"), ("second\n", "OK\n")] {
                let mut line = String::new();
                theirs.read_line(&mut line).await.unwrap();
                assert_eq!(line, asked);
                theirs.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let (second, ()) =
            tokio::join!(qtest.request(&session, vec!["second\n".to_owned()]), answer);
        assert_eq!(second.unwrap(), [""]);
    }
}
