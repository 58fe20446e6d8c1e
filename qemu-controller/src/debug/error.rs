//! Why a debugger could not do what it was asked to.

use std::time::Duration;

use gdb_remote::client::{Closed, RequestError, SendError};

use crate::error::CommandError;
use crate::fork::StateError;
use crate::guest::memory::MemoryError;

/// Why a debugger could not do what it was asked to. The guest is as it was, unless it says
/// otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebugError {
    /// There is one debugger of a session at a time.
    #[error("this session has a debugger already; drop it first")]
    Busy,
    /// The machine was started with a stub that listens, and a debugger is there already.
    #[error("a debugger is at this QEMU's GDB stub, which listens at {0}, and a stub serves one")]
    StubInUse(String),
    /// QEMU's stub cannot be connected to: it is on another machine, or in a container.
    #[error("QEMU's GDB stub at {address} cannot be reached: {error}")]
    Unreachable {
        /// Where it listens.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// Nobody can be let connect here.
    #[error("a debugger cannot be waited for at {address}: {error}")]
    Listen {
        /// Where it was to be.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The socket for the stub could not be made, or passed to QEMU.
    #[error("the socket for the stub could not be given to QEMU: {0}")]
    Socket(std::io::Error),
    /// The guest runs: nothing can be asked of it.
    #[error("the guest runs; pause it first")]
    Running,
    /// A place that is not known.
    #[error(transparent)]
    Place(MemoryError),
    /// The guest has no register of this name.
    #[error("the guest has no register '{name}'; it has {}", listed(.known))]
    NoRegister {
        /// The name.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The value does not fit the register.
    #[error("{value:#x} does not fit register '{name}', which has {bits} bits")]
    TooWide {
        /// The register.
        name: String,
        /// The value.
        value: u64,
        /// The register's size.
        bits: u32,
    },
    /// Nothing is there, or it cannot be written.
    #[error("there is no memory at {address:#x} that can be {verb}")]
    NoMemory {
        /// The first address that could not be had.
        address: u64,
        /// `read` or `written`.
        verb: &'static str,
    },
    /// The stub does not write behind a guard: QEMU asks the MPU about a page by its first address
    /// alone. [`Session::write_memory`](crate::Session::write_memory) writes there.
    #[error(
        "QEMU does not let a debugger write at {address:#x}: the MPU forbids the page's first \
         address, and QEMU takes that for the whole page; Session::write_memory can"
    )]
    Guarded {
        /// The first address that could not be had.
        address: u64,
    },
    /// A watchpoint that the stub does not take.
    #[error("QEMU takes no watchpoint of {size} bytes at {address:#x}")]
    NoWatchpoint {
        /// The address.
        address: u64,
        /// The size in bytes.
        size: u32,
    },
    /// The firmware's file has no symbols: the functions that a panic comes to cannot be found.
    #[error("the firmware has no symbols, so the functions that a panic comes to are not known")]
    Stripped,
    /// Where the faults of this architecture go is not known.
    #[error("where a fault of this guest goes is not known: QEMU calls its architecture {0}")]
    NoFaults(String),
    /// Where the function returns to is not known at this place.
    #[error(
        "where the function returns to can be told at its first instruction alone, and this is {0}"
    )]
    NotAtEntry(String),
    /// The firmware's file is for another architecture than the guest.
    #[error(
        "the ELF file is for another architecture than the guest, or the guest does not tell its registers"
    )]
    OtherArchitecture,
    /// The machine could not be forked.
    #[error(transparent)]
    Fork(Box<StateError>),
    /// The stub did not answer in time.
    #[error("the stub did not answer {what} within {deadline:?}")]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// The deadline.
        deadline: Duration,
    },
    /// The stub refused, or its answer is none.
    #[error("{what}: {error}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        error: RequestError,
    },
    /// It cannot be asked.
    #[error("{what}: {error}")]
    Invalid {
        /// What was asked.
        what: &'static str,
        /// Why not.
        error: SendError,
    },
    /// The connection to the stub is over, and the session is not: somebody took the stub away.
    #[error("the connection to the stub is over: {0}")]
    Closed(Closed),
    /// QEMU could not be asked; where it has ended, this says how.
    #[error(transparent)]
    Command(#[from] CommandError),
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none by name: this QEMU's stub does not describe the target".to_owned(),
        names => names.join(", "),
    }
}
