//! Where the program says what is not the firmware's output: on stderr, and for programs as JSON.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::fstat;
use serde_json::{Value, json};

use crate::escape;
use crate::failure::Failure;
use crate::outcome::{CLOSED, OWN_FAILURE, Outcome};
use crate::writer::Writer;
use crate::written;

/// How long a stderr that takes nothing is waited for.
const UNREAD: Duration = Duration::from_secs(2);

/// So much waits for stderr and the verdict's file before nothing more is read for them: more than
/// a program leaves there that reads stdout to its end first.
const BACKLOG_BYTES: usize = 16 * 1024 * 1024;

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
