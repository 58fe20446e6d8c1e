//! What the client can say: commands, their ids, and how they are written.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    error::{EncodeError, ParseError},
    limits::MAX_COMMAND_DEPTH,
    object::Object,
    raw::RawReturn,
};

/// Ties a command's name and arguments to what it returns. The implementing type *is* the
/// arguments: it serialises to a JSON object, or to null (a unit struct does) where there are none.
///
/// ```
/// use qmp_proto::Command;
///
/// #[derive(serde::Serialize)]
/// struct QueryBlockJobs;
///
/// #[derive(serde::Deserialize)]
/// struct BlockJob {
///     device: String,
/// }
///
/// impl Command for QueryBlockJobs {
///     const NAME: &'static str = "query-block-jobs";
///     type Return = Vec<BlockJob>;
/// }
/// ```
pub trait Command: Serialize {
    /// The command's name on the wire.
    const NAME: &'static str;
    /// The type of its `return`.
    type Return: DeserializeOwned;
}

impl<C: Command> Command for &C {
    const NAME: &'static str = C::NAME;
    type Return = C::Return;
}

/// Reads a return as the type that command `C` has.
///
/// # Errors
/// [`ParseError`] where it does not fit.
pub fn parse_return<C: Command>(raw: &RawReturn) -> Result<C::Return, ParseError> {
    raw.parse()
}

/// What a command without an answer returns: `{}`, and whatever a later QEMU may put there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {}
        let Object(Wire {}) = Object::deserialize(deserializer)?;
        Ok(Self {})
    }
}

/// Names one command of one connection. Never used twice.
///
/// On the wire it is a string like `"9f3c01ab-17"`: the connection's prefix, then the command's
/// number. QEMU hands such a string back as it was, which is not so for numbers or text beyond
/// ASCII. It is short because QEMU reads its monitor a byte a system call: each byte of an id costs
/// about 4 µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId {
    prefix: u32,
    number: u64,
}

impl CommandId {
    /// The id with this prefix and number. Only who uses [`Codec`](crate::Codec) without a
    /// [`Connection`](crate::Connection) makes ids, and must then see to it that none is used
    /// twice.
    pub const fn new(prefix: u32, number: u64) -> Self {
        Self { prefix, number }
    }

    /// The connection's part.
    pub const fn prefix(self) -> u32 {
        self.prefix
    }

    /// The command's part.
    pub const fn number(self) -> u64 {
        self.number
    }

    /// Reads the value of an `id`, quotes included; `None` unless it is just as
    /// [`Display`](fmt::Display) writes it.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        let text = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let (prefix, number) = text.split_first_chunk::<8>()?;
        let number = number.strip_prefix(b"-")?;
        if number.is_empty() || number.starts_with(b"0") && number.len() > 1 {
            return None;
        }
        // By hand: every answer has an id, and the general readers take several times as long.
        let prefix = prefix.iter().try_fold(0_u32, |value, byte| match byte {
            b'0'..=b'9' => Some(value * 16 + u32::from(byte - b'0')),
            b'a'..=b'f' => Some(value * 16 + u32::from(byte - b'a' + 10)),
            _ => None,
        })?;
        let number = number.iter().try_fold(0_u64, |value, byte| match byte {
            b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        })?;
        Some(Self { prefix, number })
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.prefix, self.number)
    }
}

/// Writes one command to the end of `out`; on an error `out` is as it was. No newline follows: QEMU
/// acts at the closing brace, and a newline after `quit` would often turn the stream's end into a
/// connection reset.
pub(crate) fn write<A: Serialize + ?Sized>(
    name: &str,
    oob: bool,
    arguments: &A,
    id: CommandId,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if name.is_empty() {
        return Err(EncodeError::invalid("the command's name is empty"));
    }
    if name.contains('\0') {
        return Err(EncodeError::invalid("NUL in the command's name"));
    }
    let verb = if oob { "exec-oob" } else { "execute" };
    let name = serde_json::to_string(name).map_err(not_serialised)?;
    let arguments = check_arguments(serde_json::to_string(arguments).map_err(not_serialised)?)?;
    let key = if arguments.is_empty() {
        ""
    } else {
        ",\"arguments\":"
    };
    let id = format!(",\"id\":\"{id}\"}}");
    let parts = ["{\"", verb, "\":", &name, key, &arguments, &id];
    let size = parts.iter().map(|part| part.len()).sum();
    if size > limit {
        return Err(EncodeError::TooLarge { size, limit });
    }
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

fn not_serialised(error: serde_json::Error) -> EncodeError {
    EncodeError::invalid(format!("the command's arguments do not serialise: {error}"))
}

/// Arguments that QEMU reads as they are meant, or an empty text for none.
fn check_arguments(arguments: String) -> Result<String, EncodeError> {
    if arguments == "null" {
        return Ok(String::new());
    }
    if !arguments.starts_with('{') {
        return Err(EncodeError::invalid(
            "the arguments of a command must be a JSON object, or nothing",
        ));
    }
    if has_escaped_nul(&arguments) {
        return Err(EncodeError::invalid("NUL in the command's arguments"));
    }
    // One level more than the arguments' own: the command around them.
    if depth(&arguments) >= MAX_COMMAND_DEPTH {
        return Err(EncodeError::invalid(format!(
            "command nested deeper than the limit of {MAX_COMMAND_DEPTH}"
        )));
    }
    Ok(arguments)
}

/// How deep objects and arrays are nested in `json`, which is valid.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => drop(bytes.next()),
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            // Never below zero in valid JSON.
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether `json` has a `\u0000` that is an escape, not the end of an escaped backslash.
fn has_escaped_nul(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        if escape.starts_with("u0000") {
            return true;
        }
        // What follows the backslash is ASCII in valid JSON.
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}
