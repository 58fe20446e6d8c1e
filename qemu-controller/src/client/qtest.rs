//! QEMU's own test protocol, a line of text a request: the way to the guest's memory and to the
//! registers of its devices that does not stop it. It is there only in a QEMU that was started with
//! it, on a socket pair of its own.

#[cfg(feature = "rtt")]
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

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

/// Our end of the protocol's socket.
#[derive(Debug, Clone)]
pub(crate) struct Qtest(Arc<Mutex<BufReader<UnixStream>>>);

impl Qtest {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(BufReader::new(stream))))
    }

    /// Requests and an answer to each, in a task of their own on the session's runtime: dropped
    /// half-way, or with the caller's runtime, the next one would get this one's answer. The answer
    /// is what follows `OK`.
    pub(crate) async fn request(
        &self,
        runtime: &Handle,
        lines: Vec<String>,
    ) -> io::Result<Vec<String>> {
        let stream = Arc::clone(&self.0);
        let exchange = runtime.spawn(async move {
            let mut stream = stream.lock().await;
            let mut answers = Vec::with_capacity(lines.len());
            for lines in lines.chunks(PIPELINED) {
                stream.write_all(lines.concat().as_bytes()).await?;
                for _ in lines {
                    let mut answer = String::new();
                    if stream.read_line(&mut answer).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    answers.push(answer);
                }
            }
            // Only now: what is left unread would be taken for the next one's answers.
            answers.iter().map(|answer| value(answer)).collect()
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

/// What follows the `OK`.
fn value(answer: &str) -> io::Result<String> {
    let answer = answer.trim_end();
    let value = answer
        .strip_prefix("OK")
        .map(|value| value.trim().to_owned());
    value.ok_or_else(|| io::Error::other(format!("QEMU answered {answer:?}")))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

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
