//! Writing the guest's memory while it runs, through the test protocol: no monitor command writes
//! memory, and a GDB stub stops the guest.

use std::fmt::Write as _;
use std::io;

use tokio::time::timeout;

use crate::error::CommandError;
use crate::guest::memory::{Location, MemoryError};
use crate::session::Session;

/// How many bytes one request writes.
const CHUNK: usize = 4096;

impl Session {
    /// Writes the guest's memory, by symbol or by physical address as core 0 has it, without stopping
    /// the guest. It takes a session that has started its QEMU.
    ///
    /// The guest may see a long piece half written, or have read what was there before and store
    /// over what is written; [`pause`](Self::pause) it where that matters. What was there is read
    /// before and after, to tell memory from what is none; so this is not for the registers of
    /// devices. Code that the guest has run is translated again.
    ///
    /// # Errors
    /// [`MemoryError`]: [`NotWritable`](MemoryError::NotWritable) where the session was attached,
    /// [`ReadOnly`](MemoryError::ReadOnly) where it did not change, such as flash. What lay before the
    /// place that failed may be written. A session [of another core](Self::with_core) writes nothing.
    pub async fn write_memory<'a>(
        &self,
        to: impl Into<Location<'a>>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<(), MemoryError> {
        let bytes = bytes.as_ref();
        let qtest = self.inner.qtest.as_ref().ok_or(MemoryError::NotWritable)?;
        if let Some(core @ 1..) = self.core {
            // The test protocol has the first core's memory alone.
            let message = format!(
                "memory is written as core 0 has it while the guest runs; as core {core} has it, a \
                 debugger writes it"
            );
            return Err(MemoryError::Failed { message });
        }
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
