//! One call: which it is, and what it asks for.

use firmware_info::Architecture;
use gdb_remote::target::Target;

use super::HostError;
use crate::debug::{DebugError, Debugger, Registers, ThreadId};

/// So much of one write is read at once; the firmware writes the rest again.
const MOST_WRITTEN: u64 = 64 * 1024;

/// The operations that end the run.
pub(super) const EXIT: u64 = 0x18;
pub(super) const EXIT_EXTENDED: u64 = 0x20;

/// A zero-terminated text is read piece by piece: none crosses the end of a memory.
const PIECE: u64 = 256;

/// A call of the firmware's, which it waits in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The operation's number, as Arm's document on semihosting numbers them.
    pub operation: u64,
    /// The parameter: of most operations the address of a block of words.
    pub parameter: u64,
    /// What it asks for.
    pub request: Request,
    /// The address of the instruction.
    pub(crate) at: u64,
    /// The address of the instruction behind it.
    pub(crate) after: u64,
    /// The core that makes it, where the stub names cores.
    pub(super) thread: Option<ThreadId>,
    /// How that core makes calls.
    pub(super) convention: Convention,
}

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Its command line (`SYS_GET_CMDLINE`).
    CommandLine {
        /// The address of its buffer.
        buffer: u64,
        /// The buffer's size in bytes.
        size: u64,
    },
    /// Its end (`SYS_EXIT`, `SYS_EXIT_EXTENDED`).
    Exit {
        /// The status, as QEMU would exit with it.
        status: u8,
    },
    /// To print this on the console (`SYS_WRITEC`, `SYS_WRITE0`).
    Print(Vec<u8>),
    /// To write this to a file (`SYS_WRITE`). Answered with the number of bytes *not* written.
    Write {
        /// The file's handle.
        handle: u64,
        /// The bytes; of a long write the first 64 KiB.
        bytes: Vec<u8>,
        /// How many it wants to write in all.
        size: u64,
    },
    /// To open a file (`SYS_OPEN`). Answered with a handle, or -1.
    Open {
        /// Its name; `:tt` is the console.
        name: Vec<u8>,
        /// The mode of C's `fopen`: 0 to 3 read, 4 to 7 write, 8 to 11 append.
        mode: u64,
    },
    /// To close a file (`SYS_CLOSE`). Answered with 0, or -1.
    Close {
        /// The file's handle.
        handle: u64,
    },
    /// To read from a file (`SYS_READ`); see [`Host::answer_read`](super::Host::answer_read).
    Read {
        /// The file's handle.
        handle: u64,
        /// Where the bytes go.
        buffer: u64,
        /// How many it has room for.
        size: u64,
    },
    /// To read a byte from the console (`SYS_READC`). Answered with the byte.
    ReadByte,
    /// Whether a file is interactive (`SYS_ISTTY`). Answered with 1 or 0.
    IsTty {
        /// The file's handle.
        handle: u64,
    },
    /// Something else, or parameters that are in no memory.
    Other,
}

/// How an architecture makes its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Convention {
    pub(super) name: &'static str,
    /// That of the files whose code makes them.
    pub(super) architecture: Architecture,
    /// The register with the operation, and later with the result.
    pub(super) result: &'static str,
    parameter: &'static str,
    /// The size of a word in the parameter block.
    pub(super) word: usize,
    pub(super) instructions: &'static [Instruction],
    is_extended: bool,
}

/// The bytes that make a call, in the file's order (little endian, as instructions are).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) bytes: &'static [u8],
    /// Where in these bytes the instruction is that calls, and its size.
    pub(super) at: u64,
    size: u64,
    pub(super) alignment: u64,
}

const fn instruction(bytes: &'static [u8], alignment: u64) -> Instruction {
    Instruction {
        bytes,
        at: 0,
        size: bytes.len() as u64,
        alignment,
    }
}

const M_PROFILE: Convention = Convention {
    name: "Cortex-M (bkpt #0xab)",
    architecture: Architecture::Arm,
    result: "r0",
    parameter: "r1",
    word: 4,
    instructions: &[instruction(&[0xab, 0xbe], 2)],
    is_extended: false,
};

const ARM: Convention = Convention {
    name: "ARM (svc, hlt)",
    instructions: &[
        instruction(&[0x56, 0x34, 0x12, 0xef], 4),
        instruction(&[0x70, 0x00, 0x0f, 0xe1], 4),
        instruction(&[0xab, 0xdf], 2),
        instruction(&[0xbc, 0xba], 2),
    ],
    ..M_PROFILE
};

const AARCH64: Convention = Convention {
    name: "AArch64 (hlt #0xf000)",
    architecture: Architecture::Aarch64,
    result: "x0",
    parameter: "x1",
    word: 8,
    instructions: &[instruction(&[0x00, 0x00, 0x5e, 0xd4], 4)],
    is_extended: true,
};

const RISCV32: Convention = Convention {
    name: "RISC-V (slli, ebreak, srai)",
    architecture: Architecture::Riscv32,
    result: "a0",
    parameter: "a1",
    word: 4,
    instructions: &[Instruction {
        bytes: &[
            0x13, 0x10, 0xf0, 0x01, 0x73, 0x00, 0x10, 0x00, 0x13, 0x50, 0x70, 0x40,
        ],
        at: 4,
        size: 4,
        alignment: 2,
    }],
    is_extended: false,
};

const RISCV64: Convention = Convention {
    architecture: Architecture::Riscv64,
    word: 8,
    is_extended: true,
    ..RISCV32
};

impl Convention {
    /// Those of all clusters of cores.
    pub(super) fn all(debugger: &Debugger) -> Result<Vec<Self>, HostError> {
        let mut known = Vec::new();
        for target in debugger.targets() {
            if let Some(convention) = Self::of(debugger, target)
                && !known.contains(&convention)
            {
                known.push(convention);
            }
        }
        match known.is_empty() {
            true => Err(unknown(debugger)),
            false => Ok(known),
        }
    }

    /// That of the current core.
    pub(super) fn current(debugger: &Debugger) -> Result<Self, HostError> {
        Self::of(debugger, debugger.target()).ok_or_else(|| unknown(debugger))
    }

    fn of(debugger: &Debugger, target: &Target) -> Option<Self> {
        let has = |name| target.register(name).is_some();
        Some(match debugger.architecture() {
            "riscv32" => RISCV32,
            "riscv64" => RISCV64,
            _ if has("xpsr") => M_PROFILE,
            _ if has("x0") => AARCH64,
            _ if has("r0") && has("cpsr") => ARM,
            _ => return None,
        })
    }

    /// A word as the guest has it in memory.
    pub(super) fn encode(self, value: u64, is_big_endian: bool) -> Vec<u8> {
        let mut bytes = value.to_le_bytes()[..self.word].to_vec();
        if is_big_endian {
            bytes.reverse();
        }
        bytes
    }
}

fn unknown(debugger: &Debugger) -> HostError {
    HostError::UnknownArchitecture(debugger.architecture().to_owned())
}

/// Reads the call that the current core is about to make at this address.
pub(super) async fn read(
    debugger: &mut Debugger,
    pc: u64,
    registers: &Registers,
) -> Result<Call, HostError> {
    let convention = Convention::current(debugger)?;
    let thread = debugger.thread();
    let register = |name| registers.get(name).unwrap_or_default();
    let operation = register(convention.result) & 0xffff_ffff;
    let parameter = register(convention.parameter);
    let size = size_at(debugger, convention, pc).await?;
    let mut block = Block {
        debugger,
        convention,
        address: parameter,
    };
    let request = match block.request(operation).await {
        Ok(request) => request,
        // Parameters of which some are in no memory: QEMU has an answer to that.
        Err(DebugError::NoMemory { .. }) => Request::Other,
        Err(error) => return Err(error.into()),
    };
    Ok(Call {
        operation,
        parameter,
        request,
        at: pc,
        after: pc + size,
        thread,
        convention,
    })
}

/// The size of the instruction there.
async fn size_at(
    debugger: &mut Debugger,
    convention: Convention,
    pc: u64,
) -> Result<u64, HostError> {
    if let [only] = convention.instructions {
        return Ok(only.size);
    }
    let there = debugger.read_memory(pc, 4).await?;
    let mut known = convention.instructions.iter();
    let here = known.find(|instruction| there.starts_with(instruction.bytes));
    Ok(here.map_or(4, |instruction| instruction.size))
}

/// The block of words that the parameter points to.
struct Block<'a> {
    debugger: &'a mut Debugger,
    convention: Convention,
    address: u64,
}

impl Block<'_> {
    async fn request(&mut self, operation: u64) -> Result<Request, DebugError> {
        Ok(match operation {
            0x01 => {
                let [name, mode, length] = self.words().await?;
                let name = self
                    .debugger
                    .read_memory(name, length.min(PIECE) as usize)
                    .await?;
                Request::Open { name, mode }
            }
            0x02 => {
                let [handle] = self.words().await?;
                Request::Close { handle }
            }
            0x03 => Request::Print(self.debugger.read_memory(self.address, 1).await?),
            0x04 => Request::Print(self.text().await?),
            0x05 => {
                let [handle, from, size] = self.words().await?;
                let length = size.min(MOST_WRITTEN) as usize;
                let bytes = match length {
                    0 => Vec::new(),
                    _ => self.debugger.read_memory(from, length).await?,
                };
                Request::Write {
                    handle,
                    bytes,
                    size,
                }
            }
            0x06 => {
                let [handle, buffer, size] = self.words().await?;
                Request::Read {
                    handle,
                    buffer,
                    size,
                }
            }
            0x07 => Request::ReadByte,
            0x09 => {
                let [handle] = self.words().await?;
                Request::IsTty { handle }
            }
            0x15 => {
                let [buffer, size] = self.words().await?;
                Request::CommandLine { buffer, size }
            }
            EXIT if !self.convention.is_extended => exit(self.address, 0),
            EXIT | EXIT_EXTENDED => {
                let [reason, status] = self.words().await?;
                exit(reason, status)
            }
            _ => Request::Other,
        })
    }

    async fn words<const N: usize>(&mut self) -> Result<[u64; N], DebugError> {
        let word = self.convention.word;
        let bytes = self.debugger.read_memory(self.address, N * word).await?;
        let is_big_endian = self.debugger.is_big_endian();
        let mut words = [0; N];
        for (value, bytes) in words.iter_mut().zip(bytes.chunks(word)) {
            let shift = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
            *value = match is_big_endian {
                true => bytes.iter().fold(0, shift),
                false => bytes.iter().rev().fold(0, shift),
            };
        }
        Ok(words)
    }

    /// A zero-terminated text.
    async fn text(&mut self) -> Result<Vec<u8>, DebugError> {
        let mut text = Vec::new();
        while (text.len() as u64) < MOST_WRITTEN {
            let from = self.address.wrapping_add(text.len() as u64);
            let piece = PIECE - from % PIECE;
            let bytes = self.debugger.read_memory(from, piece as usize).await?;
            match bytes.iter().position(|&byte| byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&bytes[..end]);
                    break;
                }
                None => text.extend(bytes),
            }
        }
        Ok(text)
    }
}

/// As QEMU exits: `ADP_Stopped_ApplicationExit` with its status, everything else with 1.
fn exit(reason: u64, status: u64) -> Request {
    Request::Exit {
        status: if reason == 0x20026 { status as u8 } else { 1 },
    }
}
