//! Source lines: from an address to the line and the functions around it, and back.

use std::fmt;
use std::sync::Arc;

use crate::Firmware;
use crate::dwarf::functions::{Function, Inlined, Scope};
use crate::dwarf::lines::Lines;
use crate::dwarf::{Debug, Result, Unit, name};

/// A function at an address, and where in the source. Displayed as `main at src/main.rs:12:5`; with
/// an approximate line as `main near src/main.rs:12:5`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFrame {
    /// The function, as the source has it; of one without debug information the symbol's name.
    pub function: Option<Arc<str>>,
    /// The line: of the innermost function that of the address, of the others that of the call.
    pub location: Option<SourceLocation>,
    /// The compiler put this function's code into its caller.
    pub inlined: bool,
}

/// A place in the source. Displayed as `src/main.rs:12:5`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceLocation {
    /// The file's path as the compiler knew it.
    pub file: Arc<str>,
    /// The line, from 1; 0 for code that the compiler made up, without any before it in its
    /// function.
    pub line: u32,
    /// The column, from 1; 0 where it is not known.
    pub column: u32,
    /// The compiler made this code up: the line is that of the code before it in the same function,
    /// as gdb shows it. It may never have run.
    pub approximate: bool,
}

/// A function's code. There may be several pieces of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionRanges {
    /// The function, as the source has it.
    pub name: Option<Arc<str>>,
    /// The addresses of its code.
    pub ranges: Vec<std::ops::Range<u64>>,
}

impl Firmware {
    /// The functions at an address, the innermost first: those inlined there, then the one whose
    /// code it is. None where the debug information knows no code there.
    ///
    /// Of a return address ask for the address before it: the call is what is meant.
    ///
    /// # Errors
    /// The debug information cannot be used.
    pub fn source_frames(&self, address: u64) -> Result<Vec<SourceFrame>> {
        let debug = self.debug()?;
        let live = self.live_code();
        let mut line_only = Vec::new();
        for unit in debug.units_at(address) {
            let lines = debug.lines(unit, &live)?;
            if let Some(function) = debug.functions(unit, &live)?.at(address) {
                return frames(debug, unit, lines, function, address);
            }
            let location = lines.row(address).and_then(|row| lines.location(row));
            if location.is_some() && line_only.is_empty() {
                let symbol = self.symbol_at(address);
                line_only.push(SourceFrame {
                    function: symbol.map(|found| found.symbol.name.into()),
                    location,
                    inlined: false,
                });
            }
        }
        Ok(line_only)
    }

    /// Where the code of a line begins. The file is named by the end of its path: `main.rs`,
    /// `src/main.rs`. For a line that has no code it is the next one that has some, as for a
    /// breakpoint; the answer says which line that is.
    ///
    /// # Errors
    /// The debug information cannot be used.
    pub fn line_addresses(&self, file: &str, line: u32) -> Result<Option<LineAddresses>> {
        let debug = self.debug()?;
        let live = self.live_code();
        let mut found = Vec::new();
        for unit in &debug.units {
            debug.lines(unit, &live)?.addresses(file, line, &mut found);
        }
        let Some(nearest) = found.iter().map(|(line, _)| *line).min() else {
            return Ok(None);
        };
        let here = found.into_iter().filter(|(line, _)| *line == nearest);
        let mut addresses: Vec<u64> = here.map(|(_, address)| address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Some(LineAddresses {
            line: nearest,
            addresses,
        }))
    }

    /// The function whose code is at an address, and all of its code.
    ///
    /// # Errors
    /// The debug information cannot be used.
    pub fn function_at(&self, address: u64) -> Result<Option<FunctionRanges>> {
        let debug = self.debug()?;
        let live = self.live_code();
        for unit in debug.units_at(address) {
            if let Some(function) = debug.functions(unit, &live)?.at(address) {
                return Ok(Some(FunctionRanges {
                    name: function_name(debug, unit, function)?,
                    ranges: function.ranges.clone(),
                }));
            }
        }
        Ok(None)
    }
}

/// The addresses of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineAddresses {
    /// The line that has the code: the one that was asked for, or the next.
    pub line: u32,
    /// Where its pieces of code begin, in order.
    pub addresses: Vec<u64>,
}

fn frames(
    debug: &Debug,
    unit: &Unit,
    lines: &Lines,
    function: &Function,
    address: u64,
) -> Result<Vec<SourceFrame>> {
    let scopes = function.scopes(&debug.dwarf, &unit.unit, debug.budget())?;
    let mut location = location(lines, function, scopes, address);
    let mut frames = Vec::new();
    for (scope, inlined) in inlined_at(scopes, address) {
        let named = || name::function(debug, unit, scope.offset).ok().flatten();
        let call = lines.path(inlined.call_file).map(|file| SourceLocation {
            file,
            line: inlined.call_line,
            column: inlined.call_column,
            approximate: false,
        });
        frames.push(SourceFrame {
            function: inlined.name.get_or_init(named).clone(),
            location: std::mem::replace(&mut location, call),
            inlined: true,
        });
    }
    let function = function_name(debug, unit, function)?;
    frames.push(SourceFrame {
        function,
        location,
        inlined: false,
    });
    Ok(frames)
}

/// Where the code of an address is from. Where it is from no line: the line before it in the
/// function that is the innermost one there.
fn location(
    lines: &Lines,
    function: &Function,
    scopes: &[Scope],
    address: u64,
) -> Option<SourceLocation> {
    let own = lines.row(address)?;
    if own.line != 0 {
        return lines.location(own);
    }
    let innermost = |address| {
        inlined_at(scopes, address)
            .next()
            .map(|(scope, _)| scope.offset)
    };
    let here = innermost(address);
    let mut before = lines.lines_before(address);
    match before.find(|row| function.holds(row.address) && innermost(row.address) == here) {
        Some(row) => lines.location(row).map(|found| SourceLocation {
            approximate: true,
            ..found
        }),
        None => lines.location(own),
    }
}

/// The functions that were inlined at an address, innermost first.
fn inlined_at(scopes: &[Scope], address: u64) -> impl Iterator<Item = (&Scope, &Inlined)> {
    let chain = Function::chain(scopes, address).into_iter().rev();
    chain.filter_map(|scope| Some((scope, scope.inlined.as_ref()?)))
}

fn function_name(debug: &Debug, unit: &Unit, function: &Function) -> Result<Option<Arc<str>>> {
    let named = || name::function(debug, unit, function.offset).ok().flatten();
    Ok(function.name.get_or_init(named).clone())
}

impl fmt::Display for SourceFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.as_deref().unwrap_or("??"))?;
        if let Some(location) = &self.location {
            let at = if location.approximate { "near" } else { "at" };
            write!(f, " {at} {location}")?;
        }
        if self.inlined {
            f.write_str(" (inlined)")?;
        }
        Ok(())
    }
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.line, self.column) {
            (0, _) => Ok(()),
            (line, 0) => write!(f, ":{line}"),
            (line, column) => write!(f, ":{line}:{column}"),
        }
    }
}
