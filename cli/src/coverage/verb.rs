//! `coverage`: adds up and reads files in lcov's form, as several runs or machines wrote them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use qemu_controller::coverage::Coverage;

use super::file::{self, LcovFile};
use super::summary;
use crate::escape;
use crate::failure::Failure;
use crate::outcome::OWN_FAILURE;
use crate::reporter::{complain, print};
use crate::runtime;

/// Add up and read coverage files, of `run --coverage` or of other tools (lcov)
#[derive(Args, Debug)]
pub(crate) struct CoverageVerb {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add up coverage files into OUT, and print a summary
    ///
    /// Counts are added up, and tests stay apart. OUT is replaced; it may be one of the others.
    Merge {
        /// The file that is written
        out: PathBuf,
        /// The files that are read
        #[arg(value_name = "IN", required = true)]
        files: Vec<PathBuf>,
    },
    /// Print how much of each source file ran
    Summary {
        /// The files that are read
        #[arg(value_name = "IN", required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the tests that ran a line, from files of --coverage-by-test
    Tests {
        /// The line, as in src/main.rs:12; the end of the path is enough
        #[arg(value_name = "FILE:LINE", value_parser = place)]
        place: (String, u32),
        /// The files that are read
        #[arg(value_name = "IN", required = true)]
        files: Vec<PathBuf>,
    },
}

/// The exit status.
pub(crate) fn run(verb: CoverageVerb) -> u8 {
    match done(verb) {
        Ok(text) => print(&text, 0),
        Err(failure) => complain(&failure.words(), OWN_FAILURE),
    }
}

/// What is to be printed.
fn done(verb: CoverageVerb) -> Result<String, Failure> {
    match verb.what {
        What::Merge { out, files } => {
            let coverage = merged(&files)?;
            let file = LcovFile::open(&out, &[])?;
            let coverage = runtime::block_on(file.write(coverage, false))?;
            Ok(shown(&coverage))
        }
        What::Summary { files } => Ok(shown(&merged(&files)?)),
        What::Tests {
            place: (path, line),
            files,
        } => {
            let coverage = merged(&files)?;
            let all = coverage.files();
            let is_meant = |known: &&&str| Path::new(known).ends_with(&path);
            let mut tests: Vec<&str> = all
                .keys()
                .filter(is_meant)
                .flat_map(|known| coverage.tests_of(known, line))
                .collect();
            tests.sort_unstable();
            tests.dedup();
            if tests.is_empty() {
                let why = match all.keys().any(|known| Path::new(known).ends_with(&path)) {
                    true => "no test's name is recorded at this line",
                    false => "these files have nothing of that source file",
                };
                let place = escape::line(&format!("{path}:{line}"));
                // Without a stderr there is nobody to say it to.
                let _ = writeln!(io::stderr(), "qemu-controller: {place}: {why}");
            }
            let names = tests.iter().map(|name| escape::line(name) + "\n");
            Ok(names.collect())
        }
    }
}

fn merged(files: &[PathBuf]) -> Result<Coverage, Failure> {
    let mut all = Coverage::default();
    for path in files {
        let coverage = file::read(path).map_err(|source| Failure::ReadCoverage {
            path: path.clone(),
            source,
        })?;
        all.merge(&coverage);
    }
    Ok(all)
}

fn shown(coverage: &Coverage) -> String {
    escape::lines(&summary::words(coverage)) + "\n"
}

/// A file and a line in it.
fn place(text: &str) -> Result<(String, u32), String> {
    let place = text.rsplit_once(':');
    let place = place.and_then(|(path, line)| Some((path.to_owned(), line.parse().ok()?)));
    place.ok_or_else(|| "a place is a file and a line, as in src/main.rs:12".to_owned())
}
