//! How a run ended: as an exit status, in words, and as JSON.

use qemu_controller::{CorePlace, ExitKind, Interruption, RunReport, Verdict};
use serde_json::{Value, json};

use crate::escape;
use crate::failure::Failure;

/// How QEMU's sandbox ends it.
const SIGSYS: i32 = nix::sys::signal::Signal::SIGSYS as i32;

/// The exit status for our own failures: as of `timeout`, `env` and others that run a program.
pub(crate) const OWN_FAILURE: u8 = 125;

/// Nobody reads what is printed: the exit status of a program that SIGPIPE ends.
pub(crate) const CLOSED: u8 = 128 + 13;

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
