//! How a run ended: as an exit status, in words, and as JSON.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu_controller::qemu_launch::firmware::FirmwareError;
use qemu_controller::{StartError, StopError, Verdict};
use serde_json::{Value, json};

use crate::config_file::ConfigFileError;

/// The exit status for our own failures: as of `timeout`, `env` and others that run a program.
pub(crate) const OWN_FAILURE: u8 = 125;

/// What prevented a run, or cut it short without being the firmware's doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    #[error("the current folder is gone")]
    Folder(#[source] io::Error),
    #[error("--expect-regex is no regular expression")]
    Regex(#[from] regex::Error),
    #[error("the firmware is at fault")]
    Firmware(#[source] FirmwareError),
    #[error(
        "{} is neither an ELF nor an Intel HEX file; a raw image needs --raw with the address to load it at",
        path.display()
    )]
    UnknownFormat { path: PathBuf },
    #[error(
        "{} knows no machine '{machine}'; `{} -machine help` lists those it knows",
        program.display(), program.display()
    )]
    UnknownMachine { machine: String, program: PathBuf },
    #[error("another QEMU is needed (--qemu), and a machine of its (--machine)")]
    OtherCpu(#[source] StartError),
    #[error("QEMU did not start")]
    Start(#[source] StartError),
    #[error(transparent)]
    Stop(#[from] StopError),
    #[error("cannot write the log {}", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("cannot write the verdict into {}", path.display())]
    Json { path: PathBuf, source: io::Error },
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    #[error("cannot {what}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The run is over; whether more was expected of it.
    Ended { verdict: Verdict, unmet: bool },
    /// It printed what was expected.
    Met,
    /// This signal asked us to end.
    Interrupted(u8),
    /// Nobody reads what it prints.
    StdoutClosed,
    /// It could not be run.
    Failed(Failure),
}

impl Outcome {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Ended { verdict, unmet } => match verdict.exit_code() {
                0 => u8::from(*unmet),
                code => code,
            },
            Self::Met => 0,
            Self::Interrupted(signal) => 128 + signal,
            // As of a program that SIGPIPE ends.
            Self::StdoutClosed => 128 + 13,
            Self::Failed(_) => OWN_FAILURE,
        }
    }

    /// In one word that stays as it is.
    fn name(&self) -> &'static str {
        match self {
            Self::Ended { verdict, .. } => verdict.name(),
            Self::Met => "met",
            Self::Interrupted(_) => "interrupted",
            Self::StdoutClosed => "stdout-closed",
            Self::Failed(_) => "failed",
        }
    }

    /// In words, for a person; nothing where there is nothing to say.
    fn words(&self) -> Option<String> {
        match self {
            Self::Ended {
                verdict,
                unmet: true,
            } => Some(format!("what was expected did not come: {verdict}")),
            Self::Ended {
                verdict,
                unmet: false,
            } => (!verdict.success()).then(|| verdict.to_string()),
            Self::Met | Self::Interrupted(_) | Self::StdoutClosed => None,
            Self::Failed(failure) => Some(chain(failure)),
        }
    }

    /// For a program.
    fn to_json(&self) -> Value {
        let mut object = json!({
            "event": "end",
            "verdict": self.name(),
            "exit_code": self.exit_code(),
            "expected": match self {
                Self::Met => Some(true),
                Self::Ended { unmet: true, .. } => Some(false),
                _ => None,
            },
            "message": self.words(),
        });
        if let Self::Ended { verdict, .. } = self {
            details(verdict, &mut object);
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
            object["in_fault_handler"] = json!(hang.in_fault_handler());
            object["busy"] = json!(hang.busy);
            object["guest_resets"] = json!(hang.guest_resets);
        }
        _ => {}
    }
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Where all that is not the firmware's output is said.
pub(crate) enum Reporter {
    /// To people, on stderr.
    Words,
    /// To a program, one object a line, on stderr and with nothing else there.
    JsonOnStderr,
    /// To a program in a file, and to people on stderr.
    JsonInFile { path: PathBuf, file: File },
}

impl Reporter {
    /// As `--json` says; `-` is stderr.
    pub(crate) fn new(json: Option<&Path>) -> Result<Self, Failure> {
        match json {
            None => Ok(Self::Words),
            Some(path) if path == Path::new("-") => Ok(Self::JsonOnStderr),
            Some(path) => match File::create(path) {
                Ok(file) => Ok(Self::JsonInFile {
                    path: path.to_owned(),
                    file,
                }),
                Err(source) => Err(Failure::Json {
                    path: path.to_owned(),
                    source,
                }),
            },
        }
    }

    /// Whether stderr is for people.
    pub(crate) fn speaks_in_words(&self) -> bool {
        !matches!(self, Self::JsonOnStderr)
    }

    /// Says something in words to people, and as an object to a program.
    pub(crate) fn say(&mut self, words: Option<&str>, object: &Value) -> Result<(), Failure> {
        if let Some(words) = words.filter(|_| self.speaks_in_words()) {
            // There is nowhere to complain of a stderr that is closed.
            let _ = writeln!(io::stderr(), "qemu-controller: {words}");
        }
        match self {
            Self::Words => {}
            Self::JsonOnStderr => drop(writeln!(io::stderr(), "{object}")),
            Self::JsonInFile { path, file } => {
                writeln!(file, "{object}").map_err(|source| Failure::Json {
                    path: path.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Says how the run ended, and returns the exit status.
    pub(crate) fn end(mut self, outcome: &Outcome, took: Duration) -> u8 {
        let mut object = outcome.to_json();
        object["seconds"] = json!(took.as_secs_f64());
        match self.say(outcome.words().as_deref(), &object) {
            Ok(()) => outcome.exit_code(),
            Err(failure) => {
                let _ = writeln!(io::stderr(), "qemu-controller: {}", chain(&failure));
                OWN_FAILURE
            }
        }
    }
}
