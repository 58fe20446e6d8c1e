//! Source lines: from an address to the line and the functions around it, and back.

use std::fmt;
use std::sync::Arc;

use crate::Firmware;
use crate::dwarf::functions::Function;
use crate::dwarf::{Debug, LiveCode, Result, Unit, name};

/// A function at an address, and where in the source. Displayed as `main at src/main.rs:12:5`.
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
    /// The line, from 1; 0 for code that the compiler made up.
    pub line: u32,
    /// The column, from 1; 0 where it is not known.
    pub column: u32,
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
            let location = self.location(debug, unit, &live, address)?;
            if let Some(function) = debug.functions(unit, &live)?.at(address) {
                return frames(debug, unit, function, &live, address, location);
            }
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

    fn location(
        &self,
        debug: &Debug,
        unit: &Unit,
        live: &LiveCode<'_>,
        address: u64,
    ) -> Result<Option<SourceLocation>> {
        let lines = debug.lines(unit, live)?;
        let Some(row) = lines.row(address) else {
            return Ok(None);
        };
        Ok(lines.path(row.file).map(|file| SourceLocation {
            file,
            line: row.line,
            column: row.column,
        }))
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
    function: &Function,
    live: &LiveCode<'_>,
    address: u64,
    mut location: Option<SourceLocation>,
) -> Result<Vec<SourceFrame>> {
    let scopes = function.scopes(&debug.dwarf, &unit.unit, debug.budget())?;
    let mut frames = Vec::new();
    for scope in Function::chain(scopes, address).into_iter().rev() {
        let Some(inlined) = &scope.inlined else {
            continue;
        };
        let named = || {
            name::function(debug, &unit.unit, scope.offset)
                .ok()
                .flatten()
        };
        let call = debug
            .lines(unit, live)?
            .path(inlined.call_file)
            .map(|file| SourceLocation {
                file,
                line: inlined.call_line,
                column: inlined.call_column,
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

fn function_name(debug: &Debug, unit: &Unit, function: &Function) -> Result<Option<Arc<str>>> {
    let named = || {
        name::function(debug, &unit.unit, function.offset)
            .ok()
            .flatten()
    };
    Ok(function.name.get_or_init(named).clone())
}

impl fmt::Display for SourceFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.as_deref().unwrap_or("??"))?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
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
