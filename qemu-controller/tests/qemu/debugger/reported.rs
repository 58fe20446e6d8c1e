//! What users of other debuggers have reported as going wrong, on a Cortex-M with a few instructions
//! in its RAM.

use std::time::Duration;

use qemu_controller::Session;
use qemu_controller::debug::{Debugger, Stop, StopReason, Until};

use super::config;
use crate::support::DEADLINE;

const CODE: u64 = 0x2000_4000;
const FUNCTION: u64 = 0x2000_4100;
const TABLE: u64 = 0x2000_6000;
const HANDLER: u64 = 0x2000_7000;
const DATA: u64 = 0x2000_8000;

const NOP: u16 = 0xbf00;
const RETURN: u16 = 0x4770;

/// A machine before its first instruction, about to execute these at [`CODE`].
async fn prepared(code: &[u16], registers: &[(&str, u64)]) -> (Session, Debugger) {
    let session = Session::start(config("tick").start_paused(true)).await;
    let session = session.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    write(&mut debugger, CODE, code).await;
    for (name, value) in registers.iter().copied().chain([("pc", CODE)]) {
        debugger.write_register(name, value).await.unwrap();
    }
    (session, debugger)
}

async fn write(debugger: &mut Debugger, at: u64, halves: &[u16]) {
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    debugger.write_memory(at, &bytes).await.unwrap();
}

/// Executes what sets SysTick up to interrupt once after so many cycles, or again and again, and goes
/// back to [`CODE`]. The handler counts in r5.
async fn interrupt(debugger: &mut Debugger, cycles: u64, is_once: bool) {
    // adds r5, #1; str r4, [r7]; bx lr
    let once = if is_once { 0x603c } else { NOP };
    write(debugger, HANDLER, &[0x3501, once, RETURN]).await;
    let vector = (HANDLER as u32 | 1).to_le_bytes();
    debugger
        .write_memory(TABLE + 4 * 15, &vector)
        .await
        .unwrap();
    // str r0, [r1]; str r2, [r3]; str r2, [r3, #4]; str r6, [r7]; nop
    let enable = CODE + 0x200;
    write(debugger, enable, &[0x6008, 0x601a, 0x605a, 0x603e, NOP]).await;
    let registers = [
        ("r0", TABLE),
        ("r1", 0xe000_ed08),
        ("r2", cycles),
        ("r3", 0xe000_e014),
        ("r4", 0),
        ("r5", 0),
        ("r6", 7),
        ("r7", 0xe000_e010),
        ("pc", enable),
    ];
    for (name, value) in registers {
        debugger.write_register(name, value).await.unwrap();
    }
    for _ in 0..4 {
        step(debugger).await;
    }
    debugger.write_register("pc", CODE).await.unwrap();
}

async fn run(debugger: &mut Debugger, until: Until<'_>) -> Stop {
    debugger.run_until([until], DEADLINE).await.unwrap()
}

async fn step(debugger: &mut Debugger) -> u64 {
    let stop = debugger.step_instruction().await.unwrap();
    assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
    stop.pc.unwrap()
}

/// blackmagic 2124: it went on as if it had been told to continue.
#[tokio::test]
async fn a_step_out_of_an_interrupt_ends_where_it_came_from() {
    // adds r0, #1; b to it
    let (_session, mut debugger) = prepared(&[0x3001, 0xe7fd], &[]).await;
    for _ in 0..5 {
        interrupt(&mut debugger, 4_000_000, true).await;
        let stop = run(&mut debugger, Until::reaches(HANDLER)).await;
        assert!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
        assert_eq!(step(&mut debugger).await, HANDLER + 2);
        assert_eq!(step(&mut debugger).await, HANDLER + 4);
        let back = step(&mut debugger).await;
        assert!((CODE..CODE + 4).contains(&back), "{back:#x}");
        let next = step(&mut debugger).await;
        assert_eq!(next, CODE + CODE + 2 - back);
    }
}

/// probe-rs 4030: it stopped inside of the function.
#[tokio::test]
async fn a_step_over_a_call_is_not_ended_by_interrupts() {
    // bl FUNCTION; nop. There: movs r0, #200; subs r0, #1; bne to it; bx lr
    let (_session, mut debugger) = prepared(&[0xf000, 0xf87e, NOP], &[]).await;
    write(&mut debugger, FUNCTION, &[0x20c8, 0x3801, 0xd1fd, RETURN]).await;
    interrupt(&mut debugger, 50, false).await;
    let stop = debugger.step_over(DEADLINE).await.unwrap();
    assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
    assert_eq!(stop.pc, Some(CODE + 4));
    assert_eq!(debugger.read_register("r0").await.unwrap(), 0);
    assert_ne!(debugger.read_register("r5").await.unwrap(), 0, "none came");
}

/// ghidra 3809: what did not change was passed over, and after a load everything was.
#[tokio::test]
async fn a_write_of_the_same_value_is_a_write_and_so_it_is_after_a_load() {
    // str r0, [r1]; b to it
    let registers = [("r0", 7), ("r1", DATA)];
    let (session, mut debugger) = prepared(&[0x6008, 0xe7fd], &registers).await;
    session.save_snapshot("before").await.unwrap();
    for _ in 0..2 {
        for number in 0..3 {
            let stop = run(&mut debugger, Until::writes(DATA, 4)).await;
            let StopReason::Watched { old, new, .. } = &stop.reason else {
                panic!("{stop}")
            };
            assert_eq!((old[0], new[0]), (if number == 0 { 0 } else { 7 }, 7));
        }
        session.load_snapshot("before").await.unwrap();
    }
}

/// blog_os 876: what loads the code overwrote the breakpoints in it.
#[tokio::test]
async fn a_breakpoint_stays_where_code_is_written_later() {
    // strh r2, [r3]; bx r4: a loop, there
    let registers = [("r2", 0xe7fe), ("r3", FUNCTION), ("r4", FUNCTION | 1)];
    let (_session, mut debugger) = prepared(&[0x801a, 0x4720], &registers).await;
    let stop = run(&mut debugger, Until::reaches(FUNCTION)).await;
    assert!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
    assert_eq!(
        debugger.read_memory(FUNCTION, 2).await.unwrap(),
        [0xfe, 0xe7]
    );
}

/// ilg's qemu 23: a `bkpt` went to a handler, and nothing was said.
#[tokio::test]
async fn a_bkpt_is_a_fault_that_is_met() {
    let (_session, mut debugger) = prepared(&[NOP, 0xbe00], &[]).await;
    let stop = run(&mut debugger, Until::faults()).await;
    let StopReason::Faulted { fault, .. } = &stop.reason else {
        panic!("{stop}")
    };
    assert_eq!(fault.name, "HardFault");
}

/// agentic-hil 495: after a time-out the guest went on, and could not be stopped any more.
#[tokio::test]
async fn a_guest_that_sleeps_is_stopped_at_the_deadline() {
    // wfi; b to it
    let (session, mut debugger) = prepared(&[0xbf30, 0xe7fd], &[]).await;
    let short = Duration::from_millis(100);
    for _ in 0..3 {
        let never = [Until::reaches(FUNCTION)];
        let stop = debugger.run_until(never, short).await.unwrap();
        assert!(matches!(stop.reason, StopReason::DeadlinePassed), "{stop}");
        assert!(!session.query_status().await.unwrap().running);
        assert!((CODE..CODE + 4).contains(&stop.pc.unwrap()), "{stop}");
    }
}

/// QEMU's 213: a write to a device was lost, and nothing was said. Since 10.0 it is done.
#[tokio::test]
async fn a_write_to_a_device_is_done_or_refused() {
    let (session, mut debugger) = prepared(&[NOP], &[]).await;
    const RELOAD: u64 = 0xe000_e014;
    let written = debugger.write_memory(RELOAD, &[0x34, 0x12, 0, 0]).await;
    let there = debugger.read_memory(RELOAD, 4).await.unwrap();
    if session.qemu_version().major < 10 {
        let error = written.unwrap_err().to_string();
        let words = "there is no memory at 0xe000e014 that can be written";
        assert_eq!((error.as_str(), there), (words, vec![0; 4]));
    } else {
        written.unwrap();
        assert_eq!(there, [0x34, 0x12, 0, 0]);
    }
}

/// grisp 33 and probe-rs 1211: a breakpoint at an endless loop of one instruction was not left, or
/// the loop was.
#[tokio::test]
async fn a_loop_of_one_instruction_is_met_again_and_again() {
    // nop; b to itself
    let (_session, mut debugger) = prepared(&[NOP, 0xe7fe], &[]).await;
    for skip in [0, 0, 3] {
        let stop = run(&mut debugger, Until::reaches(CODE + 2).skip(skip)).await;
        let StopReason::Reached { hits, .. } = stop.reason else {
            panic!("{stop}")
        };
        assert_eq!((hits, stop.pc), (skip + 1, Some(CODE + 2)));
        assert_eq!(step(&mut debugger).await, CODE + 2);
    }
}

/// probe-run 76: of an ARMv6-M core, which has no VTOR, no fault was told.
#[tokio::test]
async fn a_core_without_vtor_takes_its_faults_at_the_table_at_zero() {
    let config = super::board("microbit").cpu("cortex-m0").memory("16K");
    let session = Session::start(config).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let (code, handler) = (0x2000_0000, 0x2000_0100);
    write(&mut debugger, code, &[NOP, 0xde00]).await;
    write(&mut debugger, handler, &[0xe7fe]).await;
    let vector = (handler as u32 | 1).to_le_bytes();
    debugger.write_memory(4 * 3, &vector).await.unwrap();
    for (name, value) in [("sp", 0x2000_2000), ("pc", code)] {
        debugger.write_register(name, value).await.unwrap();
    }
    // Thumb, which a core that began without a vector is not in.
    debugger.write_register("xpsr", 0x0100_0000).await.unwrap();
    let stop = run(&mut debugger, Until::faults()).await;
    let StopReason::Faulted { fault, .. } = &stop.reason else {
        panic!("{stop}")
    };
    assert_eq!((fault.name, stop.pc), ("HardFault", Some(handler)));
}
