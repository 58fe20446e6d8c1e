//! The bounds that a peer's bytes and a caller's commands are held to, each with its reason.

/// Largest message taken from the server, in bytes: 10 MiB.
///
/// The largest reply seen from a real QEMU is 1.03 MB, `query-qmp-schema` is about 0.2 MB; ten
/// times the largest leaves room for wide machines, and a stream that never ends its message costs
/// no more than this.
pub const MAX_MESSAGE_BYTES: usize = 10 * 1024 * 1024;

/// Deepest nesting of objects and arrays in one message, the message itself counted: 128.
///
/// `serde_json` reads values up to 127 deep, so all that passes this limit can also be given a
/// type. QEMU's own replies stay below 20, but for chains of backing files, which add one level a
/// file.
pub const MAX_DEPTH: u16 = 128;

/// Most in-band commands in flight: 8.
///
/// QEMU queues eight requests a monitor (`QMP_REQ_QUEUE_LEN_MAX`). Once `oob` is enabled a ninth
/// stops it from reading, and an out-of-band command behind it is then no longer out of band.
pub const MAX_IN_FLIGHT: usize = 8;

/// Largest command sent, in bytes with its id: 64 KiB.
///
/// QEMU reads its monitor about one byte a system call, 57 to 85 KB a second for large commands:
/// this much keeps the monitor busy for a second already. Nothing that QMP is used for needs more.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Largest greeting taken, in bytes: 16 KiB. Real ones are below 300 bytes.
pub(crate) const MAX_GREETING_BYTES: usize = 16 * 1024;

/// Largest `error` taken, in bytes: 1 MiB. QEMU's quote parts of the command at the most, which are
/// smaller also when each character is escaped.
pub(crate) const MAX_ERROR_BYTES: usize = 1024 * 1024;

/// Largest name of an event or a command, in bytes with its quotes: 1 KiB. The longest that QEMU
/// has is below 40.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

/// Largest `timestamp` that is read, in bytes: 1 KiB.
pub(crate) const MAX_TIMESTAMP_BYTES: usize = 1024;

/// Deepest nesting of objects and arrays in a command sent, the command itself counted: 128.
///
/// QEMU stops reading at 1,024 and then answers what is left of such a command with about a
/// thousand errors, none with an id. No command of QEMU's comes near.
pub const MAX_COMMAND_DEPTH: usize = 128;

/// Bounds for one connection. The defaults are this module's constants.
///
/// ```
/// use qmp_proto::Limits;
///
/// let mut limits = Limits::default();
/// limits.max_message_bytes = 1024 * 1024;
/// assert_eq!(limits.max_in_flight, 8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest message taken from the server, in bytes. A larger one is a fatal
    /// [`DecodeErrorKind::TooLarge`](crate::DecodeErrorKind::TooLarge). Default
    /// [`MAX_MESSAGE_BYTES`].
    pub max_message_bytes: usize,
    /// Deepest nesting of objects and arrays in a message, the message itself counted. A deeper one
    /// is a fatal
    /// [`DecodeErrorKind::TooDeep`](crate::DecodeErrorKind::TooDeep). Default [`MAX_DEPTH`].
    pub max_depth: u16,
    /// Most in-band commands in flight, abandoned ones counted until their late reply has come.
    /// Out-of-band commands have as many places of their own. One more is a
    /// [`SendError::Full`](crate::SendError::Full). Default [`MAX_IN_FLIGHT`].
    pub max_in_flight: usize,
    /// Largest command sent, in bytes with its id. A larger one is an
    /// [`EncodeError::TooLarge`](crate::EncodeError::TooLarge). Default [`MAX_COMMAND_BYTES`].
    pub max_command_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_depth: MAX_DEPTH,
            max_in_flight: MAX_IN_FLIGHT,
            max_command_bytes: MAX_COMMAND_BYTES,
        }
    }
}
