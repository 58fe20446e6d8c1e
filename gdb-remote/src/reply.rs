//! What a stub replies: the features of `qSupported`, the stop replies of `?`, thread ids.

use std::fmt;

use crate::packet::DEFAULT_MAX_PAYLOAD;

/// How many bytes of a target description are asked for at once, if the stub names no packet size.
const DESCRIPTION_PIECE: usize = 1024;

/// What `qSupported` offered, in the stub's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    entries: Vec<(String, Feature)>,
}

/// One feature's value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// `name+`
    Supported,
    /// `name-`
    Unsupported,
    /// `name?`: the stub may support it; ask for it and see.
    Maybe,
    /// `name=value`
    Value(String),
}

impl Features {
    /// Reads a `qSupported` reply. `None` when it is not text or an entry has none of the four
    /// forms.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let entries: Option<Vec<_>> = text
            .split(';')
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let (name, feature) = match entry.split_once('=') {
                    Some((name, value)) => (name, Feature::Value(value.to_owned())),
                    None => {
                        let (name, mark) = entry.split_at_checked(entry.len() - 1)?;
                        let feature = match mark {
                            "+" => Feature::Supported,
                            "-" => Feature::Unsupported,
                            "?" => Feature::Maybe,
                            _ => return None,
                        };
                        (name, feature)
                    }
                };
                (!name.is_empty()).then(|| (name.to_owned(), feature))
            })
            .collect();
        Some(Self { entries: entries? })
    }

    /// The feature called `name`, for example `qXfer:features:read`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Feature> {
        self.entries
            .iter()
            .find(|(entry, _)| entry == name)
            .map(|(_, feature)| feature)
    }

    /// Whether the stub offers `name` (`name+`).
    #[must_use]
    pub fn supports(&self, name: &str) -> bool {
        self.find(name) == Some(&Feature::Supported)
    }

    /// `PacketSize`, in bytes: the largest packet the stub takes.
    #[must_use]
    pub fn packet_size(&self) -> Option<usize> {
        match self.find("PacketSize")? {
            Feature::Value(digits) => usize::from_str_radix(digits, 16).ok(),
            _ => None,
        }
    }

    /// How many bytes of a target description one reply has room for: it is `m`, the piece (each
    /// byte perhaps escaped), and a frame of four.
    #[must_use]
    pub fn description_piece(&self) -> usize {
        let size = self.packet_size();
        size.map_or(DESCRIPTION_PIECE, |size| {
            (size.saturating_sub(8) / 2).clamp(16, DEFAULT_MAX_PAYLOAD / 2)
        })
    }

    /// Every feature, in the stub's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Feature)> {
        self.entries
            .iter()
            .map(|(name, feature)| (name.as_str(), feature))
    }
}

/// A thread as the protocol names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ThreadId {
    /// The process, present when `multiprocess+` was agreed: with this client, or in QEMU's case
    /// with any earlier one.
    pub process: Option<Id>,
    /// The thread. QEMU numbers its CPUs from 1.
    pub thread: Id,
}

/// A process's or thread's number in a [`ThreadId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Id {
    /// `-1`
    All,
    /// `0`
    Any,
    /// This one.
    One(u64),
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        if text == "-1" {
            return Some(Self::All);
        }
        match parse_hex(text)? {
            0 => Some(Self::Any),
            number => Some(Self::One(number)),
        }
    }
}

impl ThreadId {
    /// Reads `2`, `p1.2` or `p1`; numbers are hexadecimal, -1 means all and 0 any.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some(both) = text.strip_prefix('p') else {
            return Some(Self {
                process: None,
                thread: Id::parse(text)?,
            });
        };
        let (process, thread) = match both.split_once('.') {
            Some((process, thread)) => (process, Id::parse(thread)?),
            None => (both, Id::All),
        };
        Some(Self {
            process: Some(Id::parse(process)?),
            thread,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("-1"),
            Self::Any => f.write_str("0"),
            Self::One(number) => write!(f, "{number:x}"),
        }
    }
}

/// As the protocol writes it: `2` or `p1.2`.
impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "p{process}.{}", self.thread),
            None => self.thread.fmt(f),
        }
    }
}

/// What a watchpoint saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// A write (`watch`).
    Write,
    /// A read (`rwatch`).
    Read,
    /// A read or a write, which of them was not said (`awatch`).
    Either,
}

/// Why the guest is stopped: the answer to `?`, or what a stub says unasked when the guest stops.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReply {
    /// `S` or `T`: stopped by a signal. QEMU says 5 (SIGTRAP) to `?`, 2 (SIGINT) when a client's
    /// arrival stopped it.
    Signal {
        /// GDB's number of the signal.
        signal: u8,
        /// The thread that stopped, where it was named.
        thread: Option<ThreadId>,
        /// The other pairs, for example `watch` and an address; registers by number are among them.
        details: Vec<(String, String)>,
    },
    /// `W`: the process ended with this status.
    Exited(u8),
    /// `X`: the process was ended by this signal.
    Terminated(u8),
    /// `N`: no thread is left that runs.
    NoResumed,
}

impl StopReply {
    /// Reads a stop reply; `None` when it is none.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let kind = *payload.first().filter(|kind| b"NSTWX".contains(kind))?;
        let text = std::str::from_utf8(payload).ok()?;
        if text == "N" {
            return Some(Self::NoResumed);
        }
        let (digits, rest) = text[1..].split_at_checked(2)?;
        let number = u8::try_from(parse_hex(digits)?).ok()?;
        match kind {
            b'S' if rest.is_empty() => Some(Self::Signal {
                signal: number,
                thread: None,
                details: Vec::new(),
            }),
            b'T' => Self::with_details(number, rest),
            b'W' if rest.is_empty() || rest.starts_with(";process:") => Some(Self::Exited(number)),
            b'X' if rest.is_empty() || rest.starts_with(";process:") => {
                Some(Self::Terminated(number))
            }
            _ => None,
        }
    }

    fn with_details(signal: u8, rest: &str) -> Option<Self> {
        let mut thread = None;
        let mut details = Vec::new();
        for pair in rest.split(';').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once(':')?;
            if name == "thread" {
                thread = Some(ThreadId::parse(value)?);
            } else {
                details.push((name.to_owned(), value.to_owned()));
            }
        }
        Some(Self::Signal {
            signal,
            thread,
            details,
        })
    }

    /// The access and the address, where it was a watchpoint.
    #[must_use]
    pub fn watchpoint(&self) -> Option<(Access, u64)> {
        let Self::Signal { details, .. } = self else {
            return None;
        };
        details.iter().find_map(|(name, value)| {
            let access = match name.as_str() {
                "watch" => Access::Write,
                "rwatch" => Access::Read,
                "awatch" => Access::Either,
                _ => return None,
            };
            Some((access, parse_hex(value)?))
        })
    }

    /// The thread it names.
    #[must_use]
    pub fn thread(&self) -> Option<ThreadId> {
        match self {
            Self::Signal { thread, .. } => *thread,
            _ => None,
        }
    }
}

impl fmt::Display for StopReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { signal, .. } => write!(f, "stopped by signal {signal}"),
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Terminated(signal) => write!(f, "ended by signal {signal}"),
            Self::NoResumed => f.write_str("no thread runs"),
        }
    }
}

/// `E` and two digits, or `E.` and text: the stub refused.
#[must_use]
pub fn is_error(payload: &[u8]) -> bool {
    match payload {
        [b'E', high, low] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        [b'E', b'.', ..] => true,
        _ => false,
    }
}

/// Hexadecimal digits alone: `from_str_radix` would take a sign too.
fn parse_hex(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}
