//! What the firmware logs by RTT and defmt: each channel as it comes, decoded where it is defmt's.
//!
//! ```text
//!   RTT channels ───────────────────────┐
//!   first serial port, beside defmt ────┼─▶ text, or frames made into lines ─▶ stdout, --log, --expect
//!   semihosting, where it carries defmt ┘
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use qemu_controller::defmt::{Decoded, Decoder, Filter};
use qemu_controller::firmware_info::Firmware;
use qemu_controller::qemu_launch::Format;
use qemu_controller::rtt::Rtt;
use qemu_controller::testing::{FrameSource, TestRun};
use qemu_controller::{QemuConfig, Serial, Session};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::args::Run;
use crate::failure::Failure;
use crate::output::{Cut, Output, Phase, Stream};
use crate::reporter::Reporter;

/// How much of a channel is read at once.
const CHUNK: usize = 16 * 1024;

/// So many pieces may wait to be printed.
const WAITING: usize = 64;

/// How long the rings are read when the run is cut short.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A line that ends nowhere is cut here, where lines are told apart.
const LONGEST_LINE: usize = 64 * 1024;

/// By which way the firmware's defmt frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// Nothing is decoded
    Off,
    /// An RTT channel: the one called `defmt`, else 0
    Rtt,
    /// The semihosting console
    Semihosting,
    /// The first serial port
    Serial,
}

/// What is to be read, and how it is shown.
pub(crate) struct Logs {
    rtt: bool,
    source: Source,
    decoder: Option<Decoder>,
    filter: Filter,
    prefix: bool,
}

/// Where a piece of output comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Rtt { number: u32, name: Option<String> },
    Serial,
    Semihosting,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtt { number, .. } => write!(f, "rtt:{number}"),
            Self::Serial => f.write_str("serial:0"),
            Self::Semihosting => f.write_str("semihosting"),
        }
    }
}

impl Logs {
    /// As the arguments say, and where they do not, as the firmware's ELF file has it.
    pub(crate) fn of(run: &Run) -> Result<Self, Failure> {
        // What is none, or cannot be opened, others say.
        let path = run.firmware.as_deref().filter(|_| run.raw.is_none());
        let path = path.filter(|path| matches!(Format::of(path), Ok(Format::Elf)));
        let firmware = path.and_then(|path| Some((path, Firmware::open(path).ok()?)));
        let (path, firmware) = firmware.unzip();
        let has_rtt = firmware
            .as_ref()
            .is_some_and(|firmware| firmware.raw_symbol("_SEGGER_RTT").is_some());
        let decoder = match (&firmware, run.defmt) {
            (None, _) | (_, Some(Source::Off)) => None,
            (Some(firmware), _) => decoder(run, path, firmware)?,
        };
        if run.defmt == Some(Source::Rtt) && firmware.is_some() && !has_rtt {
            return Err(Failure::NoRtt);
        }
        let found = firmware.as_ref().map(|firmware| source(firmware, has_rtt));
        let source = match &decoder {
            Some(_) => run.defmt.or(found).unwrap_or(Source::Off),
            None => Source::Off,
        };
        Ok(Self {
            rtt: !run.no_rtt && (has_rtt || source == Source::Rtt),
            source: if run.no_rtt && source == Source::Rtt {
                Source::Off
            } else {
                source
            },
            decoder,
            filter: run.log_filter.clone().unwrap_or_default(),
            prefix: run.prefix,
        })
    }

    /// What the session is to read for it.
    pub(crate) fn config(&self, config: QemuConfig) -> QemuConfig {
        match (self.rtt, self.source) {
            (false, _) => config,
            // defmt-rtt drops what a full ring has no room for, unless somebody reads it.
            (true, Source::Rtt) => config.rtt(Rtt::default().lossless().blocking(0)),
            (true, _) => config.rtt(Rtt::default().lossless()),
        }
    }

    /// What tests log by it. Colours are not for what is shown of a test later.
    pub(crate) fn of_tests(&self, test_run: TestRun) -> TestRun {
        let source = match self.source {
            Source::Off => return test_run,
            Source::Rtt => FrameSource::Rtt,
            Source::Semihosting => FrameSource::Semihosting,
            Source::Serial => FrameSource::Serial,
        };
        match &self.decoder {
            Some(decoder) => test_run.defmt(source, decoder.for_stream(), self.filter.clone()),
            None => test_run,
        }
    }

    /// Whether the firmware's frames are decoded.
    pub(crate) fn decodes(&self) -> bool {
        self.decoder.is_some()
    }

    /// Whether the first serial port is read here, and not with all other output.
    pub(crate) fn reads_serial(&self) -> bool {
        matches!(self.source, Source::Semihosting | Source::Serial)
    }

    /// Decodes the semihosting console, where that carries defmt.
    pub(crate) fn console(&self) -> Option<Printer> {
        let decoder = self.decoder.as_ref()?;
        (self.source == Source::Semihosting)
            .then(|| self.printer(Channel::Semihosting, Some(decoder.for_stream())))
    }

    fn printer(&self, channel: Channel, decoder: Option<Decoder>) -> Printer {
        Printer {
            channel,
            decoder,
            filter: self.filter.clone(),
            prefix: self.prefix,
            line: Vec::new(),
        }
    }

    /// Prints what comes over RTT and the serial port, until the session has ended.
    pub(crate) async fn print(
        &self,
        session: &Session,
        output: &Output,
        reporter: &Reporter,
    ) -> Result<(), Cut> {
        let (sender, mut pieces) = mpsc::channel(WAITING);
        if self.reads_serial()
            && let Some(serial) = session.serial(0)
        {
            tokio::spawn(read(Channel::Serial, serial.clone(), sender.clone()));
        }
        let mut finding = self
            .rtt
            .then(|| Box::pin(find(session, output, sender.clone())));
        drop(sender);
        let mut printers = BTreeMap::new();
        loop {
            let piece: Option<(Channel, Vec<u8>)> = match &mut finding {
                Some(found) => tokio::select! {
                    piece = pieces.recv() => piece,
                    () = found => {
                        finding = None;
                        continue;
                    }
                },
                None => pieces.recv().await,
            };
            let Some((channel, bytes)) = piece else { break };
            let printer = printers.entry(channel.clone()).or_insert_with(|| {
                self.printer(channel.clone(), self.decoder_of(&channel, session))
            });
            printer.print(&bytes, output, reporter).await?;
        }
        for printer in printers.values_mut() {
            printer.finish(output, reporter).await?;
        }
        say_losses(session, reporter).await
    }

    fn decoder_of(&self, channel: &Channel, session: &Session) -> Option<Decoder> {
        let decoder = self.decoder.as_ref()?;
        let is_its = match (self.source, channel) {
            (Source::Serial, Channel::Serial) => true,
            (Source::Rtt, Channel::Rtt { number, name }) => {
                let status = session.rtt_status().unwrap_or_default();
                let named = status
                    .channels
                    .iter()
                    .any(|channel| channel.is_up && channel.name.as_deref() == Some("defmt"));
                match named {
                    true => name.as_deref() == Some("defmt"),
                    false => *number == 0,
                }
            }
            _ => false,
        };
        is_its.then(|| decoder.for_stream())
    }

    /// The run is cut short: what is in the rings is still read.
    pub(crate) async fn before_the_end(&self, session: &Session) {
        if self.rtt {
            let _ = timeout(LAST_WORDS, session.drain_rtt()).await;
        }
    }
}

/// What decodes the firmware's frames; `None` where it has none.
fn decoder(
    run: &Run,
    path: Option<&Path>,
    firmware: &Firmware,
) -> Result<Option<Decoder>, Failure> {
    let mut sections = firmware.sections().iter();
    let has_defmt = sections.any(|section| section.name.starts_with(".defmt"));
    if !has_defmt {
        return match run.defmt {
            Some(_) => Err(Failure::NoDefmt),
            None => Ok(None),
        };
    }
    let Some(path) = path else { return Ok(None) };
    let elf = std::fs::read(path).map_err(Failure::system("read the firmware"))?;
    let decoder = Decoder::new(&elf)?;
    let Some(decoder) = decoder else {
        return Ok(None);
    };
    let format = match (&run.log_format, decoder.has_timestamp()) {
        (Some(format), _) => format,
        (None, true) => "{t} {L} {s}",
        (None, false) => "{L} {s}",
    };
    Ok(Some(crate::quietly(|| decoder.log_format(format))?))
}

/// By which way a firmware most likely logs, by what is linked into it.
fn source(firmware: &Firmware, has_rtt: bool) -> Source {
    if has_rtt {
        return Source::Rtt;
    }
    let mut symbols = firmware.symbols();
    match symbols.any(|symbol| {
        symbol.name.contains("defmt_semihosting") || symbol.name.contains("semihosting::io")
    }) {
        true => Source::Semihosting,
        false => Source::Serial,
    }
}

/// Reads each RTT channel from when it is there, until the session is about to end.
async fn find(session: &Session, output: &Output, sender: mpsc::Sender<(Channel, Vec<u8>)>) {
    let Ok(mut status) = session.watch_rtt() else {
        return;
    };
    let mut known = Vec::new();
    let finding = async {
        loop {
            let channels = status.borrow_and_update().channels.clone();
            for channel in channels {
                if !channel.is_up || channel.size == 0 || known.contains(&channel.number) {
                    continue;
                }
                known.push(channel.number);
                if let Ok(port) = session.rtt(channel.number) {
                    let channel = Channel::Rtt {
                        number: channel.number,
                        name: channel.name,
                    };
                    tokio::spawn(read(channel, port, sender.clone()));
                }
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = finding => {}
        () = output.reached(Phase::Ended) => {}
    }
}

/// Passes on what comes over a port, until that is closed.
async fn read(channel: Channel, port: Serial, sender: mpsc::Sender<(Channel, Vec<u8>)>) {
    let mut stream = port.stream();
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        let piece = (channel.clone(), chunk[..length].to_vec());
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

/// Says what may be missing.
async fn say_losses(session: &Session, reporter: &Reporter) -> Result<(), Cut> {
    let Ok(status) = session.rtt_status() else {
        return Ok(());
    };
    for channel in status.channels.iter().filter(|channel| channel.full > 0) {
        let (number, full) = (channel.number, channel.full);
        let name = channel.name.as_deref().unwrap_or_default();
        let words = format!(
            "RTT channel {number} ({name}) was full {full} times, and the firmware does not wait: \
             it may have left out lines"
        );
        let object = json!({ "event": "rtt", "channel": format!("rtt:{number}"), "full": full });
        reporter.say(Some(&words), &object).map_err(Cut::Failed)?;
    }
    let Some(problem) = status.problem else {
        return Ok(());
    };
    let object = json!({ "event": "rtt", "message": problem });
    let words = format!("RTT: {problem}");
    reporter.say(Some(&words), &object).map_err(Cut::Failed)
}

/// Shows what comes over one channel.
pub(crate) struct Printer {
    channel: Channel,
    decoder: Option<Decoder>,
    filter: Filter,
    prefix: bool,
    /// The beginning of a line of text.
    line: Vec<u8>,
}

impl Printer {
    pub(crate) async fn print(
        &mut self,
        bytes: &[u8],
        output: &Output,
        reporter: &Reporter,
    ) -> Result<(), Cut> {
        match &mut self.decoder {
            Some(decoder) => {
                for decoded in crate::quietly(|| decoder.push(bytes)) {
                    self.show(decoded, output, reporter).await?;
                }
                Ok(())
            }
            None => self.print_text(bytes, output, reporter).await,
        }
    }

    /// The end of the channel.
    pub(crate) async fn finish(&mut self, output: &Output, reporter: &Reporter) -> Result<(), Cut> {
        let rest = self.decoder.as_mut().and_then(Decoder::finish);
        if let Some(rest) = rest {
            self.show(rest, output, reporter).await?;
        }
        match std::mem::take(&mut self.line) {
            line if line.is_empty() => Ok(()),
            line => self.print_line(&line, output, reporter).await,
        }
    }

    async fn print_text(
        &mut self,
        bytes: &[u8],
        output: &Output,
        reporter: &Reporter,
    ) -> Result<(), Cut> {
        if !self.prefix {
            output.print_bytes(Stream::of(&self.channel), bytes).await?;
        }
        // Whole lines, for who wants to know where each comes from.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LONGEST_LINE {
                let line = std::mem::take(&mut self.line);
                self.print_line(&line, output, reporter).await?;
            }
        }
        Ok(())
    }

    async fn print_line(
        &self,
        line: &[u8],
        output: &Output,
        reporter: &Reporter,
    ) -> Result<(), Cut> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if self.prefix {
            let shown = format!("[{}] {text}\n", self.channel);
            output
                .print_bytes(Stream::of(&self.channel), shown.as_bytes())
                .await?;
        }
        output.until_ending(reporter.room()).await;
        let object = json!({ "event": "log", "channel": self.channel.to_string(), "text": text });
        reporter.say(None, &object).map_err(Cut::Failed)
    }

    async fn show(
        &self,
        decoded: Decoded,
        output: &Output,
        reporter: &Reporter,
    ) -> Result<(), Cut> {
        output.until_ending(reporter.room()).await;
        let Decoded::Line(line) = decoded else {
            let words = format!("{}: {decoded}", self.channel);
            let object =
                json!({ "event": "defmt", "channel": self.channel.to_string(), "message": words });
            return reporter.say(Some(&words), &object).map_err(Cut::Failed);
        };
        let module = line.location.as_ref().map(|location| &*location.module);
        if !self.filter.takes(line.level, module) {
            return Ok(());
        }
        let text = match self.prefix {
            true => format!("[{}] {line}\n", self.channel),
            false => format!("{line}\n"),
        };
        output
            .print_coloured(Stream::of(&self.channel), &text)
            .await?;
        let mut object = json!({
            "event": "log",
            "channel": self.channel.to_string(),
            "level": line.level.map(|level| level.as_str().to_ascii_lowercase()),
            "timestamp": line.timestamp,
            "text": line.message,
        });
        if let Some(location) = &line.location {
            object["file"] = json!(location.file.to_string_lossy());
            object["line"] = json!(location.line);
            object["module"] = json!(location.module);
        }
        reporter.say(None, &object).map_err(Cut::Failed)
    }
}

/// What a filter is made of.
pub(crate) fn filter(text: &str) -> Result<Filter, String> {
    text.parse()
}
