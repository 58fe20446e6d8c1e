//! Backtraces as a real gdb-multiarch has them, at many stops of many images; `fixtures/record-frames.sh` recorded them.

use firmware_info::{
    Architecture, Backtrace, End, Firmware, Frame, Guess, MemoryPieces, Registers,
};

use crate::{firmware, fixture_text};

const IMAGES: [&str; 12] = [
    "aprofile/arm",
    "aprofile/aarch64",
    "c/o0",
    "c/o2",
    "c/os",
    "c/lto",
    "rust/debug",
    "rust/release",
    "exceptions/hard",
    "exceptions/usage",
    "riscv/debug",
    "riscv/release",
];

/// One frame: `N` for a function's, `I` for an inlined one, `S` for an exception's; function, file, line.
type Line = (char, String, String, u32);

struct Stop<'a> {
    registers: Registers,
    memory: MemoryPieces,
    frames: Vec<Line>,
    /// As recorded.
    text: Vec<&'a str>,
}

fn stops(architecture: Architecture, text: &str) -> Vec<Stop<'_>> {
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
                // A function that ended in a jump to the next one: its frame is gone. gdb infers it from what the
                // caller could have called.
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

/// The recorded stops of an image.
pub(crate) fn stops_of(name: &str) -> Vec<(Registers, MemoryPieces)> {
    let text = fixture_text(&format!("{name}.frames.txt"));
    stops(firmware(name).architecture(), &text)
        .into_iter()
        .map(|stop| (stop.registers, stop.memory))
        .collect()
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

/// The last segment of a path without what is in angle brackets; of a closure that of its function too. gdb
/// writes `core::slice::iter::{impl#171}::fold<u16>` for `<Iter<T> as Iterator>::fold`.
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
struct Comparison {
    equal: usize,
    /// Differences of a known kind, see [`known_difference`].
    known: usize,
    all: usize,
    /// The stops with other differences.
    different: Vec<String>,
}

fn compare(firmware: &Firmware, text: &str) -> Comparison {
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
                (Some(ours), theirs) if known_difference(firmware, &backtrace, ours, theirs) => {
                    comparison.known += 1;
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
) -> bool {
    let Some(theirs) = theirs else {
        // gdb gives up where a handler lost EXC_RETURN (here is a guess, said to be one), and at some
        // instructions of libgcc's assembly, where the frames here go on to the reset handler.
        let guess = Some(Guess::LostExcReturn);
        let guessed = backtrace.frames.iter().any(|frame| frame.guess == guess);
        return guessed || backtrace.end == End::Reset;
    };
    let same_place = (ours.0, &ours.2, ours.3) == (theirs.0, &theirs.2, theirs.3);
    // Code without a line of its own: gdb shows the line before it.
    if ours.0 == theirs.0 && ours.1 == theirs.1 && ours.2 == theirs.2 && ours.3 == 0 {
        return true;
    }
    let Some(symbol) = &frame.symbol else {
        return false;
    };
    // Several names for one address, as the arithmetic of libgcc has them, or a function that is exported under
    // another name than the source has.
    let aliases = firmware
        .symbols()
        .filter(|other| other.address == symbol.symbol.address);
    same_place
        && (aliases
            .into_iter()
            .any(|alias| name(&alias.name) == theirs.1)
            || ours.1 == symbol.symbol.raw_name)
}

#[test]
fn frames_are_those_of_gdb() {
    for name in IMAGES {
        let text = match std::env::var("FRAMES") {
            Ok(folder) => std::fs::read_to_string(format!("{folder}/{name}.frames.txt")).unwrap(),
            Err(_) => fixture_text(&format!("{name}.frames.txt")),
        };
        let Comparison {
            equal,
            known,
            all,
            different,
        } = compare(&firmware(name), &text);
        println!(
            "{name}: of {all} frames {equal} equal, {known} known to differ; {} stops",
            different.len()
        );
        for stop in different.iter().take(4) {
            println!("{stop}");
        }
        assert!(
            all > 20 && (equal + known) * 1000 >= all * 995,
            "{name}: {equal} and {known} of {all}"
        );
    }
}

/// The recordings have every kind of exception's frame that the images were made for.
#[test]
fn exceptions_of_each_kind_are_gone_through() {
    let mut seen = [0; 5];
    for name in ["exceptions/hard", "exceptions/usage"] {
        let firmware = firmware(name);
        for (registers, mut memory) in stops_of(name) {
            let backtrace = firmware.backtrace(&registers, &mut memory);
            let entries = backtrace
                .frames
                .iter()
                .filter_map(|frame| frame.interrupted_by);
            let entries: Vec<_> = entries.collect();
            for entry in &entries {
                assert!(
                    entry
                        .number
                        .is_some_and(|number| matches!(number, 3 | 6 | 11 | 16))
                );
            }
            let guess = backtrace.frames.iter().any(|frame| frame.guess.is_some());
            for (seen, is) in seen.iter_mut().zip([
                entries.iter().any(|entry| entry.on_psp),
                entries.iter().any(|entry| entry.extended),
                entries.iter().any(|entry| entry.realigned),
                entries.len() == 2,
                guess,
            ]) {
                *seen += usize::from(is);
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Without PSP, which QEMU before 8.1 does not tell, a backtrace ends at the exception and says why.
#[test]
fn an_unknown_psp_ends_a_backtrace_in_words() {
    let firmware = firmware("exceptions/usage");
    let ends = stops_of("exceptions/usage")
        .into_iter()
        .map(|(mut registers, mut memory)| {
            registers.psp = None;
            firmware.backtrace(&registers, &mut memory).end.to_string()
        });
    assert!(ends.into_iter().any(|end| end == "PSP is not known"));
}

#[test]
fn a_backtrace_is_printed_a_line_a_function() {
    let firmware = firmware("exceptions/usage");
    let stops = stops_of("exceptions/usage").into_iter();
    let mut texts = stops
        .map(|(registers, mut memory)| firmware.backtrace(&registers, &mut memory).to_string());
    let text = texts.find(|text| text.contains("UsageFault")).unwrap();
    assert!(text.starts_with("#0 0x"), "{text}");
    assert!(
        text.contains(" in usage_fault_handler at /fixtures/exceptions/main.c:"),
        "{text}"
    );
    assert!(
        text.contains("\n   <UsageFault: 26 words on PSP>\n#2 0x"),
        "{text}"
    );
    assert!(
        text.contains(" in divide at /fixtures/exceptions/main.c:"),
        "{text}"
    );
}

/// A caller that cannot read at once fetches what was missing, and asks again.
#[test]
fn memory_may_come_in_pieces() {
    let firmware = firmware("c/o0");
    let (registers, mut whole) = stops_of("c/o0").swap_remove(3);
    let wanted = firmware.backtrace(&registers, &mut whole);
    let mut pieces = MemoryPieces::default();
    let mut rounds = 0;
    let found = loop {
        let found = firmware.backtrace(&registers, &mut pieces);
        let Some((address, length)) = pieces.take_missing() else {
            break found;
        };
        let mut bytes = vec![0; length];
        assert!(firmware_info::Memory::read(&mut whole, address, &mut bytes));
        pieces.insert(address, bytes);
        rounds += 1;
    };
    assert!(rounds > 3 && found.end == End::Reset);
    assert_eq!(found.to_string(), wanted.to_string());
}
