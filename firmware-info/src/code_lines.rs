//! All code with the lines that it comes from, and all functions with their code: what a coverage
//! report is made of.

use std::ops::Range;
use std::sync::Arc;

use crate::Firmware;
use crate::dwarf::functions::Function;
use crate::dwarf::{Debug, LiveCode, Result, Unit, name};

/// A piece of code and the line that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeLine {
    /// The addresses.
    pub range: Range<u64>,
    /// The file's path as the compiler knew it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// A statement of that line begins here. A piece that begins none is the rest of one: what an
    /// optimiser has moved elsewhere, or another column of the line.
    pub begins_statement: bool,
}

/// A function of the source and all code that it has, in pieces of its own and inlined into others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFunction {
    /// Its name, as the source has it.
    pub name: Arc<str>,
    /// The file that it is in, as the compiler knew it.
    pub file: Arc<str>,
    /// The line that it begins at.
    pub line: u32,
    /// The addresses of its code, in no order.
    pub ranges: Vec<Range<u64>>,
}

impl Firmware {
    /// All code that comes from a line, piece by piece. What [`source_frames`](Self::source_frames)
    /// says of an address is the line of the piece that holds it. Code that the compiler made up
    /// has no piece.
    ///
    /// # Errors
    /// The debug information cannot be used.
    pub fn code_lines(&self) -> Result<Vec<CodeLine>> {
        let debug = self.debug()?;
        let live = self.live_code();
        let mut found = Vec::new();
        for unit in &debug.units {
            debug.lines(unit, &live)?.code(&mut found);
        }
        Ok(found)
    }

    /// All functions that have code and a place in the source, one entry for each place where the
    /// compiler put their code: several entries may have the same name, file and line.
    ///
    /// # Errors
    /// The debug information cannot be used.
    pub fn source_functions(&self) -> Result<Vec<SourceFunction>> {
        let debug = self.debug()?;
        let live = self.live_code();
        let mut found = Vec::new();
        for unit in &debug.units {
            for function in &debug.functions(unit, &live)?.functions {
                add(debug, unit, &live, function, &mut found)?;
            }
        }
        Ok(found)
    }
}

/// Adds a function and what was inlined into it.
fn add(
    debug: &Debug,
    unit: &Unit,
    live: &LiveCode<'_>,
    function: &Function,
    found: &mut Vec<SourceFunction>,
) -> Result<()> {
    let scopes = function.scopes(&debug.dwarf, &unit.unit, debug.budget())?;
    let inlined = scopes.iter().filter(|scope| scope.inlined.is_some());
    let inlined = inlined.map(|scope| (scope.offset, scope.ranges.clone()));
    let own = (function.offset, function.ranges.clone());
    for (offset, ranges) in std::iter::once(own).chain(inlined) {
        let named = name::function(debug, unit, offset)?;
        let declared = name::declared(debug, unit, live, offset)?;
        if let (Some(name), Some((file, line))) = (named, declared) {
            found.push(SourceFunction {
                name,
                file,
                line,
                ranges,
            });
        }
    }
    Ok(())
}
