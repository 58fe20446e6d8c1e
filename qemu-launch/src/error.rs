//! Every way in which a start can fail before there is a process, by who is at fault.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::argv::command_line::Argv;
use crate::discover::FindError;
use crate::firmware::FirmwareError;

/// The description contradicts itself, or holds something that can't be passed to QEMU unharmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A name with characters that QEMU would take for syntax.
    #[error(
        "the {what} {text:?} is no name: letters, digits and - _ . only, a letter or digit first"
    )]
    BadName {
        /// What the name was for.
        what: &'static str,
        /// The name.
        text: String,
    },
    /// A NUL, which would end the argument there.
    #[error("the {what} {text:?} contains a NUL")]
    Nul {
        /// What the text was for.
        what: &'static str,
        /// The text.
        text: OsString,
    },
    /// A name that no environment variable can have.
    #[error("{name:?} is no name of an environment variable: not empty, without = and NUL")]
    BadVariable {
        /// The name.
        name: OsString,
    },
    /// Text that is not Unicode, on a system where arguments have to be.
    #[error("the {what} {text:?} is not Unicode, which arguments have to be on this system")]
    NotUnicode {
        /// What the text was for.
        what: &'static str,
        /// The text.
        text: OsString,
    },
    /// A path that can't be made absolute.
    #[error("the path {path:?} of the {what} can't be made absolute")]
    Path {
        /// What the path was for.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The memory is not a number with an optional suffix.
    #[error(
        "{text:?} is no amount of memory: a number above 0, in MiB unless K, M, G or T follows"
    )]
    BadMemory {
        /// The text.
        text: String,
    },
    /// A comma in a CPU property's value, which QEMU can't be given.
    #[error(
        "the CPU property {property}={value:?} contains a comma, which QEMU's -cpu can't be given"
    )]
    CommaInCpuProperty {
        /// The property.
        property: String,
        /// Its value.
        value: String,
    },
    /// CPU properties, but the board's own CPU.
    #[error("the CPU property {property} needs a CPU model to go with")]
    CpuPropertyWithoutCpu {
        /// The first such property.
        property: String,
    },
    /// `firmware` was called twice.
    #[error("two firmwares: {} and {}", first.display(), second.display())]
    TwoFirmwares {
        /// The first one.
        first: PathBuf,
        /// The second one.
        second: PathBuf,
    },
    /// Two character devices would share an id, a port, a socket or a file.
    #[error("{first} and {second} would share {what}")]
    Shared {
        /// What they would share.
        what: String,
        /// The first device's id.
        first: String,
        /// The second device's id.
        second: String,
    },
    /// A property that is set twice, by you or by what the type stands for.
    #[error("the {what} {key} is set twice, to {first:?} and to {second:?}")]
    PropertyTwice {
        /// What the property belongs to.
        what: &'static str,
        /// The property.
        key: String,
        /// The first value.
        first: OsString,
        /// The second value.
        second: OsString,
    },
    /// A unix socket's path that is longer than the system takes.
    #[error("the socket path {} has {length} bytes, and {max} is the most that the system takes", path.display())]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The most that the system takes.
        max: usize,
    },
    /// Something stands at the path of a socket, and QEMU would remove it.
    #[error("something stands at the socket path {} already, and QEMU would remove it", path.display())]
    SocketPathTaken {
        /// The path.
        path: PathBuf,
    },
    /// A ring buffer whose size is no power of two.
    #[error("the ring buffer {id} has {size} bytes, which is no power of two")]
    BadRingBuffer {
        /// The device's id.
        id: String,
        /// The size asked for.
        size: u32,
    },
    /// An `-icount` shift outside 0 to 10.
    #[error("an icount shift of {shift} is outside 0 to 10")]
    BadIcountShift {
        /// The shift asked for.
        shift: u8,
    },
    /// A log without items.
    #[error("a log needs at least one item, such as guest_errors")]
    NothingToLog,
    /// A `%` in the log file's name, which QEMU reads as a template.
    #[error("the log file {} has a % in its absolute path, which QEMU reads as a template", path.display())]
    PercentInLogFile {
        /// The path.
        path: PathBuf,
    },
    /// An extra argument that stands where an option should.
    #[error("the extra argument {word:?} is no option: one word each, beginning with a dash")]
    NotAnOption {
        /// The word.
        word: OsString,
    },
    /// An option and its value in one extra argument.
    #[error(
        "the extra argument {word:?} is one word with a space; give the option and its value as two"
    )]
    TwoWordsInOne {
        /// The word.
        word: OsString,
    },
    /// An extra argument that is never passed on.
    #[error("the extra argument {option:?} is refused: {why}")]
    Refused {
        /// The option.
        option: OsString,
        /// Why.
        why: &'static str,
    },
    /// An extra argument that says again what another option says.
    #[error("the extra argument {second:?} sets {part} again, which {first:?} has set")]
    Repeated {
        /// What both are about.
        part: &'static str,
        /// The option that came first.
        first: OsString,
        /// The extra argument.
        second: OsString,
    },
    /// An endpoint that this system does not have.
    #[error("{id} can't be reached by {endpoint} on this system; use a loopback port")]
    UnsupportedEndpoint {
        /// The device's id.
        id: String,
        /// The kind of endpoint.
        endpoint: &'static str,
    },
}

/// No process was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The description is at fault.
    #[error("the machine's description is at fault")]
    Spec(#[from] SpecError),
    /// The firmware is at fault.
    #[error("the firmware is at fault")]
    Firmware(#[from] FirmwareError),
    /// QEMU was not found, or what was found can't be run.
    #[error("no usable QEMU")]
    Find(#[from] FindError),
    /// The system refused something that a start needs.
    #[error("could not {what} for QEMU")]
    System {
        /// What was refused.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("could not start {argv}")]
    Exec {
        /// The command line.
        argv: Box<Argv>,
        /// Why.
        source: io::Error,
    },
}
