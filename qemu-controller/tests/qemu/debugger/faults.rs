//! Stops at a fault and at a panic, before anything is lost.

use qemu_controller::debug::{DebugError, Debugger, StopReason, Until};
use qemu_controller::{QemuConfig, Semihosting, Session, Verdict};

use super::boards::{BOARDS, board_config, start_board};
use super::{config, start};
use crate::support::{DEADLINE, symbol};

/// Runs until a fault, and says which and where its handler is.
async fn run_to_fault(debugger: &mut Debugger) -> (&'static str, u64, u64) {
    let stop = debugger
        .run_until([Until::faults()], DEADLINE)
        .await
        .unwrap();
    let StopReason::Faulted {
        index: 0,
        hits: 1,
        fault,
        ..
    } = &stop.reason
    else {
        panic!("{stop}")
    };
    (fault.name, fault.number, stop.pc.unwrap())
}

#[tokio::test]
async fn a_fault_is_met_before_it_locks_the_core_up() {
    let session = Session::start(config("lockup").start_paused(true))
        .await
        .unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let handler = symbol("lockup", "hard_fault") & !1;
    assert_eq!(run_to_fault(&mut debugger).await, ("HardFault", 3, handler));
    // The frame that the fault pushed is still there: the stacked pc is that of the instruction.
    let sp = debugger.read_register("sp").await.unwrap();
    let pc = debugger.read_memory(sp + 24, 4).await.unwrap();
    let pc = u64::from(u32::from_le_bytes(pc.try_into().unwrap()));
    assert_eq!(debugger.read_memory(pc, 2).await.unwrap(), [0x00, 0xde]);
    // After a reset it is met again, and without a breakpoint it is the end.
    session.reset().await.unwrap();
    assert_eq!(run_to_fault(&mut debugger).await.0, "HardFault");
    let stop = debugger
        .run_until([Until::faults()], DEADLINE)
        .await
        .unwrap();
    let StopReason::Ended(verdict) = &stop.reason else {
        panic!("{stop}")
    };
    assert!(matches!(**verdict, Verdict::LockedUp { .. }), "{stop}");
}

/// Code in RAM, with r0 to r7 and where to begin; the guest's firmware is `tick`'s.
async fn prepare(debugger: &mut Debugger, code: &[u16], registers: &[u64]) {
    let bytes: Vec<u8> = code.iter().flat_map(|half| half.to_le_bytes()).collect();
    debugger.write_memory(CODE, &bytes).await.unwrap();
    for (number, value) in registers.iter().enumerate() {
        let name = format!("r{number}");
        debugger.write_register(&name, *value).await.unwrap();
    }
    debugger.write_register("pc", CODE).await.unwrap();
}

const CODE: u64 = 0x2000_4000;
const TABLE: u64 = 0x2000_6000;
const HANDLER: u64 = 0x2000_7000;
const VTOR: u64 = 0xe000_ed08;
const SHCSR: u64 = 0xe000_ed24;

#[tokio::test]
async fn a_vector_table_that_is_moved_and_changed_is_followed() {
    let session = Session::start(config("tick").start_paused(true))
        .await
        .unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let handlers = [0x46c0_u16, 0xe7fe].map(u16::to_le_bytes).concat();
    debugger.write_memory(HANDLER, &handlers).await.unwrap();
    // str r0, [r1] (VTOR); str r2, [r0, #12]; str r3, [r0, #24]; str r4, [r5]; udf
    let moved = [0x6008, 0x60c2, 0x6183, 0x602c, 0xde00];
    let enabled = |usage: u64| [TABLE, VTOR, HANDLER | 1, HANDLER | 1, usage << 18, SHCSR];
    for (usage, expected) in [
        (0, ("HardFault", 3, HANDLER)),
        (1, ("UsageFault", 6, HANDLER)),
    ] {
        prepare(&mut debugger, &moved, &enabled(usage)).await;
        assert_eq!(run_to_fault(&mut debugger).await, expected);
        session.reset().await.unwrap();
    }
    // A handler that is nowhere would lock the core up.
    let nowhere = [TABLE, VTOR, 0, 0, 0, SHCSR];
    prepare(&mut debugger, &moved, &nowhere).await;
    assert_eq!(run_to_fault(&mut debugger).await, ("HardFault", 3, 0));
    session.reset().await.unwrap();

    // The same function called by the program is no fault: nop; nop; bx r2
    let mut registers = enabled(0);
    prepare(&mut debugger, &[0x6008, 0x60c2, 0x4710], &registers).await;
    let both = [Until::faults(), Until::reaches(HANDLER + 2)];
    let stop = debugger.run_until(both, DEADLINE).await.unwrap();
    let reached = matches!(stop.reason, StopReason::Reached { index: 1, .. });
    assert!(reached, "{stop}");

    // A handler that is a loop of one instruction is one fault, and no more.
    registers[2] = (HANDLER + 2) | 1;
    session.reset().await.unwrap();
    prepare(&mut debugger, &moved, &registers).await;
    assert_eq!(run_to_fault(&mut debugger).await.2, HANDLER + 2);
    let again = [Until::faults()];
    let short = std::time::Duration::from_millis(100);
    let stop = debugger.run_until(again, short).await.unwrap();
    assert!(matches!(stop.reason, StopReason::DeadlinePassed), "{stop}");
    assert_eq!(stop.pc, Some(HANDLER + 2));
}

#[tokio::test]
async fn a_and_risc_v_profiles_take_their_faults_where_their_vectors_are() {
    for board in &BOARDS {
        let session = start_board(board).await;
        let mut debugger = session.debugger().await.unwrap();
        let (undefined, expected): (u32, _) = match board.counter {
            "r0" => (0xe7f0_00f0, ("undefined instruction", 1, 4)),
            "x0" => (0, ("undefined instruction", 0, 0x200)),
            _ => {
                // Without a vector an exception goes to 0, where nothing is.
                debugger
                    .write_register("mtvec", board.ram + 0x100)
                    .await
                    .unwrap();
                (0, ("illegal instruction", 2, board.ram + 0x100))
            }
        };
        let code = undefined.to_le_bytes();
        debugger.write_memory(board.ram, &code).await.unwrap();
        debugger.write_register("pc", board.ram).await.unwrap();
        assert_eq!(
            run_to_fault(&mut debugger).await,
            expected,
            "{}",
            board.qemu
        );
    }
}

/// An ELF file of 32 bits with this code and nothing else.
fn elf(machine: u16, address: u32, code: &[u32]) -> Vec<u8> {
    let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (size, begin) = (code.len() as u32, 84);
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let halves =
        |halves: &[u16]| -> Vec<u8> { halves.iter().flat_map(|h| h.to_le_bytes()).collect() };
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(halves(&[2, machine]));
    elf.extend(words(&[1, address, 52, begin + size, 0]));
    elf.extend(halves(&[52, 32, 1, 40, 3, 2]));
    elf.extend(words(&[1, begin, address, address, size, size, 5, 4]));
    elf.extend(code);
    elf.extend([0; 40]);
    // Allocated and executable.
    elf.extend(words(&[0, 1, 6, address, begin, size, 0, 0, 4, 0]));
    // Section names, all empty: a byte of the header's that is zero.
    elf.extend(words(&[0, 3, 0, 0, 8, 1, 0, 0, 1, 0]));
    elf
}

#[tokio::test]
async fn vectors_that_the_firmware_sets_later_are_followed() {
    // auipc t0, 0; addi t0, t0, 0x40; csrw mtvec, t0; an illegal instruction; at 0x40 a loop
    let mut risc_v = vec![0x0000_0297, 0x0402_8293, 0x3052_9073];
    risc_v.resize(16, 0);
    risc_v.push(0x0000_006f);
    // add r0, pc, #0x38; mcr p15, 0, r0, c12, c0, 0; udf; at 0x40 the vectors, loops
    let mut arm = vec![0xe28f_0038, 0xee0c_0f10, 0xe7f0_00f0];
    arm.resize(16, 0xe320_f000);
    arm.extend([0xeaff_fffe; 8]);
    // The same, with an ecall, which is no fault: sw x0, 0(x0) begins its handler, and is one.
    let mut in_handler = vec![0x0000_0297, 0x0402_8293, 0x3052_9073, 0x0000_0073];
    in_handler.resize(16, 0);
    in_handler.push(0x0000_2023);
    // The same with jr zero: where the vectors were after the reset is where a null pointer leads to.
    let mut null = vec![0x0000_0297, 0x0402_8293, 0x3052_9073, 0x0000_0067];
    null.resize(16, 0);
    null.push(0x0000_006f);
    let folder = tempfile::tempdir().unwrap();
    for (board, machine, from, code, expected) in [
        (
            &BOARDS[2],
            243,
            0x8000_0000,
            risc_v,
            ("illegal instruction", 2, 0x40),
        ),
        (
            &BOARDS[2],
            243,
            0x8000_0000,
            in_handler,
            ("store access fault", 7, 0x40),
        ),
        (
            &BOARDS[2],
            243,
            0x8000_0000,
            null,
            ("instruction access fault", 1, 0x40),
        ),
        (
            &BOARDS[0],
            40,
            0x4001_0000,
            arm,
            ("undefined instruction", 1, 0x44),
        ),
    ] {
        let path = folder.path().join("vectors.elf");
        std::fs::write(&path, elf(machine, from, &code)).unwrap();
        let config = board_config(board).firmware(path);
        let config = config.with_spec(|spec| spec.without_firmware_checks());
        let session = Session::start(config).await.unwrap();
        let mut debugger = session.debugger().await.unwrap();
        let (name, number, offset) = expected;
        let expected = (name, number, u64::from(from) + offset);
        assert_eq!(
            run_to_fault(&mut debugger).await,
            expected,
            "{}",
            board.qemu
        );
    }
}

/// Each fault of the handler grows the stack, and none is like the one before. It is the first that
/// is told.
#[tokio::test]
async fn a_handler_that_faults_for_ever_is_named_by_the_fault_that_it_is_for() {
    // auipc t0, 0; addi t0, t0, 0x40; csrw mtvec, t0; auipc sp, 0x10; an illegal instruction; at 0x40
    // addi sp, sp, -16; sw x0, 0(x0); mret
    let mut code = vec![0x0000_0297_u32, 0x0402_8293, 0x3052_9073, 0x0001_0117];
    code.resize(16, 0);
    code.extend([0xff01_0113, 0x0000_2023, 0x3020_0073]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nested.elf");
    std::fs::write(&path, elf(243, 0x8000_0000, &code)).unwrap();
    let config = board_config(&BOARDS[2]).firmware(path);
    let config = config.with_spec(|spec| spec.without_firmware_checks());
    let session = Session::start(config).await.unwrap();
    let report = session.run_watched(DEADLINE, || false).await;
    let Verdict::Faulted(core) = &report.verdict else {
        panic!("{report}")
    };
    let fault = core.fault.as_ref().unwrap();
    let culprit = &core.backtrace.frames[fault.culprit.unwrap()];
    assert_eq!(
        (fault.words.causes[0].name, culprit.pc),
        ("illegal instruction", 0x8000_0010),
        "{report}"
    );
    let nested = "its handler has taken a fault itself: store access fault";
    assert_eq!(fault.words.escalation.as_deref(), Some(nested), "{report}");
}

#[tokio::test]
async fn where_faults_go_on_other_architectures_is_not_known() {
    let config = QemuConfig::default()
        .qemu("qemu-system-avr")
        .machine("uno")
        .cpu("avr5-avr-cpu")
        .start_paused(true)
        .command_deadline(DEADLINE);
    let session = Session::start(config).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let faults = [Until::faults()];
    let error = debugger.run_until(faults, DEADLINE).await.unwrap_err();
    assert!(matches!(&error, DebugError::NoFaults(arch) if arch == "avr"));
}

#[tokio::test]
async fn a_panic_is_met_where_the_symbols_have_its_handler() {
    // In the second one the handler was inlined.
    for (name, function) in [
        ("debug", "rust_begin_unwind"),
        ("release", "panic_bounds_check"),
    ] {
        let elf = format!(
            "{}/../firmware-info/fixtures/rust/{name}.elf",
            env!("CARGO_MANIFEST_DIR")
        );
        let config = QemuConfig::default()
            .firmware(elf)
            .semihosting(Semihosting::console())
            .start_paused(true);
        let session = Session::start(config).await.unwrap();
        let mut debugger = session.debugger().await.unwrap();
        let gone_wrong = [Until::faults(), Until::panics()];
        let stop = debugger.run_until(gone_wrong, DEADLINE).await.unwrap();
        let StopReason::Panicked {
            index: 1,
            hits: 1,
            function: found,
        } = &stop.reason
        else {
            panic!("{stop}")
        };
        assert!(found.contains(function), "{found}");
    }
    // One that cannot panic does not.
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    let both = [Until::panics(), Until::reaches("tick")];
    let stop = debugger.run_until(both, DEADLINE).await.unwrap();
    let reached = matches!(stop.reason, StopReason::Reached { index: 1, .. });
    assert!(reached, "{stop}");
}
