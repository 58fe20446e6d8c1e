//! How a run ended: as an exit status, in words, and as JSON.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qemu_controller::coverage::CoverageError;
use qemu_controller::debug::DebugError;
use qemu_controller::defmt::DefmtError;
use qemu_controller::qemu_launch::firmware::{Advice, FirmwareError};
use qemu_controller::testing::{TestListError, TestRunError};
use qemu_controller::{
    CorePlace, ExitKind, Interruption, RunReport, StartError, StopError, Verdict,
};
use rustix::fs::fstat;
use serde_json::{Value, json};

use crate::config_file::{ConfigFileError, NAME};
use crate::escape;
use crate::writer::Writer;
use crate::written;

/// How QEMU's sandbox ends it.
const SIGSYS: i32 = nix::sys::signal::Signal::SIGSYS as i32;

/// How long a stderr that takes nothing is waited for.
const UNREAD: Duration = Duration::from_secs(2);

/// So much waits for stderr and the verdict's file before nothing more is read for them: more than
/// a program leaves there that reads stdout to its end first.
const BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// The exit status for our own failures: as of `timeout`, `env` and others that run a program.
pub(crate) const OWN_FAILURE: u8 = 125;

/// Nobody reads what is printed: the exit status of a program that SIGPIPE ends.
const CLOSED: u8 = 128 + 13;

/// Prints what was asked for; the exit status.
pub(crate) fn print(text: &str, status: u8) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => status,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => CLOSED,
        Err(error) => complain(&Failure::Stdout(error).words(), OWN_FAILURE),
    }
}

/// Says on stderr why something was not done; the exit status.
pub(crate) fn complain(words: &str, status: u8) -> u8 {
    // Without a stderr there is nobody to say it to.
    let _ = writeln!(io::stderr(), "qemu-controller: {}", escape::lines(words));
    status
}

/// What prevented a run, or cut it short without being the firmware's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    #[error("the current folder is gone")]
    Folder(#[source] io::Error),
    #[error("{NAME}: {0}")]
    Board(String),
    #[error("--project: there is no folder {}", .0.display())]
    NoFolder(PathBuf),
    #[error("--expect-regex cannot be used")]
    Regex(#[from] regex::Error),
    #[error("{} is not passed on to QEMU: {} is what sets that here", word, option)]
    OwnOption { word: String, option: &'static str },
    #[error(
        "this QEMU has no sandbox, which keeps it from running other programs; \
         --semihosting=full runs the firmware without"
    )]
    NoSandbox(#[source] Box<StartError>),
    #[error(
        "QEMU wants to be told where this board's sound goes: `-audio none` plays it to nobody, for \
         `run` as `-- -audio none`, for `serve` by `qemu-args` in qemu-controller.toml"
    )]
    NoAudio(#[source] Box<StartError>),
    #[error(
        "QEMU lacks the firmware that it starts first on this board (OpenSBI); --bios none starts \
         without it"
    )]
    NoOpenSbi(#[source] Box<StartError>),
    #[error("{address} is in use{owner}: name another port, or --gdb=free for a free one")]
    PortInUse { address: SocketAddr, owner: String },
    #[error(transparent)]
    Debugger(#[from] DebugError),
    #[error(transparent)]
    Firmware(FirmwareError),
    #[error("--symbols")]
    Symbols(#[source] FirmwareError),
    #[error(
        "{} is neither an ELF nor an Intel HEX file; \
         a raw image needs --raw with the address to load it at",
        path.display()
    )]
    UnknownFormat { path: PathBuf },
    #[error(
        "{} knows no machine '{machine}'; `{} -machine help` lists those it knows",
        program.display(), program.display()
    )]
    UnknownMachine { machine: String, program: PathBuf },
    #[error("another QEMU is needed (--qemu), and a machine of its (--machine)")]
    OtherCpu(#[source] FirmwareError),
    #[error("QEMU did not start")]
    Refused(#[source] FirmwareError),
    #[error("QEMU did not start: {}", chain(&**error))]
    Start {
        error: Box<StartError>,
        /// What QEMU said, where that is more than the error has.
        said: Option<String>,
    },
    #[error(transparent)]
    Tests(TestListError),
    #[error(transparent)]
    TestRun(TestRunError),
    #[error("{0}")]
    Usage(String),
    #[error("the firmware did not come to the test {test}: it {why}")]
    TestNotReached { test: String, why: String },
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("{0}")]
    Debug(String),
    #[error("cannot write the log {}", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot write the verdict into {}", path.display())]
    Json { path: PathBuf, source: io::Error },
    #[error("cannot write the coverage into {}", path.display())]
    CoverageFile { path: PathBuf, source: io::Error },
    #[error("cannot read the coverage in {}", path.display())]
    ReadCoverage { path: PathBuf, source: io::Error },
    #[error("the firmware does not use defmt (it has no section .defmt), which --defmt is for")]
    NoDefmt,
    #[error("the firmware has no RTT (no symbol _SEGGER_RTT), which --defmt=rtt is for")]
    NoRtt,
    #[error(transparent)]
    Defmt(#[from] DefmtError),
    #[error("there is no coverage")]
    Coverage(#[from] CoverageError),
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    #[error("cannot {what}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl Failure {
    /// The system refused something.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// In words, with all causes and what QEMU said.
    pub(crate) fn words(&self) -> String {
        self.with_advice(|advice| match advice {
            Advice::Unchecked => "load it with --unchecked".to_owned(),
            other => other.to_string(),
        })
    }

    /// The same with what can be done about a firmware that is refused as `word` words it.
    pub(crate) fn with_advice(&self, word: impl Fn(Advice) -> String) -> String {
        match self {
            Self::Start {
                said: Some(said), ..
            } => format!("{self}\nQEMU said:\n{said}"),
            Self::Refused(error) => format!("{self}: {}", chain_with_advice(error, word)),
            Self::Symbols(error) => {
                let of_symbols = |advice| match advice {
                    Advice::OtherFile(words) => words,
                    _ => "name the ELF file that it was made of",
                };
                format!("{self}: {}", chain_with_advice(error, of_symbols))
            }
            _ => chain(self),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The run is over; whether more was expected of it.
    Ended { report: RunReport, unmet: bool },
    /// It printed what was expected.
    Met,
    /// QEMU printed what it was asked for (`-machine help`) instead of a run.
    Listed,
    /// Its tests were run; whether one failed.
    Tested { failed: bool },
    /// This signal asked us to end; where the firmware was, if that was looked at, in words that are
    /// escaped.
    Interrupted { signal: u8, place: Option<String> },
    /// `--timeout` passed, and nobody can say where the firmware was: why.
    TimedOut(String),
    /// Nobody reads what it prints.
    StdoutClosed,
    /// Another machine of `debug` takes its place.
    Replaced,
    /// It could not be run.
    Failed(Failure),
}

impl Outcome {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            // As of Ctrl-C: somebody wanted no more of it.
            Self::Ended { report, .. } if is_debugger_s(&report.verdict) => 128 + 2,
            Self::Ended { report, unmet } => match report.verdict.exit_code() {
                0 => u8::from(*unmet),
                code => code,
            },
            Self::Met | Self::Listed | Self::Replaced => 0,
            // As of Rust's own test programs.
            Self::Tested { failed } => {
                if *failed {
                    101
                } else {
                    0
                }
            }
            Self::Interrupted { signal, .. } => 128 + signal,
            Self::TimedOut(_) => 124,
            Self::StdoutClosed => CLOSED,
            Self::Failed(_) => OWN_FAILURE,
        }
    }

    /// In one word that stays as it is.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ended { report, .. } => report.verdict.name(),
            Self::Met => "met",
            Self::Listed => "listed",
            Self::Tested { failed: false } => "tests-passed",
            Self::Tested { failed: true } => "tests-failed",
            Self::Interrupted { .. } => "interrupted",
            Self::TimedOut(_) => "timed-out",
            Self::StdoutClosed => "stdout-closed",
            Self::Replaced => "replaced",
            Self::Failed(_) => "failed",
        }
    }

    /// In words, for a person; nothing where there is nothing to say.
    pub(crate) fn words(&self) -> Option<String> {
        match self {
            Self::Ended {
                report,
                unmet: true,
            } => Some(format!(
                "what was expected did not come: {}",
                with_cores(report, escape::line(&report.verdict.to_string()))
            )),
            Self::Ended {
                report,
                unmet: false,
            } => (!report.verdict.success()).then(|| with_cores(report, words_of(&report.verdict))),
            Self::Interrupted { place, .. } => place.clone(),
            Self::TimedOut(why) => Some(escape::line(why)),
            Self::Met
            | Self::Listed
            | Self::Replaced
            | Self::Tested { .. }
            | Self::StdoutClosed => None,
            Self::Failed(failure) => Some(failure.words()),
        }
    }

    /// For a program.
    pub(crate) fn to_json(&self, expecting: bool) -> Value {
        let mut object = json!({
            "event": "end",
            "verdict": self.name(),
            "exit_code": self.exit_code(),
            "expected": match self {
                Self::Met => Some(true),
                // Whatever else ended the run: it came before what was expected.
                _ => expecting.then_some(false),
            },
            "message": self.words(),
        });
        if let Self::Ended { report, .. } = self {
            details(&report.verdict, &mut object);
            object["cores"] = report.cores_json();
        }
        object
    }
}

fn details(verdict: &Verdict, object: &mut Value) {
    match verdict {
        Verdict::LockedUp { dump, place } => {
            object["pc"] = json!(dump.pc());
            object["place"] = json!(place.as_ref().map(ToString::to_string));
            object["registers"] = dump
                .registers()
                .iter()
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect();
        }
        Verdict::TimedOut(hang) => {
            object["pc"] = json!(hang.pc);
            object["place"] = json!(hang.place.as_ref().map(ToString::to_string));
            object["run_state"] = json!(hang.run_state.as_ref().map(|state| state.as_str()));
            object["exception"] = json!(hang.exception.as_ref().map(|exception| exception.number));
            object["handles"] = json!(hang.handles.as_ref().map(ToString::to_string));
            object["halted"] = json!(hang.halted);
            object["no_code"] = json!(hang.no_code);
            object["in_fault_handler"] = json!(hang.in_fault_handler());
            let places = hang.places.iter().map(place_json);
            object["places"] = places.collect();
            object["busy"] = json!(hang.busy);
            object["guest_resets"] = json!(hang.guest_resets.count);
        }
        _ => {}
    }
}

/// Where a core is, of a machine that has several.
fn place_json(place: &CorePlace) -> Value {
    let cluster = place.core.cluster.as_ref();
    json!({
        "core": place.core.number,
        "cluster": cluster.map(|cluster| &cluster.name),
        "model": cluster.map(|cluster| &cluster.model),
        "pc": place.pc,
        "place": place.place.as_ref().map(ToString::to_string),
        "exception": place.exception.as_ref().map(|exception| exception.number),
        "handles": place.handles.as_ref().map(ToString::to_string),
        "halted": place.halted,
    })
}

fn is_debugger_s(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Interrupted(Interruption::Debugger))
}

/// The verdict's words, and below them what is known of the cores. Their texts are escaped.
fn with_cores(report: &RunReport, words: String) -> String {
    match &report.verdict {
        // Its words have the core already.
        Verdict::Faulted(_) => report.verdict.to_string(),
        verdict if verdict.success() => words,
        _ => {
            let note = report.note().map(str::to_owned);
            let cores = report.cores().map(ToString::to_string);
            note.into_iter()
                .chain(cores)
                .fold(words, |words, lines| format!("{words}\n{lines}"))
        }
    }
}

/// A verdict in words. What QEMU said, as it failed, may have several lines.
fn words_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::QemuFailed(exit) if exit.kind() == &ExitKind::Crashed(SIGSYS) => {
            "the system ended QEMU for a system call that its sandbox does not allow (SIGSYS), as \
             to run a program is. Where the firmware asked for that by semihosting and may have it, \
             --semihosting=full lets it"
                .to_owned()
        }
        Verdict::QemuFailed(_) => verdict.to_string(),
        Verdict::Interrupted(Interruption::Debugger) => "the debugger ended the run".to_owned(),
        _ => escape::line(&verdict.to_string()),
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    with_causes(error.to_string(), error)
}

/// The same of a firmware that is refused, with what can be done about it as `word` words it.
pub(crate) fn chain_with_advice<T: fmt::Display>(
    error: &FirmwareError,
    word: impl Fn(Advice) -> T,
) -> String {
    with_causes(error.with_advice(word), error)
}

fn with_causes(text: String, error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(text, |text, cause| {
        let cause = cause.to_string();
        // A text may have its cause in it already.
        match text.contains(&cause) {
            true => text,
            false => format!("{text}: {cause}"),
        }
    })
}

/// Where the program says all that is not the firmware's output.
pub(crate) struct Reporter {
    stderr: Writer,
    json: Json,
    /// The last byte on stdout ended no line.
    in_a_line: Arc<AtomicBool>,
    /// stdout and stderr are one terminal, file or pipe.
    is_one_stream: bool,
    /// Said after how the run ended.
    afterwords: Mutex<Vec<String>>,
}

/// Whether stdout and stderr are one.
fn is_one_stream() -> io::Result<bool> {
    let [stdout, stderr] = [fstat(io::stdout())?, fstat(io::stderr())?];
    let of = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino, stat.st_rdev);
    Ok(of(stdout) == of(stderr))
}

/// Where a program reads of the run.
enum Json {
    Nowhere,
    /// On stderr, one object a line and with nothing else there.
    Stderr,
    File(PathBuf, Writer),
}

impl Reporter {
    /// As `--json` says: `-` is stderr; a file must be none of the others.
    pub(crate) fn new(json: Option<&Path>, others: &[(&Path, &str)]) -> Result<Self, Failure> {
        let json = match json {
            None => Json::Nowhere,
            Some(path) if path == Path::new("-") => Json::Stderr,
            Some(path) => {
                let opened = written::open(path, others).and_then(|file| {
                    written::empty(&file)?;
                    Writer::file("json", file)
                });
                let path = path.to_owned();
                match opened {
                    Ok(writer) => Json::File(path, writer),
                    Err(source) => return Err(Failure::Json { path, source }),
                }
            }
        };
        let stderr = Writer::stderr().map_err(Failure::system("start a thread for stderr"))?;
        Ok(Self {
            stderr,
            json,
            in_a_line: Arc::default(),
            is_one_stream: is_one_stream().unwrap_or(false),
            afterwords: Mutex::default(),
        })
    }

    /// Where the output notes whether stdout is in the middle of a line.
    pub(crate) fn in_a_line(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.in_a_line)
    }

    /// A line of its own on stderr, also behind an unfinished one of the firmware's.
    fn line(&self, line: &dyn fmt::Display) {
        let begun = self.is_one_stream && self.in_a_line.swap(false, Ordering::Relaxed);
        let end_of_other = if begun { "\n" } else { "" };
        self.stderr
            .send(format!("{end_of_other}{line}\n").as_bytes());
    }

    /// Whether stderr is for people.
    fn speaks_in_words(&self) -> bool {
        !matches!(self.json, Json::Stderr)
    }

    /// Says something in words to people, and as an object to a program. What others wrote in it
    /// reaches neither the terminal's control nor the beginning of a line.
    pub(crate) fn say(&self, words: Option<&str>, object: &Value) -> Result<(), Failure> {
        if let Some(words) = words {
            self.pass_on(&format!("qemu-controller: {}", escape::lines(words)));
        }
        self.add(object)
    }

    /// Says something to people once they know how the run ended, and to a program at once.
    pub(crate) fn say_at_the_end(&self, words: String, object: &Value) -> Result<(), Failure> {
        let mut afterwords = self
            .afterwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        afterwords.push(words);
        self.add(object)
    }

    /// Waits until stderr and the verdict's file take more.
    pub(crate) async fn room(&self) {
        self.stderr.below(BACKLOG_BYTES).await;
        if let Json::File(_, writer) = &self.json {
            writer.below(BACKLOG_BYTES).await;
        }
    }

    /// Passes on what the firmware prints to its stderr.
    pub(crate) fn firmware_said(&self, line: &str, object: &Value) -> Result<(), Failure> {
        self.pass_on(line);
        self.add(object)
    }

    /// Passes a line on to people.
    pub(crate) fn pass_on(&self, line: &str) {
        if self.speaks_in_words() {
            self.line(&line);
        }
    }

    /// Adds an object for a program.
    fn add(&self, object: &Value) -> Result<(), Failure> {
        match &self.json {
            Json::Nowhere => {}
            Json::Stderr => self.line(object),
            Json::File(_, writer) => {
                writer.send(format!("{object}\n").as_bytes());
                self.written()?;
            }
        }
        Ok(())
    }

    /// Whether the verdict's file takes what is written.
    fn written(&self) -> Result<(), Failure> {
        match &self.json {
            Json::File(path, writer) => writer.error().map_or(Ok(()), |source| {
                let path = path.clone();
                Err(Failure::Json { path, source })
            }),
            _ => Ok(()),
        }
    }

    /// Waits until all that was said is written, but for what nobody takes.
    fn flush(&self) -> Result<(), Failure> {
        self.stderr.flush_blocking(UNREAD);
        let Json::File(path, writer) = &self.json else {
            return Ok(());
        };
        writer.flush_blocking(UNREAD);
        self.written()?;
        match writer.backlog() {
            0 => Ok(()),
            bytes => Err(Failure::Json {
                path: path.clone(),
                source: io::Error::other(format!("it did not take the last {bytes} bytes")),
            }),
        }
    }

    /// Says how the run ended, and returns the exit status.
    pub(crate) fn end(self, outcome: &Outcome, expecting: bool, took: Duration) -> u8 {
        let mut object = outcome.to_json(expecting);
        object["seconds"] = json!(took.as_secs_f64());
        let said = self.say(outcome.words().as_deref(), &object);
        let afterwords = std::mem::take(
            &mut *self
                .afterwords
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for words in &afterwords {
            self.pass_on(&format!("qemu-controller: {}", escape::lines(words)));
        }
        let status = match said.and_then(|()| self.flush()) {
            Ok(()) => outcome.exit_code(),
            Err(failure) => {
                let words = escape::lines(&failure.words());
                self.pass_on(&format!("qemu-controller: {words}"));
                self.stderr.flush_blocking(UNREAD);
                OWN_FAILURE
            }
        };
        match self.stderr.error() {
            // There is nobody to say it to.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => CLOSED,
            Some(_) => OWN_FAILURE,
            None => status,
        }
    }
}
