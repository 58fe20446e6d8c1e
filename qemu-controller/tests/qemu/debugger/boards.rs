//! Other architectures: a program of three instructions, written into their RAM by the debugger.

use std::time::Duration;

use qemu_controller::debug::{Access, Debugger, Id, StopReason, ThreadId, Until};
use qemu_controller::{QemuConfig, RunState, Session};

use crate::support::DEADLINE;

/// A board, and a loop on it: add one to a register, store it where a second register points, go
/// back.
pub(super) struct Board {
    pub(super) qemu: &'static str,
    machine: &'static str,
    cpu: &'static str,
    args: &'static [&'static str],
    pub(super) ram: u64,
    program: [u32; 3],
    pub(super) counter: &'static str,
    pointer: &'static str,
}

pub(super) const BOARDS: [Board; 4] = [
    Board {
        qemu: "qemu-system-arm",
        machine: "virt",
        cpu: "cortex-a15",
        args: &[],
        ram: 0x4000_0000,
        program: [0xe280_0001, 0xe581_0000, 0xeaff_fffc],
        counter: "r0",
        pointer: "r1",
    },
    Board {
        qemu: "qemu-system-aarch64",
        machine: "virt",
        cpu: "cortex-a57",
        // The second core is off until the first one turns it on.
        args: &["-smp", "2"],
        ram: 0x4000_0000,
        program: [0x9100_0400, 0xb900_0020, 0x17ff_fffe],
        counter: "x0",
        pointer: "x1",
    },
    Board {
        qemu: "qemu-system-riscv32",
        machine: "virt",
        cpu: "rv32",
        args: &["-bios", "none"],
        ram: 0x8000_0000,
        program: [0x0012_8293, 0x0053_2023, 0xff9f_f06f],
        counter: "t0",
        pointer: "t1",
    },
    Board {
        qemu: "qemu-system-riscv64",
        machine: "virt",
        cpu: "rv64",
        args: &["-bios", "none"],
        ram: 0x8000_0000,
        program: [0x0012_8293, 0x0053_2023, 0xff9f_f06f],
        counter: "t0",
        pointer: "t1",
    },
];

/// Paused, and with nothing in its memory.
pub(super) fn board_config(board: &Board) -> QemuConfig {
    super::board(board.machine)
        .qemu(board.qemu)
        .cpu(board.cpu)
        .memory("128M")
        .extra_args(board.args)
}

pub(super) async fn start_board(board: &Board) -> Session {
    Session::start(board_config(board)).await.unwrap()
}

#[tokio::test]
async fn a_and_risc_v_profiles_are_debugged_alike() {
    for board in &BOARDS {
        let name = board.qemu;
        let session = start_board(board).await;
        let mut debugger = session.debugger().await.unwrap();
        let program: Vec<u8> = board
            .program
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        // Beyond the device tree, which some put at the beginning.
        let data = board.ram + 0x40_0000;
        debugger.write_memory(board.ram, &program).await.unwrap();
        debugger.write_register(board.counter, 41).await.unwrap();
        debugger.write_register(board.pointer, data).await.unwrap();
        debugger.write_register("pc", board.ram).await.unwrap();
        let registers = debugger.read_registers().await.unwrap();
        assert_eq!(
            registers.get("pc"),
            Some(board.ram),
            "{name}: {registers:?}"
        );

        let stop = debugger.step_instruction().await.unwrap();
        assert_eq!(stop.pc, Some(board.ram + 4), "{name}: {stop}");
        assert_eq!(
            debugger.read_register(board.counter).await.unwrap(),
            42,
            "{name}"
        );
        // The store has not been executed: its watchpoint is met first.
        let stop = debugger
            .run_until([Until::writes(data, 4)], DEADLINE)
            .await
            .unwrap();
        let StopReason::Watched {
            access: Access::Write,
            address,
            old,
            new,
            ..
        } = &stop.reason
        else {
            panic!("{name}: {stop:?}")
        };
        assert_eq!(
            (*address, &old[..], &new[..]),
            (data, &[0; 4][..], &[42, 0, 0, 0][..]),
            "{name}"
        );
        assert_eq!(stop.pc, Some(board.ram + 8), "{name}");
        let stop = debugger
            .run_until([Until::reaches(board.ram).skip(9)], DEADLINE)
            .await
            .unwrap();
        assert!(
            matches!(stop.reason, StopReason::Reached { hits: 10, .. }),
            "{name}: {stop:?}"
        );
        assert_eq!(
            debugger.read_memory(data, 4).await.unwrap(),
            [51, 0, 0, 0],
            "{name}"
        );
        let threads = debugger.threads().await.unwrap();
        let cores = if board.args.contains(&"-smp") { 2 } else { 1 };
        assert_eq!(threads.len(), cores, "{name}: {threads:?}");
        for thread in threads {
            debugger.select_thread(thread).await.unwrap();
            debugger.read_register("pc").await.unwrap();
        }
    }
}

#[tokio::test]
async fn other_architectures_are_debugged_as_far_as_their_stubs_describe_them() {
    // The stubs of the last four have no target description; all registers of MIPS and the place
    // of Xtensa are known all the same.
    for (qemu, machine, cpu, memory, described) in [
        ("qemu-system-avr", "uno", "avr5-avr-cpu", "2K", true),
        ("qemu-system-x86_64", "microvm", "qemu64", "128M", true),
        ("qemu-system-m68k", "virt", "m68040", "128M", true),
        ("qemu-system-mips", "malta", "24Kf", "128M", true),
        ("qemu-system-xtensa", "sim", "dc232b", "128M", true),
        ("qemu-system-xtensaeb", "sim", "fsf", "128M", false),
        ("qemu-system-sh4", "r2d", "sh7751r", "64M", false),
    ] {
        let config = super::board(machine).qemu(qemu).cpu(cpu).memory(memory);
        let session = Session::start(config).await.unwrap();
        let mut debugger = session.debugger().await.unwrap();
        let stopped = match debugger.step_instruction().await {
            Ok(stop) => {
                assert!(matches!(stop.reason, StopReason::Stepped), "{qemu}: {stop}");
                let registers = debugger.read_registers().await.unwrap();
                let expected = if machine == "sim" { 1 } else { 17 };
                let count = registers.names().count();
                assert!(count >= expected, "{qemu}: {registers:?}");
                stop.pc.is_some()
            }
            Err(error) => {
                let error = error.to_string();
                let words = match machine {
                    // The place is known by name, and this core's stub has no registers at all.
                    "sim" => ["reading registers: the stub does not know", "with E14"],
                    _ => {
                        ["has no register 'pc'; it has none by name: this QEMU's stub does not"; 2]
                    }
                };
                let says = words.iter().any(|words| error.contains(words));
                assert!(says, "{qemu}: {error}");
                false
            }
        };
        assert_eq!(stopped, described, "{qemu}");
    }
}

/// A machine with clusters of unlike cores, its debugger, and a core of the first and of the second.
async fn clusters(qemu: &str, machine: &str, words: &[&str]) -> (Session, Debugger, [ThreadId; 2]) {
    let config = super::board(machine).qemu(qemu).extra_args(words);
    let session = Session::start(config).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let threads = debugger.threads().await.unwrap();
    let first = threads[0];
    let mut others = threads.into_iter().filter(|t| t.process != first.process);
    let other = others.next().unwrap();
    (session, debugger, [first, other])
}

/// Writes a register of each, and reads both again.
async fn check_registers(debugger: &mut Debugger, cores: [(ThreadId, &str); 2]) {
    for (core, name) in cores {
        debugger.select_thread(core).await.unwrap();
        debugger
            .write_register(name, core_value(core))
            .await
            .unwrap();
    }
    for (core, name) in cores {
        debugger.select_thread(core).await.unwrap();
        assert_eq!(
            debugger.read_register(name).await.unwrap(),
            core_value(core)
        );
        let registers = debugger.read_registers().await.unwrap();
        let pc = debugger.read_register("pc").await.unwrap();
        assert_eq!(registers.get("pc"), Some(pc), "{registers:?}");
    }
}

fn core_value(core: ThreadId) -> u64 {
    match core.thread {
        Id::One(number) => 0x1000 + number,
        _ => 0,
    }
}

/// An A72 and an R5: the first cluster's description has none of the other's registers.
#[tokio::test]
async fn a_core_of_another_kind_has_its_own_registers() {
    let words = ["-smp", "4"];
    let (session, mut debugger, [a72, r5]) =
        clusters("qemu-system-aarch64", "xlnx-versal-virt", &words).await;
    check_registers(&mut debugger, [(a72, "x5"), (r5, "r5")]).await;
    let there = session
        .human_monitor_command("info registers -a")
        .await
        .unwrap();
    for value in ["X05=0000000000001001", "R05=00001003"] {
        assert!(there.contains(value), "{there}");
    }
    assert!(debugger.read_register("x5").await.is_err());
    debugger.select_thread(a72).await.unwrap();
    assert!(debugger.read_register("r5").await.is_err());
}

/// A hart without an FPU and one with it: the same registers have other numbers.
#[tokio::test]
async fn a_fault_of_a_hart_of_another_cluster_is_met_at_its_own_vector() {
    let (session, mut debugger, harts) =
        clusters("qemu-system-riscv64", "sifive_u", &["-bios", "none"]).await;
    check_registers(&mut debugger, harts.map(|hart| (hart, "mscratch"))).await;
    let there = session
        .human_monitor_command("info registers -a")
        .await
        .unwrap();
    for value in ["1001", "1002"] {
        assert!(
            there.contains(&format!("mscratch 000000000000{value}")),
            "{there}"
        );
    }
    // Loops, and at 0x10 what is no instruction.
    let ram = 0x8000_0000;
    let program = [0x6f_u32, 0, 0, 0, 0, 0, 0, 0, 0x6f];
    let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    debugger.write_memory(ram, &bytes).await.unwrap();
    for (hart, pc, vector) in [
        (harts[1], ram + 0x10, ram + 0x20),
        (harts[0], ram, ram + 0x30),
    ] {
        debugger.select_thread(hart).await.unwrap();
        debugger.write_register("pc", pc).await.unwrap();
        debugger.write_register("mtvec", vector).await.unwrap();
    }
    let stop = debugger
        .run_until([Until::faults()], DEADLINE)
        .await
        .unwrap();
    let StopReason::Faulted { fault, .. } = &stop.reason else {
        panic!("{stop}")
    };
    assert_eq!(
        (fault.name, stop.pc),
        ("illegal instruction", Some(ram + 0x20))
    );
    assert_eq!(debugger.read_register("mscratch").await.unwrap(), 0x1002);
}

/// Whichever QEMU makes the current one: whose registers are read is who steps. A look at all of them
/// that is dropped changes nothing.
#[tokio::test]
async fn at_a_deadline_the_core_that_is_read_is_the_one_that_steps() {
    let (_session, mut debugger, harts) =
        clusters("qemu-system-riscv64", "sifive_u", &["-bios", "none"]).await;
    // nop, nop, back to the first.
    let ram = 0x8000_0000;
    let program = [0x13_u32, 0x13, 0xff9f_f06f];
    let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    debugger.write_memory(ram, &bytes).await.unwrap();
    for hart in harts {
        debugger.select_thread(hart).await.unwrap();
        debugger.write_register("pc", ram).await.unwrap();
    }
    for selected in [harts[1], harts[0], harts[1]] {
        debugger.select_thread(selected).await.unwrap();
        let never = [Until::reaches(ram + 0x100)];
        let stop = debugger.run_until(never, Duration::from_millis(20)).await;
        let stop = stop.unwrap();
        assert!(matches!(stop.reason, StopReason::DeadlinePassed), "{stop}");
        let hart = debugger.read_register("mhartid").await.unwrap();
        let before = debugger.read_register("pc").await.unwrap();
        assert_eq!(stop.pc, Some(before));
        let stop = debugger.step_instruction().await.unwrap();
        assert_eq!(debugger.read_register("mhartid").await.unwrap(), hart);
        assert_ne!(stop.pc, Some(before), "hart {hart} has not stepped: {stop}");
    }
    for polls in 0..40 {
        debugger.select_thread(harts[1]).await.unwrap();
        test_support::drop_after(polls, debugger.core_reports()).await;
        assert_eq!(debugger.read_register("mhartid").await.unwrap(), 1);
    }
}

/// QEMU 10.0 says nothing of a stop after a monitor's `cont`, and so not whose it is; what it said of
/// the save's stop names the other one.
#[tokio::test]
async fn the_core_at_a_breakpoint_is_the_current_one_after_a_save_in_the_run() {
    let (session, mut debugger, [first, other]) =
        clusters("qemu-system-riscv64", "sifive_u", &["-bios", "none"]).await;
    // One hart loops here; at 0x10 the other counts to 16 million, and comes to 0x20.
    let (ram, nop) = (0x8000_0000, 0x13);
    // lui t1, 0x1000; addi t0, t0, 1; bne t0, t1, to it; nop; at 0x20 a loop
    let program = [
        0x6f,
        0,
        0,
        0,
        0x0100_0337,
        0x0012_8293,
        0xfe62_9ee3,
        nop,
        0x6f_u32,
    ];
    let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    debugger.write_memory(ram, &bytes).await.unwrap();
    for (hart, pc) in [(first, ram + 0x10), (other, ram)] {
        debugger.select_thread(hart).await.unwrap();
        debugger.write_register("pc", pc).await.unwrap();
        debugger
            .write_register("mscratch", core_value(hart))
            .await
            .unwrap();
    }
    let run = debugger.run_until([Until::reaches(ram + 0x20)], DEADLINE);
    let (stop, ()) = tokio::join!(run, async {
        let mut state = session.watch_run_state();
        let runs = state.wait_for(|state| *state == RunState::Running);
        runs.await.unwrap();
        session.save_snapshot("in-the-run").await.unwrap();
        assert!(session.query_status().await.unwrap().running);
    });
    let stop = stop.unwrap();
    assert!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
    assert_eq!(stop.pc, Some(ram + 0x20));
    assert_eq!(
        debugger.read_register("mscratch").await.unwrap(),
        core_value(first)
    );
}

#[tokio::test]
async fn the_cores_of_all_clusters_are_threads() {
    let session = Session::start(super::board("mps2-an521")).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let threads = debugger.threads().await.unwrap();
    let names: Vec<_> = threads.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["p1.1", "p2.2"]);
    for (number, thread) in threads.into_iter().enumerate() {
        debugger.select_thread(thread).await.unwrap();
        debugger
            .write_register("r7", number as u64 + 5)
            .await
            .unwrap();
        assert_eq!(
            debugger.read_register("r7").await.unwrap(),
            number as u64 + 5
        );
    }
}
