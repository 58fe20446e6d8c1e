//! Compares backtraces with what gdb showed, as `fixtures/record-frames.py` writes it.

use std::collections::BTreeMap;

use firmware_info::{
    Architecture, Backtrace, End, Firmware, Frame, Guess, MemoryPieces, Registers,
};

/// One frame: `N` for a function's, `I` for an inlined one, `S` for an exception's; function, file,
/// line.
type Line = (char, String, String, u32);

pub(crate) struct Stop<'a> {
    pub(crate) registers: Registers,
    pub(crate) memory: MemoryPieces,
    frames: Vec<Line>,
    /// As recorded.
    text: Vec<&'a str>,
}

pub(crate) fn stops(architecture: Architecture, text: &str) -> Vec<Stop<'_>> {
    let mut stops: Vec<Stop<'_>> = Vec::new();
    for line in text.lines().skip(1) {
        if line == "stop" {
            stops.push(Stop {
                registers: Registers::default(),
                memory: MemoryPieces::default(),
                frames: Vec::new(),
                text: Vec::new(),
            });
            continue;
        }
        let stop = stops.last_mut().unwrap();
        let (kind, rest) = line.split_once(' ').unwrap();
        match kind {
            "r" => stop.registers = registers(architecture, rest),
            "m" => {
                let (address, bytes) = rest.split_once(' ').unwrap();
                let bytes = (0..bytes.len())
                    .step_by(2)
                    .map(|at| hex(&bytes[at..at + 2]) as u8);
                stop.memory.insert(hex(address), bytes.collect());
            }
            "f" => {
                stop.text.push(line);
                let (kind, rest) = rest.split_at(2);
                let (_, rest) = rest.split_once(' ').unwrap();
                let mut words = rest.splitn(3, '|');
                let (file, line) = (words.next().unwrap(), words.next().unwrap());
                let kind = kind.chars().next().unwrap();
                // A function that ended in a jump to the next one: its frame is gone. gdb infers it
                // from what the caller could have called.
                if kind == 'T' {
                    continue;
                }
                stop.frames.push(if kind == 'S' {
                    (kind, String::new(), String::new(), 0)
                } else {
                    let function = name(words.next().unwrap());
                    (kind, function, file.to_owned(), line.parse().unwrap())
                });
            }
            _ => stop.text.push(line),
        }
    }
    stops
}

fn registers(architecture: Architecture, words: &str) -> Registers {
    let values: Vec<u64> = words.split(' ').map(hex).collect();
    match architecture {
        Architecture::Riscv32 => Registers::riscv(values[32], values[..32].try_into().unwrap()),
        Architecture::Aarch64 => {
            Registers::aarch64(values[32], values[31], values[..31].try_into().unwrap())
        }
        _ => {
            let r: Vec<u32> = values.iter().map(|value| *value as u32).collect();
            let mut registers = Registers::arm(r[..16].try_into().unwrap());
            registers.xpsr = r.get(16).copied();
            (registers.msp, registers.psp) = (values.get(17).copied(), values.get(18).copied());
            registers
        }
    }
}

fn hex(word: &str) -> u64 {
    u64::from_str_radix(word, 16).unwrap()
}

fn ours(backtrace: &Backtrace) -> Vec<(Line, &Frame)> {
    let mut lines = Vec::new();
    for frame in &backtrace.frames {
        if frame.interrupted_by.is_some() {
            lines.push((('S', String::new(), String::new(), 0), frame));
        }
        for function in &frame.functions {
            let name = name(function.function.as_deref().unwrap_or("?"));
            let (file, line) = match &function.location {
                Some(at) => (at.file.rsplit('/').next().unwrap().to_owned(), at.line),
                None => ("?".to_owned(), 0),
            };
            let kind = if function.inlined { 'I' } else { 'N' };
            lines.push(((kind, name, file, line), frame));
        }
    }
    lines
}

/// The last segment of a path without what is in angle brackets; of a closure that of its function
/// too. gdb writes `core::slice::iter::{impl#171}::fold<u16>` for `<Iter<T> as Iterator>::fold`.
fn name(path: &str) -> String {
    let (mut depth, mut plain) = (0, String::new());
    for letter in path.replace("->", "").chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let mut segments = plain.rsplit("::");
    let last = segments.next().unwrap();
    match last.contains("closure") {
        true => format!("closure in {}", segments.next().unwrap()),
        false => last.to_owned(),
    }
}

#[derive(Default)]
pub(crate) struct Comparison {
    pub(crate) equal: usize,
    /// Differences of a known kind, see [`known_difference`].
    pub(crate) known: usize,
    /// How many of each kind.
    pub(crate) kinds: BTreeMap<&'static str, usize>,
    pub(crate) all: usize,
    /// The stops with other differences.
    pub(crate) different: Vec<String>,
    /// Where gdb shows the line of other code, for [`NO_LINE`].
    pub(crate) without_line: Vec<u64>,
}

pub(crate) const NO_LINE: &str = "no line of its own";

pub(crate) fn compare(firmware: &Firmware, text: &str) -> Comparison {
    let mut comparison = Comparison::default();
    for stop in stops(firmware.architecture(), text) {
        let mut memory = stop.memory.clone();
        let backtrace = firmware.backtrace(&stop.registers, &mut memory);
        let ours = ours(&backtrace);
        let (equal, known) = (comparison.equal, comparison.known);
        for at in 0..ours.len().max(stop.frames.len()) {
            comparison.all += 1;
            match (ours.get(at), stop.frames.get(at)) {
                (Some((ours, _)), Some(theirs)) if ours == theirs => comparison.equal += 1,
                (Some(ours), theirs) => {
                    if let Some(kind) = known_difference(firmware, &backtrace, ours, theirs) {
                        comparison.known += 1;
                        *comparison.kinds.entry(kind).or_default() += 1;
                        if kind == NO_LINE {
                            let frame = ours.1;
                            let is_exact = std::ptr::eq(frame, &backtrace.frames[0])
                                || frame.interrupted_by.is_some();
                            let address = frame.pc - u64::from(!is_exact);
                            comparison.without_line.push(address);
                        }
                    }
                }
                _ => {}
            }
        }
        let good = comparison.equal + comparison.known - equal - known;
        if good < ours.len().max(stop.frames.len()) {
            comparison
                .different
                .push(format!("{}\n{backtrace}", stop.text.join("\n")));
        }
    }
    comparison
}

/// Where gdb and this crate differ on purpose.
fn known_difference(
    firmware: &Firmware,
    backtrace: &Backtrace,
    (ours, frame): &(Line, &Frame),
    theirs: Option<&Line>,
) -> Option<&'static str> {
    let Some(theirs) = theirs else {
        // gdb gives up where a handler lost EXC_RETURN (here is a guess, said to be one), and at
        // some instructions of libgcc's assembly, where the frames here go on to the reset handler.
        let guess = Some(Guess::LostExcReturn);
        let guessed = backtrace.frames.iter().any(|frame| frame.guess == guess);
        return match guessed {
            true => Some("gdb ends, a guess here"),
            false => (backtrace.end == End::Reset).then_some("gdb ends, here it goes on"),
        };
    };
    // Code without a line of its own: gdb shows the line before it, even one of another function.
    let at = frame.functions.first()?.location.as_ref();
    if (ours.0, &ours.1) == (theirs.0, &theirs.1)
        && at.is_some_and(|at| at.approximate || at.line == 0)
    {
        return Some(NO_LINE);
    }
    let same_place = (ours.0, &ours.2, ours.3) == (theirs.0, &theirs.2, theirs.3);
    let mut called_theirs = firmware
        .symbols()
        .filter(|other| name(&other.name) == theirs.1)
        .peekable();
    // By the symbol table, which has no function of gdb's name, and one of this name here.
    let dropped =
        called_theirs.peek().is_none() && ours.1 == frame.symbol.as_ref()?.symbol.raw_name;
    let is_alias =
        called_theirs.any(|alias| (alias.address..alias.address + alias.size).contains(&frame.pc));
    match (same_place, is_alias, dropped) {
        (true, true, _) => Some("another name of the same code"),
        (true, _, true) => Some("gdb names a function that the linker dropped"),
        _ => None,
    }
}
