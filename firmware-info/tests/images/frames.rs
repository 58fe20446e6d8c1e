//! Backtraces as a real gdb-multiarch has them, at many stops of many images;
//! `fixtures/record-frames.sh` recorded them.

use firmware_info::{End, Guess, MemoryPieces, Registers};

use crate::compare::{Comparison, compare, stops};
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

/// The recorded stops of an image.
pub(crate) fn stops_of(name: &str) -> Vec<(Registers, MemoryPieces)> {
    let text = fixture_text(&format!("{name}.frames.txt"));
    stops(firmware(name).architecture(), &text)
        .into_iter()
        .map(|stop| (stop.registers, stop.memory))
        .collect()
}

#[test]
fn frames_are_those_of_gdb() {
    for name in IMAGES {
        let text = fixture_text(&format!("{name}.frames.txt"));
        let Comparison {
            equal,
            known,
            kinds,
            all,
            different,
            ..
        } = compare(&firmware(name), &text);
        println!(
            "{name}: of {all} frames {equal} equal, {known} known to differ {kinds:?}; {} stops",
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

/// Without PSP, which QEMU before 8.1 does not tell, a backtrace ends at the exception and says
/// why.
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

/// Below the limit register of a v8-M stack nothing is pushed: what lies there, zeros or a pattern,
/// is no frame.
#[test]
fn what_was_never_written_is_no_frame() {
    let firmware = firmware("faults/faults");
    let limit = firmware.stack_bounds().unwrap().limit.unwrap().0;
    let table = firmware.vector_table().unwrap();
    let hard_fault = table.vectors.iter().find(|vector| vector.number == 3);
    let handler = hard_fault.unwrap().address;
    let bytes = |at: u64| {
        let mut word = [0; 4];
        firmware.loaded(at, &mut word).then_some(word)
    };
    let is_call =
        |at: &u64| bytes(*at).is_some_and(|word| word[1] & 0xf8 == 0xf0 && word[3] & 0xd0 == 0xd0);
    let reset = table.reset().unwrap();
    let call = (reset..).step_by(2).find(is_call).unwrap();
    for fill in [0, 0xa5] {
        let mut r = [0; 16];
        (r[13], r[14], r[15]) = (limit as u32, 0xffff_fff9, handler as u32);
        let mut registers = Registers::arm(r);
        registers.xpsr = Some(3);
        let mut memory = |address: u64, buffer: &mut [u8]| {
            buffer.fill(fill);
            if address == limit + 0x40 {
                buffer.copy_from_slice(&(call as u32 + 5).to_le_bytes());
            }
            true
        };
        let backtrace = firmware.backtrace(&registers, &mut memory);
        let caller = &backtrace.frames[1];
        assert_eq!(caller.guess, Some(Guess::StackScan), "{backtrace}");
        assert_eq!(caller.pc, call + 4, "{backtrace}");
    }
}

/// A call through a null pointer, in a thread: the frame that the core pushed has no address of code,
/// and not the bit of Thumb.
#[test]
fn the_frame_of_a_jump_to_nowhere_is_found_by_its_caller() {
    let firmware = firmware("faults/faults");
    let entry = firmware.symbol("null_call").unwrap();
    let mut code = vec![0; entry.size as usize];
    assert!(firmware.loaded(entry.address, &mut code));
    // BLX with a register.
    let halves = code
        .chunks(2)
        .map(|half| u16::from_le_bytes([half[0], half[1]]));
    let call = halves.into_iter().position(|half| half & 0xff87 == 0x4780);
    let lr = entry.address as u32 + 2 * call.unwrap() as u32 + 3;
    let mut r = [0x11; 16];
    r[14] = 0xffff_fffd;
    let mut registers = Registers::arm(r);
    registers.xpsr = Some(3);
    let memory = |lr: u32| {
        let frame = [0x11, 0x11, 0x11, 0x11, 0x11, lr, 0x5000_0000, 0];
        let words = [[0; 8], frame, [0; 8]].concat();
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let find = |lr| firmware.find_process_stack(&registers, 0x2000_0000, &memory(lr));
    assert_eq!(find(lr), Some(0x2000_0020));
    assert_eq!(find(lr + 2), None);
}

/// As of a thread that a kernel of somebody's own starts.
#[test]
fn what_lr_holds_after_a_reset_ends_a_backtrace() {
    let firmware = firmware("c/o2");
    let mut r = [0; 16];
    let begin = firmware.symbol("round_of").unwrap().address as u32;
    (r[13], r[14], r[15]) = (0x2000_8000, 0xffff_ffff, begin);
    let backtrace = firmware.backtrace(&Registers::arm(r), &mut |_: u64, _: &mut [u8]| false);
    assert_eq!((backtrace.frames.len(), backtrace.end), (1, End::Outermost));
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
