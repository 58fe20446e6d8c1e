//! `--coverage`, `--coverage-by-test`: which lines of the firmware ran, into a file in lcov's form and
//! as a summary.

mod file;
mod summary;
pub(crate) mod verb;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use qemu_controller::coverage::{Coverage, CoverageError, ExecutedCode, SourceMap};
use qemu_controller::firmware_info::Firmware;
use qemu_controller::{Session, SymbolsError};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::args::Run;
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::reporter::Reporter;
use file::LcovFile;

/// What a run is to leave behind.
pub(crate) struct Report {
    /// All runs and tests together.
    all: Option<LcovFile>,
    /// Each test apart.
    by_test: Option<LcovFile>,
    merge: bool,
    with_libraries: bool,
}

/// The firmware's lines, which are read beside its run.
pub(crate) type Lines = JoinHandle<Result<SourceMap, CoverageError>>;

/// What ran.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// In no test of its own: a boot, or a firmware that is no test.
    pub(crate) others: ExecutedCode,
    /// In each test, by its name.
    pub(crate) tests: BTreeMap<String, ExecutedCode>,
}

impl Report {
    /// Whether a run is to be recorded.
    pub(crate) fn is_wanted(run: &Run) -> bool {
        run.coverage.is_some() || run.coverage_by_test.is_some()
    }

    /// Opens the files, where some are asked for; what is in them stays for now.
    pub(crate) fn open(run: &Run, others: &[(&Path, &str)]) -> Result<Option<Self>, Failure> {
        if !Self::is_wanted(run) {
            return Ok(None);
        }
        let (all, by_test) = (run.coverage.as_deref(), run.coverage_by_test.as_deref());
        let mut taken = others.to_vec();
        taken.extend(all.map(|path| (path, "the file of --coverage")));
        let open = |path, others| LcovFile::open(path, others);
        Ok(Some(Self {
            all: all.map(|path| open(path, others)).transpose()?,
            by_test: by_test.map(|path| open(path, &taken)).transpose()?,
            merge: run.coverage_merge,
            with_libraries: run.coverage_all,
        }))
    }

    /// Reads the firmware's lines beside its run.
    pub(crate) fn read_lines(session: &Session) -> Lines {
        let session = session.clone();
        tokio::spawn(async move { session.source_map().await })
    }

    /// The same, of a run in several sessions.
    pub(crate) fn read_lines_of_tests(run: &Run) -> Lines {
        let path = run
            .symbols
            .first()
            .cloned()
            .or_else(|| run.firmware.clone());
        tokio::task::spawn_blocking(move || {
            let firmware = Firmware::open(path.unwrap_or_default());
            SourceMap::of(&firmware.map_err(SymbolsError::from)?)
        })
    }

    /// Writes what ran, and says how much it is. A run that has failed stays what it is.
    pub(crate) async fn finish(
        self,
        runs: Result<Runs, CoverageError>,
        lines: Lines,
        outcome: Outcome,
        reporter: &Reporter,
    ) -> Result<Outcome, Failure> {
        let written = async {
            // It ends with this program's runtime alone.
            let lines = lines.await.map_err(io::Error::other);
            let lines = lines.map_err(Failure::system("read the firmware's lines"))?;
            self.write(&lines?, &runs?).await
        };
        match (written.await, outcome.exit_code()) {
            (Ok((words, object)), _) => {
                reporter.say(Some(&words), &object)?;
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

    /// Writes the files; the summary in words and for a program.
    async fn write(&self, lines: &SourceMap, runs: &Runs) -> Result<(String, Value), Failure> {
        let all = std::iter::once(&runs.others).chain(runs.tests.values());
        let all: Vec<_> = all.filter(|run| !run.is_empty()).collect();
        let mut coverage = self.of_the_project(lines.coverage_of_runs(&all));
        let mut object = json!({ "event": "coverage" });
        if let Some(file) = &self.all {
            coverage = file.write(coverage, self.merge).await?;
            object["lcov"] = json!(file.path().to_string_lossy());
        }
        if let Some(file) = &self.by_test {
            // The first has all files: one that a test ran nothing of is left out of that.
            let mut by_test = self.of_the_project(lines.coverage(&runs.others));
            for (name, executed) in &runs.tests {
                let mut test = lines.coverage_of_test(name, executed);
                test.leave_out_what_did_not_run();
                by_test.merge(&self.of_the_project(test));
            }
            file.write(by_test, self.merge).await?;
            object["lcov_by_test"] = json!(file.path().to_string_lossy());
        }
        summary::add_json(&coverage, &mut object);
        Ok((summary::words(&coverage), object))
    }

    fn of_the_project(&self, mut coverage: Coverage) -> Coverage {
        if !self.with_libraries {
            coverage.retain(is_of_the_project);
        }
        coverage
    }
}

impl Runs {
    /// Of a firmware that is run as a whole: as one test, by its name.
    pub(crate) fn of_one_test(name: String, executed: ExecutedCode) -> Self {
        Self {
            others: ExecutedCode::default(),
            tests: BTreeMap::from([(name, executed)]),
        }
    }
}

/// Not the toolchain's own code, nor that of crates from a registry.
fn is_of_the_project(path: &str) -> bool {
    let others = ["/registry/src/", "/git/checkouts/", "/rustlib/src/rust/"];
    !path.starts_with("/rustc/") && !others.iter().any(|other| path.contains(other))
}
