//! What a firmware logs by [defmt](https://defmt.ferrous-systems.com): frames of a few bytes, made
//! into text with what its ELF file has of them.
//!
//! ```no_run
//! use qemu_controller::defmt::{Decoder, Log};
//! use qemu_controller::rtt::Rtt;
//! use qemu_controller::{QemuConfig, Session};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let elf = std::fs::read("firmware.elf")?;
//! let Some(decoder) = Decoder::new(&elf)? else { return Ok(()) }; // it has no defmt
//! // defmt-rtt drops what the ring has no room for, unless it is to wait.
//! let config = QemuConfig::default().firmware("firmware.elf").rtt(Rtt::default().blocking(0));
//! let session = Session::start(config).await?;
//! let mut log = Log::new(&session.rtt(0)?, decoder);
//! while let Some(line) = log.next().await {
//!     println!("{line}"); // INFO calibrated in 7 ms
//! }
//! # Ok(()) }
//! ```
//!
//! The frames may come over any port: RTT, a UART ([`Session::serial`](crate::Session::serial)),
//! semihosting. Decoding is that of the crate `defmt-decoder`, of the makers of defmt; versions 3
//! and 4 of the frames are known.
//!
//! A frame that is damaged is [said](Decoded::Malformed) and the next one is found again, where the
//! frames are encoded as rzCOBS (defmt's default). Nothing panics here: where the decoder itself
//! does on a frame, that one is malformed, too.

mod filter;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use defmt_decoder::log::format::{Formatter, FormatterConfig};
use defmt_decoder::{DecodeError, Encoding, Frame, Locations, Table};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

pub use crate::colours::without_colours;
pub use filter::{Filter, Level};

use crate::serial::{Serial, SerialStream};

/// No frame is longer; what is, is no frame.
const MAX_FRAME: usize = 64 * 1024;

/// How much one read takes.
const CHUNK: usize = 16 * 1024;

/// Why a firmware's frames cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefmtError {
    /// The ELF file's table cannot be read; mostly the frames are of another version.
    #[error("the firmware's defmt table cannot be used: {0}")]
    Table(String),
    /// The log format is none.
    #[error("'{0}' is no log format of defmt's, such as '{{t}} {{L}} {{s}}', oneline or default")]
    Format(String),
}

/// Decodes frames, however they are cut into pieces.
pub struct Decoder {
    table: Arc<Table>,
    locations: Arc<Locations>,
    formatter: Option<Arc<Formatter>>,
    /// The beginning of a frame.
    rest: Vec<u8>,
    /// A frame of an encoding that cannot be found again was malformed: nothing more is known.
    lost: bool,
    /// Within a frame that is too long.
    skipping: bool,
}

/// A line that the firmware logged. Displayed as text: by the [log format](Decoder::log_format), or
/// as `0.000012 INFO message`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// How grave it is; `None` for `defmt::println!`.
    pub level: Option<Level>,
    /// When, as the firmware's `defmt::timestamp!` has it.
    pub timestamp: Option<String>,
    /// What.
    pub message: String,
    /// Where, if the firmware has debug information.
    pub location: Option<Location>,
    /// As it is displayed.
    pub text: String,
}

/// Where a line was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The file, as the compiler knew it.
    pub file: PathBuf,
    /// The line in it.
    pub line: u64,
    /// The module and function.
    pub module: String,
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoded {
    /// A line.
    Line(Box<Line>),
    /// So many bytes that are no frame.
    Malformed(usize),
    /// The end came after so many bytes of a frame, which cannot be read without the rest.
    CutOff(usize),
    /// So many bytes that are no frame, in an encoding without marks (`raw`): what follows cannot be
    /// told from them, and is passed over.
    Lost(usize),
}

impl Decoder {
    /// Of a firmware's ELF file; `None` if it does not use defmt.
    ///
    /// # Errors
    /// [`DefmtError::Table`].
    pub fn new(elf: &[u8]) -> Result<Option<Self>, DefmtError> {
        let table = caught(|| Table::parse(elf)).map_err(DefmtError::Table)?;
        let Some(table) = table.map_err(|error| DefmtError::Table(format!("{error:#}")))? else {
            return Ok(None);
        };
        // Without debug information there are none, and all else works.
        let locations = caught(|| table.get_locations(elf));
        let locations = locations.ok().and_then(Result::ok).unwrap_or_default();
        Ok(Some(Self {
            table: Arc::new(table),
            locations: Arc::new(locations),
            formatter: None,
            rest: Vec::new(),
            lost: false,
            skipping: false,
        }))
    }

    /// Makes the text of lines as this says: a format string of defmt's (`{t} {L:bold} {s}`),
    /// `oneline` or `default`. Colours are those of the crate `colored`, which looks at stdout and
    /// the environment.
    ///
    /// # Errors
    /// [`DefmtError::Format`].
    pub fn log_format(mut self, format: &str) -> Result<Self, DefmtError> {
        let has_timestamp = self.table.has_timestamp();
        let make = || {
            let mut config = FormatterConfig::custom(format);
            config.is_timestamp_available = has_timestamp;
            Formatter::new(config)
        };
        // A format that is wrong makes it panic.
        let formatter = caught(make).map_err(|_| DefmtError::Format(format.to_owned()))?;
        self.formatter = Some(Arc::new(formatter));
        Ok(self)
    }

    /// Whether the firmware's lines have a time.
    #[must_use]
    pub fn has_timestamp(&self) -> bool {
        self.table.has_timestamp()
    }

    /// A decoder for another stream of the same firmware.
    #[must_use]
    pub fn for_stream(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            locations: Arc::clone(&self.locations),
            formatter: self.formatter.clone(),
            rest: Vec::new(),
            lost: false,
            skipping: false,
        }
    }

    /// Takes what has come, and returns what that makes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Decoded> {
        let mut decoded = Vec::new();
        match self.table.encoding() {
            Encoding::Rzcobs => self.push_marked(bytes, &mut decoded),
            _ => self.push_raw(bytes, &mut decoded),
        }
        decoded
    }

    /// Nothing more comes: what is left is a frame that was cut off.
    pub fn finish(&mut self) -> Option<Decoded> {
        let rest = std::mem::take(&mut self.rest).len();
        let is_frame = rest > 0 && !self.lost && !std::mem::take(&mut self.skipping);
        is_frame.then_some(Decoded::CutOff(rest))
    }

    /// Each frame ends with a zero.
    fn push_marked(&mut self, mut bytes: &[u8], decoded: &mut Vec<Decoded>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            let (head, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if std::mem::take(&mut self.skipping) {
                self.rest.clear();
                continue;
            }
            self.rest.extend_from_slice(head);
            let frame = std::mem::take(&mut self.rest);
            // Frames may begin with further zeros.
            if frame.len() > 1 {
                decoded.push(self.frame(&frame));
            }
            self.rest = frame;
            self.rest.clear();
        }
        if self.skipping {
            return;
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_FRAME {
            decoded.push(Decoded::Malformed(self.rest.len()));
            self.rest.clear();
            self.skipping = true;
        }
    }

    /// A whole frame with its mark.
    fn frame(&self, frame: &[u8]) -> Decoded {
        let decode = || {
            let mut decoder = self.table.new_stream_decoder();
            decoder.received(frame);
            decoder.decode().map(|frame| self.line(frame))
        };
        match caught(decode) {
            Ok(Ok(line)) => Decoded::Line(Box::new(line)),
            Ok(Err(_)) | Err(_) => Decoded::Malformed(frame.len() - 1),
        }
    }

    /// A frame ends where its arguments do.
    fn push_raw(&mut self, bytes: &[u8], decoded: &mut Vec<Decoded>) {
        if self.lost {
            return;
        }
        self.rest.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            let left = &self.rest[done..];
            let decode = || {
                let (frame, consumed) = self.table.decode(left)?;
                Ok((self.line(frame), consumed))
            };
            match caught(decode) {
                Ok(Ok((line, consumed))) => {
                    decoded.push(Decoded::Line(Box::new(line)));
                    done += consumed;
                }
                Ok(Err(DecodeError::UnexpectedEof)) if left.len() <= MAX_FRAME => break,
                Ok(Err(_)) | Err(_) => {
                    decoded.push(Decoded::Lost(left.len()));
                    self.lost = true;
                    done = self.rest.len();
                    break;
                }
            }
        }
        self.rest.drain(..done);
    }

    fn line(&self, frame: Frame<'_>) -> Line {
        let level = frame.level().map(|level| match level.as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            _ => Level::Error,
        });
        let location = self.locations.get(&frame.index());
        let timestamp = frame.display_timestamp().map(|time| time.to_string());
        let message = frame.display_message().to_string();
        let text = match &self.formatter {
            Some(formatter) => {
                let file = location.map(|location| location.file.to_string_lossy().into_owned());
                let line = location.and_then(|location| u32::try_from(location.line).ok());
                let module = location.map(|location| &*location.module);
                formatter.format_frame(frame, file.as_deref(), line, module)
            }
            None => {
                let time = timestamp.iter().map(|time| format!("{time} "));
                let level = level.iter().map(|level| format!("{level} "));
                time.chain(level).collect::<String>() + &message
            }
        };
        Line {
            level,
            timestamp,
            message,
            location: location.map(|location| Location {
                file: location.file.clone(),
                line: location.line,
                module: location.module.clone(),
            }),
            text,
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("encoding", &self.table.encoding())
            .field("rest", &self.rest.len())
            .finish_non_exhaustive()
    }
}

impl Line {
    /// The firmware panicked: the crate `panic-probe` logs so, and defmt's own `panic!`. With the
    /// place, where the message has it: `src/main.rs:12:5`.
    #[must_use]
    pub fn panic(&self) -> Option<Option<&str>> {
        if self.level != Some(Level::Error) {
            return None;
        }
        let rest = self.message.strip_prefix("panicked at ")?;
        let first = rest.lines().next().unwrap_or_default();
        let place = first.strip_suffix(':').filter(|place| place.contains(':'));
        Some(place)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => line.fmt(f),
            Self::Malformed(bytes) => write!(f, "{bytes} bytes that are no defmt frame"),
            Self::CutOff(bytes) => write!(f, "a defmt frame was cut off after {bytes} bytes"),
            Self::Lost(bytes) => write!(
                f,
                "{bytes} bytes that are no defmt frame; what follows cannot be told from them, \
                 since this firmware's frames have no marks (encoding raw)"
            ),
        }
    }
}

/// The lines that come over a port.
#[derive(Debug)]
pub struct Log {
    stream: SerialStream,
    decoder: Decoder,
    ready: VecDeque<Decoded>,
    ended: bool,
}

impl Log {
    /// Decodes what comes over this port from now on. Others who read the port take bytes away.
    #[must_use]
    pub fn new(port: &Serial, decoder: Decoder) -> Self {
        Self {
            stream: port.stream(),
            decoder,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// What comes next; `None` after the end. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Decoded> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Some(decoded) = self.ready.pop_front() {
                return Some(decoded);
            }
            if self.ended {
                return None;
            }
            match self.stream.read(&mut chunk).await {
                Ok(length @ 1..) => self.ready.extend(self.decoder.push(&chunk[..length])),
                Ok(0) | Err(_) => {
                    self.ended = true;
                    self.ready.extend(self.decoder.finish());
                }
            }
        }
    }

    /// Waits for a line whose text contains this, and returns it.
    ///
    /// # Errors
    /// It did not come in time, or the port was closed before; with the lines that came instead, the
    /// last ten.
    pub async fn expect(&mut self, wanted: &str, deadline: Duration) -> io::Result<Line> {
        let mut last = VecDeque::new();
        let found = timeout(deadline, async {
            while let Some(decoded) = self.next().await {
                let text = decoded.to_string();
                match decoded {
                    Decoded::Line(line) if text.contains(wanted) => return Some(*line),
                    _ => last.push_back(text),
                }
                if last.len() > 10 {
                    last.pop_front();
                }
            }
            None
        });
        let why = match found.await {
            Ok(Some(line)) => return Ok(line),
            Ok(None) => "before the port closed".to_owned(),
            Err(_) => format!("within {deadline:?}"),
        };
        let last: Vec<_> = last
            .iter()
            .map(|line| line.escape_debug().to_string())
            .collect();
        Err(io::Error::other(format!(
            "no line with '{}' came {why}; the last that came:\n  {}",
            wanted.escape_debug(),
            last.join("\n  ")
        )))
    }
}

/// What a panic of `defmt-decoder`'s becomes: it has some for what it takes for impossible.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("defmt-decoder failed").to_owned()
    })
}
