//! The lines and functions of a firmware, and the code that each has.

use std::ops::Range;
use std::sync::Arc;

use firmware_info::{Firmware, SourceFunction};

use super::{Coverage, CoverageError, ExecutedCode};

/// The lines and functions of a firmware, and where their code is.
#[derive(Clone, Debug)]
pub struct SourceMap {
    lines: Vec<Line>,
    functions: Vec<SourceFunction>,
}

#[derive(Clone, Debug)]
struct Line {
    file: Arc<str>,
    line: u32,
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
        let of_one_line = pieces.chunk_by(|a, b| (&a.file, a.line) == (&b.file, b.line));
        let lines: Vec<_> = of_one_line
            .filter(|pieces| pieces.iter().any(|piece| piece.begins_statement))
            .map(|pieces| Line {
                file: Arc::clone(&pieces[0].file),
                line: pieces[0].line,
                ranges: pieces.iter().map(|piece| piece.range.clone()).collect(),
            })
            .collect();
        if lines.is_empty() {
            return Err(CoverageError::NoLines);
        }
        Ok(Self {
            lines,
            functions: firmware.source_functions()?,
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
        let ran = |ranges: &[Range<u64>]| ranges.iter().any(|range| executed.overlaps(range));
        let mut coverage = Coverage::default();
        for line in &self.lines {
            coverage.add_line(test, &line.file, line.line, ran(&line.ranges));
        }
        for function in &self.functions {
            let ran = ran(&function.ranges);
            coverage.add_function(test, &function.file, &function.name, function.line, ran);
        }
        coverage
    }
}
