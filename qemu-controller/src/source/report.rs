//! Where a core is, how it came there, and why it faulted: in words and as JSON.

use std::fmt;

use firmware_info::{Backtrace, End, FaultReport, Frame, Guess, SourceFrame};
use serde_json::{Value, json};

use crate::cores::CoreName;
use crate::escape;

/// How functions are called by which a panic or a failed assertion is reached, but are not the
/// firmware's own code.
const NOT_OWN: [&str; 14] = [
    "core::",
    "alloc::",
    "std::",
    "__rustc::",
    "rust_begin_unwind",
    "panic_",
    "defmt::",
    "default_panic",
    "__assert",
    "__stack_chk",
    "__cxa",
    "abort",
    "vApplication",
    "vAssert",
];

/// How many lines of a backtrace the short report has. With what is before them and the verdict's
/// own line it stays within ten.
const SHOWN: usize = 5;

/// Where a core is and how it came there; of one that faulted, why.
///
/// Displayed in nine lines at the most; with `{:#}` whole. Texts of the firmware's file are escaped
/// in both.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoreReport {
    /// Which core.
    pub core: CoreName,
    /// The function that the firmware gave itself up by, where it did: a panic, an assertion.
    pub panicked_in: Option<String>,
    /// The frames, from the program counter on.
    pub backtrace: Backtrace,
    /// Of a core that is in the handler of a fault.
    pub fault: Option<CoreFault>,
    /// Where the stack pointer of the code that matters is; `None` where the firmware does not say
    /// where its stack ends, or where it is not on that stack.
    pub stack: Option<StackUse>,
}

/// A fault that a core took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoreFault {
    /// The exception that was taken: `HardFault`, `data abort`.
    pub exception: &'static str,
    /// The fault registers in words.
    pub words: FaultReport,
    /// The frame in the backtrace that faulted; `None` where it could not be found.
    pub culprit: Option<usize>,
    /// The instruction that faulted, in hexadecimal digits as a disassembler shows them, where it
    /// can be read.
    pub instruction: Option<String>,
}

/// How much of its stack the firmware has used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackUse {
    /// The stack pointer.
    pub pointer: u64,
    /// Where the stack begins: the address behind its first word.
    pub top: u64,
    /// The lowest address that is its own …
    pub limit: u64,
    /// … and the symbol that says so.
    pub limit_symbol: String,
}

impl StackUse {
    /// The stack pointer is below the stack's end.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.pointer < self.limit
    }
}

impl CoreReport {
    /// The frame that a developer looks for: what faulted, or panicked, or where the core is.
    #[must_use]
    pub fn frame(&self) -> Option<&Frame> {
        self.backtrace.frames.get(self.first_frame())
    }

    fn first_frame(&self) -> usize {
        let frames = &self.backtrace.frames;
        let found = match (&self.fault, &self.panicked_in) {
            (Some(fault), _) => fault.culprit.or_else(|| {
                // Where the stack has overflowed, who was on it.
                let scanned = |frame: &Frame| frame.guess == Some(Guess::StackScan);
                frames.iter().position(scanned)
            }),
            (None, Some(_)) => self.own_frame(),
            (None, None) => None,
        };
        found.unwrap_or(0)
    }

    /// Whether a thread's stack pointer may tell more: the frames end for want of it, or one was looked
    /// for on the main stack alone.
    pub(crate) fn lacks_psp(&self) -> bool {
        let backtrace = &self.backtrace;
        let is_looked_for =
            |frame: &Frame| matches!(frame.guess, Some(Guess::StackScan | Guess::LostExcReturn));
        matches!(&backtrace.end, End::UnknownRegister { register } if register == "PSP")
            || backtrace.frames.iter().any(is_looked_for)
    }

    /// Of a panic the first frame of the firmware's own. The very first is the panic's handler, be it
    /// of the firmware's own or of a test crate's.
    fn own_frame(&self) -> Option<usize> {
        let frames = &self.backtrace.frames;
        (1..frames.len()).find(|at| own_function(&frames[*at]).is_some())
    }

    /// What happened and where, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let place = self.place();
        let text = match (&self.fault, &self.panicked_in) {
            (Some(fault), _) => {
                // The others, and what it was escalated by, have lines of their own.
                let causes = fault.words.causes_in_words();
                let what = &causes[0];
                match (fault.culprit, self.first_frame()) {
                    (Some(_), _) => format!("{what}, in {place}"),
                    (None, 0) => {
                        format!("{what}; which code did it is not known, now it is in {place}")
                    }
                    (None, _) => format!("{what}; the stack is that of {place}"),
                }
            }
            // All of them are the panic's own: the functions that it comes by never return, and
            // on RISC-V save no return address.
            (None, Some(function)) if is_rust(function) && self.own_frame().is_none() => {
                "panicked; the stack does not show where".to_owned()
            }
            (None, Some(function)) if is_rust(function) => format!("panicked, in {place}"),
            (None, Some(function)) => format!("{function} was called, in {place}"),
            (None, None) => format!("{} is in {place}", self.core),
        };
        match (&self.core, &self.fault, &self.panicked_in) {
            // It says so, or may be the only one.
            (_, None, None) => escape::line(&text),
            (core, ..) if core.number == 0 && core.cluster.is_none() => escape::line(&text),
            (core, ..) => escape::line(&format!("{core}: {text}")),
        }
    }

    /// Where the frame is that matters: of code that the file does not know also who called it.
    fn place(&self) -> String {
        let first = self.first_frame();
        let Some(frame) = self.backtrace.frames.get(first) else {
            return String::new();
        };
        let function = match (&self.fault, &self.panicked_in) {
            (None, Some(_)) => own_function(frame),
            _ => frame.functions.first(),
        };
        let place = function.map_or_else(|| place(frame), ToString::to_string);
        let caller = self.backtrace.frames.get(first + 1);
        let caller = caller.filter(|caller| caller.guess == Some(Guess::LinkRegister));
        match caller.and_then(|caller| caller.functions.first()) {
            Some(caller) => format!("{place}, called by {caller}"),
            None => place,
        }
    }

    /// The lines of the short report behind the summary, not indented.
    fn details(&self, full: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(fault) = &self.fault {
            if full {
                lines.push(format!("exception: {}", fault.exception));
                lines.extend(format!("{:#}", fault.words).lines().map(str::to_owned));
            } else {
                let others = fault.words.causes_in_words().into_iter().skip(1);
                lines.extend(others.map(|cause| format!("and {cause}")));
                lines.extend(fault.words.escalation.clone());
            }
        }
        let mut facts = Vec::new();
        if let (Some(instruction), Some(frame)) = (self.instruction(), self.frame()) {
            facts.push(format!("instruction {instruction} at {:#010x}", frame.pc));
        }
        facts.extend(self.stack.as_ref().map(ToString::to_string));
        if !facts.is_empty() {
            lines.push(facts.join("; "));
        }
        lines
    }

    fn instruction(&self) -> Option<&str> {
        self.fault.as_ref()?.instruction.as_deref()
    }

    /// One line a function, from the frame that matters on, or from the first.
    fn frame_lines(&self, full: bool) -> Vec<String> {
        let first = if full { 0 } else { self.first_frame() };
        let frames = self.backtrace.frames.iter().enumerate().skip(first);
        let mut lines: Vec<String> = frames.flat_map(frame_lines).collect();
        if !self.backtrace.end.is_complete() {
            lines.push(format!("(it ends here: {})", self.backtrace.end));
        }
        lines
    }

    /// For a program: what the report has, in objects.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fault = self.fault.as_ref().map(|fault| {
            let causes = fault.words.causes.iter().map(|cause| {
                json!({ "exception": cause.exception, "name": cause.name, "meaning": cause.meaning })
            });
            let registers = fault.words.registers.iter();
            let registers = registers.map(|(name, value)| ((*name).to_owned(), json!(value)));
            json!({
                "exception": fault.exception,
                "causes": causes.collect::<Vec<_>>(),
                "address": fault.words.address,
                "escalation": fault.words.escalation,
                "notes": fault.words.notes,
                "registers": registers.collect::<serde_json::Map<_, _>>(),
                "frame": fault.culprit,
                "instruction": fault.instruction,
            })
        });
        let stack = self.stack.as_ref().map(|stack| {
            json!({
                "pointer": stack.pointer,
                "top": stack.top,
                "limit": stack.limit,
                "limit_symbol": stack.limit_symbol,
                "overflowed": stack.overflowed(),
            })
        });
        let cluster = self.core.cluster.as_ref();
        json!({
            "core": self.core.number,
            "cluster": cluster.map(|cluster| &cluster.name),
            "model": cluster.map(|cluster| &cluster.model),
            "summary": self.summary(),
            "panicked_in": self.panicked_in,
            "fault": fault,
            "stack": stack,
            "backtrace": self.backtrace.frames.iter().map(frame_json).collect::<Vec<_>>(),
            "backtrace_end": self.backtrace.end.to_string(),
        })
    }
}

impl fmt::Display for CoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = f.alternate();
        f.write_str(&self.summary())?;
        let mut lines = self.details(full);
        let mut frames = self.frame_lines(full);
        if !full && frames.len() > SHOWN + 1 {
            let left_out = frames.len() - SHOWN;
            frames.truncate(SHOWN);
            frames.push(format!("({left_out} more lines)"));
        }
        lines.extend(frames);
        for line in lines {
            write!(f, "\n  {}", escape::line(&line))?;
        }
        Ok(())
    }
}

impl fmt::Display for StackUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.overflowed() {
            let below = self.limit - self.pointer;
            return write!(
                f,
                "stack overflow: SP {:#010x} is {below} bytes below {}, where the stack ends",
                self.pointer, self.limit_symbol
            );
        }
        let (left, size) = (self.pointer - self.limit, self.top - self.limit);
        write!(
            f,
            "{left} of {size} bytes of stack left (to {})",
            self.limit_symbol
        )
    }
}

/// The innermost function of a frame, and its line.
fn place(frame: &Frame) -> String {
    match frame.functions.first() {
        Some(function) => function.to_string(),
        None => format!("code at {:#010x} that no symbol names", frame.pc),
    }
}

/// The first function of a frame that is the firmware's own: none of those by which Rust's libraries
/// come to a panic, nor the functions that a failed assertion and the like come to.
fn own_function(frame: &Frame) -> Option<&SourceFrame> {
    let is_own = |function: &&SourceFrame| {
        let name = function.function.as_deref().unwrap_or_default();
        let name = name.trim_start_matches('<');
        // Functions that the compiler made up for a library's have no path in their names.
        let file = function.location.as_ref().map_or("", |at| &*at.file);
        let is_of_rust = file.starts_with("/rustc/") || file.contains("/rustlib/src/rust/library/");
        !is_of_rust && !NOT_OWN.iter().any(|prefix| name.starts_with(prefix))
    };
    frame.functions.iter().find(is_own)
}

/// Whether it is the function with `#[panic_handler]`.
fn is_rust(function: &str) -> bool {
    function.contains("rust_begin_unwind")
}

fn frame_lines((number, frame): (usize, &Frame)) -> Vec<String> {
    let mut lines = Vec::new();
    let entry = frame.interrupted_by.as_ref();
    let guess = frame.guess.map(|guess| guess.to_string());
    let notes: Vec<String> = entry
        .map(|entry| format!("interrupted by {entry}"))
        .into_iter()
        .chain(guess)
        .collect();
    let notes = match notes.is_empty() {
        true => String::new(),
        false => format!(" <{}>", notes.join("; ")),
    };
    let first = match frame.functions.first() {
        Some(function) => function.to_string(),
        None => "code that no symbol names".to_owned(),
    };
    lines.push(format!("#{number} {:#010x} {first}{notes}", frame.pc));
    let outer = frame.functions.iter().skip(1);
    lines.extend(outer.map(|function| format!("   in {function}")));
    lines
}

fn frame_json(frame: &Frame) -> Value {
    let functions = frame.functions.iter().map(|function| {
        let location = function.location.as_ref();
        json!({
            "function": function.function.as_deref(),
            "file": location.map(|location| &*location.file),
            "line": location.map(|location| location.line).filter(|line| *line != 0),
            "column": location.map(|location| location.column).filter(|column| *column != 0),
            "approximate": location.is_some_and(|location| location.approximate),
            "inlined": function.inlined,
        })
    });
    json!({
        "pc": frame.pc,
        "functions": functions.collect::<Vec<_>>(),
        "symbol": frame.symbol.as_ref().map(ToString::to_string),
        "interrupted_by": frame.interrupted_by.as_ref().map(ToString::to_string),
        "guess": frame.guess.map(|guess| guess.to_string()),
    })
}
