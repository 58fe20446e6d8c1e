//! `--bundle`: the machine as it was when it failed, in a folder that `open` starts it from again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use qemu_controller::bundle::{Account, MomentKind, Recorder, Written};
use qemu_controller::qemu_launch::Argv;
use qemu_controller::{QemuConfig, Session, Verdict};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::args::Run;
use crate::calls::Printed;
use crate::failure::{Failure, chain};
use crate::machine;
use crate::outcome::Outcome;
use crate::reporter::Reporter;
use crate::settings::Settings;
use crate::test_run;

/// How long the machine may take to be kept once the run is to end.
const KEEPING: Duration = Duration::from_secs(10);

/// The longest file of coverage that is copied, in bytes.
const COVERAGE: u64 = 1024 * 1024;

/// When a bundle is written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum When {
    /// Not at all
    Never,
    /// When the run fails, or a test
    OnFailure,
    /// After each run, also where it passed or was interrupted
    Always,
}

/// What is kept of a run for its bundle.
pub(crate) struct Bundling {
    when: When,
    recorder: Mutex<Recorder>,
    pub(crate) output: Printed,
    transcript: Printed,
}

impl Bundling {
    /// `None` where no bundle is wanted: with a debugger somebody looks already.
    pub(crate) fn of(run: &Run, settings: &Settings) -> Option<Self> {
        let when = settings.bundle().filter(|_| run.gdb.is_none())?;
        let expecting = run.expect.is_some() || run.expect_regex.is_some();
        let recorder = Recorder::default().every_exit(expecting || when == When::Always);
        Some(Self {
            when,
            recorder: Mutex::new(recorder),
            output: Printed::default(),
            transcript: Printed::default(),
        })
    }

    pub(crate) fn config(&self, config: QemuConfig) -> QemuConfig {
        config.qmp_transcript_to(self.transcript.clone())
    }

    /// Runs the firmware as `--on-fault=stop` does, and keeps the machine before it is gone.
    pub(crate) async fn run(
        &self,
        session: &Session,
        deadline: Duration,
        is_held_up: impl Fn() -> bool + Send,
    ) -> qemu_controller::RunReport {
        let mut recorder = self.recorder.lock().await;
        session
            .run_recorded(deadline, is_held_up, &mut recorder)
            .await
    }

    /// Keeps the machine as it is now, before QEMU is ended, where nothing was kept and it is wanted.
    pub(crate) async fn before_the_end(&self, session: &Session, outcome: &Outcome) {
        let kind = match outcome {
            Outcome::Ended { report, .. } if is_time_out(&report.verdict) => MomentKind::Deadline,
            Outcome::Interrupted { .. } | Outcome::Met if self.when == When::Always => {
                MomentKind::End
            }
            _ => return,
        };
        let mut recorder = self.recorder.lock().await;
        if recorder.moment().is_none() {
            // That it could not be kept, the bundle says.
            let _ = timeout(KEEPING, recorder.keep(session, kind)).await;
        }
    }

    /// Writes the bundle where this outcome wants one, and says where it is.
    pub(crate) async fn finish(
        &self,
        run: &Run,
        settings: &Settings,
        session: &Session,
        outcome: &Outcome,
        reporter: &Reporter,
    ) -> Result<(), Failure> {
        let failed = match outcome {
            Outcome::Ended { .. } | Outcome::TimedOut(_) => outcome.exit_code() != 0,
            _ => false,
        };
        let wanted = match outcome {
            Outcome::Failed(_) | Outcome::Listed | Outcome::StdoutClosed => false,
            _ => failed || self.when == When::Always,
        };
        if !wanted {
            return Ok(());
        }
        let everything = usize::MAX;
        let report = outcome.to_json(run.expect.is_some() || run.expect_regex.is_some());
        let name = test_run::firmware_name(run.firmware.as_deref());
        let words = machine::words_of(run, settings);
        let mut account = Account::new(name, outcome.name())
            .message(outcome.words().unwrap_or_default())
            .extra_args(words.map(|word| word.to_string_lossy().into_owned()))
            .text("output.txt", self.output.piece(None, everything).bytes)
            .text("qmp.txt", self.transcript.piece(None, everything).bytes)
            .text("report.json", format!("{report:#}\n"));
        if let Some(lines) = coverage(run) {
            account = account.text("coverage.info", lines);
        }
        let recorder = self.recorder.lock().await;
        let folder = folder(run.firmware.as_deref(), settings);
        let written = recorder.write(session, account, &folder).await;
        say(&written.map_err(|error| chain(&error)), reporter)
    }
}

fn is_time_out(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::TimedOut(_))
}

/// The lines that ran, where they were wanted.
fn coverage(run: &Run) -> Option<Vec<u8>> {
    let path = run.coverage.as_deref()?;
    let length = path
        .metadata()
        .ok()
        .filter(std::fs::Metadata::is_file)?
        .len();
    (length <= COVERAGE).then(|| std::fs::read(path).ok())?
}

/// Says where the bundle is, and what it lacks. That there is none does not change how a run ended.
pub(crate) fn say(written: &Result<Written, String>, reporter: &Reporter) -> Result<(), Failure> {
    match written {
        Ok(written) => {
            let folder = written.folder.display().to_string();
            let mut words = match written.can_start {
                true => {
                    let open = vec!["open".into(), written.folder.clone().into()];
                    let open = Argv::new("qemu-controller".into(), open);
                    format!("to go on from there: {open}")
                }
                false => {
                    let word = Argv::new(written.folder.clone(), Vec::new());
                    format!("what there is of it is in {word}")
                }
            };
            for missing in &written.missing {
                words += &format!("\nthe bundle lacks {missing}");
            }
            let object = json!({ "event": "bundle", "folder": folder, "missing": written.missing });
            reporter.say_at_the_end(words, &object)
        }
        Err(why) => {
            let words = format!("no bundle was written: {why}");
            let object = json!({ "event": "bundle", "folder": null, "why": why });
            reporter.say_at_the_end(words, &object)
        }
    }
}

/// Where bundles are written: `--bundle-dir`, or Cargo's folder for what it builds, if the firmware
/// is in one, or this folder.
pub(crate) fn folder(firmware: Option<&Path>, settings: &Settings) -> PathBuf {
    if let Some(folder) = &settings.bundle_dir {
        return folder.clone();
    }
    match firmware.and_then(test_run::target_folder) {
        Some(target) => target.join("qemu-controller/bundles"),
        None => PathBuf::from("qemu-controller-bundles"),
    }
}
