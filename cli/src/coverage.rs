//! `--coverage`: which lines of the firmware ran, into a file in lcov's form and as a summary.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu_controller::Session;
use qemu_controller::coverage::{Coverage, CoverageError, SourceMap, Totals};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::args::Run;
use crate::report::{Failure, Outcome, Reporter};
use crate::written;

/// How long another run may take to add its coverage to the same file.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// The pause between two looks whether it has.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What a run is to leave behind.
pub(crate) struct Report {
    path: PathBuf,
    file: File,
    merge: bool,
    all: bool,
}

impl Report {
    /// Opens the file, where one is asked for; what is in it stays for now.
    pub(crate) fn open(run: &Run, others: &[(&Path, &str)]) -> Result<Option<Self>, Failure> {
        let Some(path) = run.coverage.clone() else {
            return Ok(None);
        };
        match written::open(&path, others) {
            Ok(file) => Ok(Some(Self {
                path,
                file,
                merge: run.coverage_merge,
                all: run.coverage_all,
            })),
            Err(source) => Err(Failure::CoverageFile { path, source }),
        }
    }

    /// Reads the firmware's lines beside its run.
    pub(crate) fn read_lines(session: &Session) -> JoinHandle<Result<SourceMap, CoverageError>> {
        let session = session.clone();
        tokio::spawn(async move { session.source_map().await })
    }

    /// Writes what ran, and says how much it is. A run that has failed stays what it is.
    pub(crate) async fn finish(
        self,
        session: &Session,
        lines: JoinHandle<Result<SourceMap, CoverageError>>,
        outcome: Outcome,
        reporter: &Reporter,
    ) -> Result<Outcome, Failure> {
        let written = async {
            // It ends with this program's runtime alone.
            let lines = lines.await.map_err(io::Error::other);
            let lines = lines.map_err(Failure::system("read the firmware's lines"))?;
            let mut coverage = lines?.coverage(&session.executed_code()?);
            if !self.all {
                coverage.retain(is_of_the_project);
            }
            self.write(coverage).await
        };
        match (written.await, outcome.exit_code()) {
            (Ok(coverage), _) => {
                reporter.say(Some(&words(&coverage)), &self.to_json(&coverage))?;
                Ok(outcome)
            }
            (Err(failure), 0) => Err(failure),
            (Err(failure), _) => {
                let words = failure.words();
                let object = json!({ "event": "coverage", "message": words });
                reporter.say(Some(&words), &object)?;
                Ok(outcome)
            }
        }
    }

    /// Writes it, added to what is there if that is wanted. One run at a time.
    async fn write(&self, mut coverage: Coverage) -> Result<Coverage, Failure> {
        let failed = |source| Failure::CoverageFile {
            path: self.path.clone(),
            source,
        };
        lock(&self.file).await.map_err(failed)?;
        let is_file = self.file.metadata().is_ok_and(|file| file.is_file());
        if self.merge && is_file {
            let before = File::open(&self.path).map_err(failed)?;
            let before = Coverage::from_lcov(BufReader::new(before));
            coverage.merge(&before.map_err(io::Error::other).map_err(failed)?);
        }
        let mut text = Vec::new();
        let made = coverage.to_lcov(&mut text);
        let replaced = made.and_then(|()| {
            written::empty(&self.file)?;
            (&self.file).write_all(&text)
        });
        // Also unlocked when the program ends.
        let _ = flock(&self.file, FlockOperation::Unlock);
        replaced.map_err(failed)?;
        Ok(coverage)
    }

    fn to_json(&self, coverage: &Coverage) -> Value {
        let files = coverage.files();
        let files = files.iter().map(|(path, file)| {
            let mut object = totals_json(file.totals());
            object["path"] = json!(path);
            object
        });
        let mut object = totals_json(coverage.totals());
        object["event"] = json!("coverage");
        object["lcov"] = json!(self.path.to_string_lossy());
        object["files"] = files.collect();
        object
    }
}

/// Waits for another run that writes the file.
async fn lock(file: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_DEADLINE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            // Not a file that can be locked: a pipe, or a file system without locks.
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOLCK) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < until => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(Errno::AGAIN) => {
                return Err(io::Error::other("another program keeps it locked"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Not the toolchain's own code, nor that of crates from a registry.
fn is_of_the_project(path: &str) -> bool {
    let others = ["/registry/src/", "/git/checkouts/", "/rustlib/src/rust/"];
    !path.starts_with("/rustc/") && !others.iter().any(|other| path.contains(other))
}

/// The sum, and a line for each file.
fn words(coverage: &Coverage) -> String {
    let all = coverage.totals();
    let mut words = format!(
        "coverage: {} of {} lines ({}), {} of {} functions",
        all.lines_hit,
        all.lines,
        percent(all),
        all.functions_hit,
        all.functions
    );
    let folder = std::env::current_dir().unwrap_or_default();
    let files = coverage.files();
    let short = |path: &str| match Path::new(path).strip_prefix(&folder) {
        Ok(rest) => rest.to_string_lossy().into_owned(),
        Err(_) => path.to_owned(),
    };
    let rows: Vec<_> = files
        .iter()
        .map(|(path, file)| (short(path), file.totals()))
        .collect();
    let width = rows.iter().map(|(path, _)| path.chars().count()).max();
    let width = width.unwrap_or(0);
    for (path, totals) in rows {
        let lines = format!("{}/{}", totals.lines_hit, totals.lines);
        words += &format!("\n{path:width$}  {lines:>11}  {:>7}", percent(totals));
    }
    words
}

fn percent(totals: Totals) -> String {
    match totals.lines {
        0 => "-".to_owned(),
        lines => format!("{:.1} %", totals.lines_hit as f64 * 100.0 / lines as f64),
    }
}

fn totals_json(totals: Totals) -> Value {
    json!({
        "lines": totals.lines,
        "lines_hit": totals.lines_hit,
        "functions": totals.functions,
        "functions_hit": totals.functions_hit,
    })
}
