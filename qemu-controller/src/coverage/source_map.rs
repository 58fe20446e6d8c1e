//! The lines and functions of a firmware, and the code that each has.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use firmware_info::{Firmware, SourceFunction};

use super::{Coverage, CoverageError, ExecutedCode};

/// The lines and functions of a firmware, and where their code is.
#[derive(Clone, Debug)]
pub struct SourceMap {
    /// By path, in its order.
    files: Vec<(Arc<str>, Vec<Line>)>,
    /// Each once.
    functions: Vec<SourceFunction>,
}

#[derive(Clone, Debug)]
struct Line {
    number: u32,
    ranges: Vec<Range<u64>>,
}

impl SourceMap {
    /// Reads it. A line is one where a statement begins; all code that comes from it is its own,
    /// also what was inlined elsewhere, or is there once for each type that a generic function is
    /// used with.
    ///
    /// # Errors
    /// [`CoverageError`]: there is no debug information, or it cannot be used.
    pub fn of(firmware: &Firmware) -> Result<Self, CoverageError> {
        let mut pieces = firmware.code_lines()?;
        pieces.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let mut files = Vec::new();
        for of_one_file in pieces.chunk_by(|a, b| a.file == b.file) {
            let of_one_line = of_one_file.chunk_by(|a, b| a.line == b.line);
            let lines: Vec<_> = of_one_line
                .filter(|pieces| pieces.iter().any(|piece| piece.begins_statement))
                .map(|pieces| Line {
                    number: pieces[0].line,
                    ranges: pieces.iter().map(|piece| piece.range.clone()).collect(),
                })
                .collect();
            if !lines.is_empty() {
                files.push((Arc::clone(&of_one_file[0].file), lines));
            }
        }
        if files.is_empty() {
            return Err(CoverageError::NoLines);
        }
        Ok(Self {
            files,
            functions: distinct(firmware.source_functions()?),
        })
    }

    /// All lines and functions, and which of them ran: those that have an instruction which did.
    #[must_use]
    pub fn coverage(&self, executed: &ExecutedCode) -> Coverage {
        self.coverage_of_test("", executed)
    }

    /// The same, under the name of a test.
    #[must_use]
    pub fn coverage_of_test(&self, test: &str, executed: &ExecutedCode) -> Coverage {
        self.count(test, &[executed])
    }

    /// All lines and functions, and in how many of these runs each ran: as [`coverage`] of each,
    /// [merged], in less time.
    ///
    /// [`coverage`]: Self::coverage
    /// [merged]: Coverage::merge
    #[must_use]
    pub fn coverage_of_runs(&self, runs: &[&ExecutedCode]) -> Coverage {
        self.count("", runs)
    }

    fn count(&self, test: &str, runs: &[&ExecutedCode]) -> Coverage {
        let count = |ranges: &[Range<u64>]| {
            let ran = |run: &&&ExecutedCode| ranges.iter().any(|range| run.overlaps(range));
            runs.iter().filter(ran).count() as u64
        };
        let mut coverage = Coverage::default();
        for (path, lines) in &self.files {
            let counts = lines.iter().map(|line| (line.number, count(&line.ranges)));
            coverage.file(test, path).lines = counts.collect();
        }
        for function in &self.functions {
            coverage.add_function(test, function, count(&function.ranges));
        }
        coverage
    }
}

/// A function may have several entries, and ran where the code of one of them did.
fn distinct(functions: Vec<SourceFunction>) -> Vec<SourceFunction> {
    let mut distinct = BTreeMap::<_, SourceFunction>::new();
    for function in functions {
        let key = (
            Arc::clone(&function.file),
            Arc::clone(&function.name),
            function.line,
        );
        match distinct.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().ranges.extend(function.ranges),
            Entry::Vacant(entry) => {
                entry.insert(function);
            }
        }
    }
    distinct.into_values().collect()
}
