//! Instructions that wait for an interrupt, which QEMU holds back while it steps: a breakpoint at
//! one, and a step over one.

use std::time::Duration;

use qemu_controller::debug::{Debugger, StopReason, Until};
use qemu_controller::{QemuConfig, Session};

use crate::support::DEADLINE;

/// A board, and a program that a timer wakes every few milliseconds: it counts how often it went on
/// after it waited, and the interrupts that were the reason.
struct Sleeper {
    name: &'static str,
    qemu: &'static str,
    machine: &'static str,
    args: &'static [&'static str],
    registers: &'static [(&'static str, u64)],
    /// The program's address, and its instructions in pieces.
    code: u64,
    program: Program,
    /// Offsets of the instruction that waits, and of what is executed next.
    waits: u64,
    next: u64,
    woken: &'static str,
    interrupts: &'static str,
}

enum Program {
    /// Thumb, with its handler at this offset for SysTick in the table before it.
    Thumb(&'static [u16], u64),
    Words(&'static [u32]),
}

const VECTORS: u64 = 0x2000_0000;
const THUMB_CODE: u64 = VECTORS + 0x40;
const ARM_CODE: u64 = 0x4000_0000;
const SYST: u64 = 0xe000_e010;
/// VTOR, SysTick, its period, and what turns it on.
const THUMB_REGISTERS: [(&str, u64); 8] = [
    ("xpsr", 1 << 24),
    ("sp", VECTORS + 0x1000),
    ("r0", SYST),
    ("r1", 0xe000_ed08),
    ("r2", VECTORS),
    ("r3", 7),
    ("r6", 50_000),
    ("pc", THUMB_CODE),
];

const CORTEX_M: Sleeper = Sleeper {
    name: "Cortex-M",
    qemu: "qemu-system-arm",
    machine: "lm3s6965evb",
    args: &[],
    registers: &THUMB_REGISTERS,
    code: THUMB_CODE,
    // str r2, [r1]; str r6, [r0, #4]; str r6, [r0, #8]; str r3, [r0];
    // wfi; adds r4, #1; b to wfi; nop; handler: adds r5, #1; bx lr
    program: Program::Thumb(
        &[
            0x600a, 0x6046, 0x6086, 0x6003, 0xbf30, 0x3401, 0xe7fc, 0xbf00, 0x3501, 0x4770,
        ],
        0x10,
    ),
    waits: 8,
    next: 10,
    woken: "r4",
    interrupts: "r5",
};

const SLEEPERS: [Sleeper; 4] = [
    CORTEX_M,
    Sleeper {
        name: "Cortex-M that waits with interrupts masked",
        // The same with cpsid i before the wfi, and cpsie i after it.
        program: Program::Thumb(
            &[
                0x600a, 0x6046, 0x6086, 0x6003, 0xb672, 0xbf30, 0xb662, 0x3401, 0xe7fa, 0xbf00,
                0x3501, 0x4770,
            ],
            0x14,
        ),
        waits: 10,
        next: 12,
        ..CORTEX_M
    },
    Sleeper {
        name: "RISC-V",
        qemu: "qemu-system-riscv32",
        machine: "virt",
        args: &["-bios", "none"],
        registers: &[
            ("a0", 0x200_4000),
            ("a1", 0x200_bff8),
            ("a2", 30_000),
            ("a3", 0x8000_001c),
            ("a4", 0x80),
            ("pc", 0x8000_0000),
        ],
        code: 0x8000_0000,
        // csrw mtvec, a3; csrw mie, a4; csrs mstatus, 8; sw zero, 4(a0);
        // wfi; addi s0, s0, 1; j to wfi;
        // handler: lw t0, 0(a1); add t0, t0, a2; sw t0, 0(a0); addi s1, s1, 1; mret
        program: Program::Words(&[
            0x3056_9073,
            0x3047_1073,
            0x3004_6073,
            0x0005_2223,
            0x1050_0073,
            0x0014_0413,
            0xff9f_f06f,
            0x0005_a283,
            0x00c2_82b3,
            0x0055_2023,
            0x0014_8493,
            0x3020_0073,
        ]),
        waits: 0x10,
        next: 0x14,
        woken: "fp",
        interrupts: "s1",
    },
    Sleeper {
        name: "A-profile that waits with interrupts masked",
        qemu: "qemu-system-arm",
        machine: "virt",
        args: &["-cpu", "cortex-a15"],
        registers: &[
            ("cpsr", 0xd3),
            ("r0", 1),
            ("r2", 200_000),
            ("r6", 0x800_0000),
            ("r7", 1 << 27),
            ("r9", 0xff),
            ("pc", ARM_CODE),
        ],
        code: ARM_CODE,
        // The GIC's distributor: str r0, [r6]; str r7, [r6, #0x100]. Its CPU interface:
        // add r8, r6, #0x10000; str r9, [r8, #4]; str r0, [r8]. The virtual timer: TVAL, CTL.
        // wfi; add r4, r4, #1; r5 += CTL's ISTATUS; TVAL; b to wfi
        program: Program::Words(&[
            0xe586_0000,
            0xe586_7100,
            0xe286_8801,
            0xe588_9004,
            0xe588_0000,
            0xee0e_2f13,
            0xee0e_0f33,
            0xe320_f003,
            0xe284_4001,
            0xee1e_3f33,
            0xe085_5123,
            0xee0e_2f13,
            0xeaff_fff9,
        ]),
        waits: 0x1c,
        next: 0x20,
        woken: "r4",
        interrupts: "r5",
    },
];

/// Each, with the guest's cores in threads and in one. QEMU itself goes round for ever where an
/// A-profile core of the latter sleeps after it was stopped at a breakpoint.
fn sleepers() -> impl Iterator<Item = (&'static Sleeper, bool)> {
    let in_one = SLEEPERS.iter().filter(|sleeper| sleeper.code != ARM_CODE);
    let in_one = in_one.map(|sleeper| (sleeper, true));
    SLEEPERS
        .iter()
        .map(|sleeper| (sleeper, false))
        .chain(in_one)
}

impl Sleeper {
    async fn start(&self, is_deterministic: bool) -> (Session, Debugger) {
        let mut config: QemuConfig = super::board(self.machine)
            .qemu(self.qemu)
            .memory("64M")
            .extra_args(self.args);
        if is_deterministic {
            config = config.deterministic(6);
        }
        let session = Session::start(config).await.unwrap();
        let mut debugger = session.debugger().await.unwrap();
        let bytes: Vec<u8> = match self.program {
            Program::Thumb(code, handler) => {
                let handler = u32::try_from(THUMB_CODE + handler + 1).unwrap();
                let entry = VECTORS + 15 * 4;
                let handler = handler.to_le_bytes();
                debugger.write_memory(entry, &handler).await.unwrap();
                code.iter().flat_map(|half| half.to_le_bytes()).collect()
            }
            Program::Words(code) => code.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        debugger.write_memory(self.code, &bytes).await.unwrap();
        for &(register, value) in self.registers {
            debugger.write_register(register, value).await.unwrap();
        }
        for counter in [self.woken, self.interrupts] {
            debugger.write_register(counter, 0).await.unwrap();
        }
        (session, debugger)
    }

    /// It was woken so often, each time by an interrupt.
    async fn check_wakes(&self, debugger: &mut Debugger, expected: u64) {
        let name = self.name;
        let woken = debugger.read_register(self.woken).await.unwrap();
        let interrupts = debugger.read_register(self.interrupts).await.unwrap();
        assert_eq!(woken, expected, "{name}");
        assert!(interrupts >= woken, "{name}: {interrupts} for {woken}");
    }
}

async fn run(debugger: &mut Debugger, until: Vec<Until<'_>>, name: &str) -> u64 {
    let stop = debugger.run_until(until, DEADLINE).await.unwrap();
    assert!(
        matches!(stop.reason, StopReason::Reached { .. }),
        "{name}: {stop}"
    );
    stop.pc.unwrap()
}

#[tokio::test]
async fn a_breakpoint_where_the_guest_waits_is_met_each_time_and_no_time_else() {
    for (sleeper, is_deterministic) in sleepers() {
        let name = sleeper.name;
        let (_session, mut debugger) = sleeper.start(is_deterministic).await;
        let waits = sleeper.code + sleeper.waits;
        for hit in 0..20 {
            run(&mut debugger, vec![Until::reaches(waits)], name).await;
            sleeper.check_wakes(&mut debugger, hit).await;
        }
        // In one run, and with what comes after it as well, of which nothing is passed over.
        run(&mut debugger, vec![Until::reaches(waits).skip(9)], name).await;
        sleeper.check_wakes(&mut debugger, 29).await;
        let next = sleeper.code + sleeper.next;
        for round in 0..5 {
            for expected in [next, waits] {
                let both = vec![Until::reaches(waits), Until::reaches(next)];
                let pc = run(&mut debugger, both, name).await;
                assert_eq!(pc, expected, "{name}: round {round}");
            }
        }
        sleeper.check_wakes(&mut debugger, 34).await;
    }
}

#[tokio::test]
async fn a_step_of_what_waits_ends_at_the_next_instruction_once_something_woke_it() {
    for (sleeper, is_deterministic) in sleepers() {
        let name = sleeper.name;
        let (session, mut debugger) = sleeper.start(is_deterministic).await;
        let waits = sleeper.code + sleeper.waits;
        for round in 0..5 {
            run(&mut debugger, vec![Until::reaches(waits)], name).await;
            let stop = debugger.step_instruction().await.unwrap();
            assert!(matches!(stop.reason, StopReason::Stepped), "{name}: {stop}");
            assert_eq!(stop.pc, Some(sleeper.code + sleeper.next), "{name}");
            let woken = debugger.read_register(sleeper.woken).await.unwrap();
            assert_eq!(woken, round, "{name}");
        }
        // Nothing is left of it.
        session.resume().await.unwrap();
        let stop = debugger.run_until([Until::reaches(waits).skip(2)], DEADLINE);
        let stop = stop.await.unwrap();
        assert!(
            matches!(stop.reason, StopReason::Reached { hits: 3, .. }),
            "{name}: {stop}"
        );
    }
}

/// Nothing wakes it: the deadline does, and a pause from elsewhere.
#[tokio::test]
async fn what_nothing_wakes_is_stopped_at_the_deadline_and_by_a_pause() {
    let sleeper = &SLEEPERS[0];
    let (session, mut debugger) = sleeper.start(false).await;
    let waits = sleeper.code + sleeper.waits;
    // SysTick stays off.
    debugger.write_register("pc", waits).await.unwrap();
    let short = Duration::from_millis(50);
    for _ in 0..2 {
        let stop = debugger.run_until([Until::reaches(waits)], short).await;
        let stop = stop.unwrap();
        assert!(matches!(stop.reason, StopReason::DeadlinePassed), "{stop}");
        debugger.write_register("pc", waits).await.unwrap();
    }
    let pause = async {
        while !session.query_status().await.unwrap().running {
            tokio::task::yield_now().await;
        }
        session.pause().await.unwrap();
    };
    let (stop, ()) = tokio::join!(debugger.step_instruction(), pause);
    let stop = stop.unwrap();
    assert!(matches!(stop.reason, StopReason::Paused), "{stop}");
}
