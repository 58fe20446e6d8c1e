//! The same small program on every core that there is a compiler for: docs/cores.md has the table.

use std::path::PathBuf;

use qemu_controller::debug::{Debugger, StopReason, Until};
use qemu_controller::{QemuConfig, Semihosting, Session, Verdict};

use crate::support::DEADLINE;

/// How the program's exit is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exit {
    Status(u8),
    /// The machine has no way to end QEMU.
    None,
}

/// Image, QEMU, board, CPU where it is not the board's own, and exit.
type Core = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    Exit,
);

const CORES: [Core; 15] = [
    ("m0", "arm", "microbit", None, Exit::Status(7)),
    ("m3", "arm", "lm3s6965evb", None, Exit::Status(7)),
    ("m4f", "arm", "mps2-an386", None, Exit::Status(7)),
    ("m7", "arm", "mps2-an500", None, Exit::Status(7)),
    ("m33", "arm", "mps2-an505", None, Exit::Status(7)),
    ("m55", "arm", "mps3-an547", None, Exit::Status(7)),
    ("a7", "arm", "virt", Some("cortex-a7"), Exit::Status(7)),
    (
        "r5",
        "arm",
        "versatilepb",
        Some("cortex-r5"),
        Exit::Status(7),
    ),
    (
        "a53",
        "aarch64",
        "virt",
        Some("cortex-a53"),
        Exit::Status(7),
    ),
    ("rv32", "riscv32", "virt", None, Exit::Status(7)),
    ("rv64", "riscv64", "virt", None, Exit::Status(7)),
    ("avr", "avr", "uno", None, Exit::None),
    ("mips", "mips", "malta", Some("24Kf"), Exit::Status(7)),
    ("m68k", "m68k", "mcf5208evb", None, Exit::Status(7)),
    ("xtensa", "xtensa", "sim", Some("dc232b"), Exit::Status(7)),
];

async fn start(image: &str, qemu: &str, machine: &str, cpu: Option<&str>, exit: Exit) -> Session {
    let file = format!("../firmware-info/fixtures/same/{image}.elf");
    let mut config = QemuConfig::default()
        .qemu(format!("qemu-system-{qemu}"))
        .machine(machine)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE);
    if let Some(cpu) = cpu {
        config = config.cpu(cpu);
    }
    if exit != Exit::None {
        config = config.semihosting(Semihosting::default());
    }
    let path = PathBuf::from(file);
    config = match qemu {
        "avr" => config.symbols(&path).with_spec(|spec| spec.bios(&path)),
        "riscv32" | "riscv64" => config.firmware(path).with_spec(|spec| spec.bios("none")),
        _ => config.firmware(path),
    };
    Session::start(config)
        .await
        .unwrap_or_else(|error| panic!("{image}: {error}"))
}

/// The rounds that the program has made, by the variable's name.
async fn rounds(debugger: &mut Debugger, image: &str) -> u64 {
    let size = if image == "avr" { 2 } else { 4 };
    let bytes = debugger.read_memory("rounds", size).await.unwrap();
    let big = matches!(image, "mips" | "m68k");
    let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    match big {
        true => bytes.iter().fold(0, fold),
        false => bytes.iter().rev().fold(0, fold),
    }
}

#[tokio::test]
async fn the_same_program_is_run_stepped_looked_at_and_ends_on_every_core() {
    for (image, qemu, machine, cpu, exit) in CORES {
        let session = start(image, qemu, machine, cpu, exit).await;
        let mut debugger = session.debugger().await.unwrap();
        let stop = debugger.run_until([Until::reaches("main")], DEADLINE).await;
        let stop = stop.unwrap_or_else(|error| panic!("{image}: {error}"));
        let reached = matches!(stop.reason, StopReason::Reached { .. });
        assert!(reached, "{image}: {stop}");
        for _ in 0..100 {
            let stop = debugger.step_instruction().await.unwrap();
            let stepped = matches!(stop.reason, StopReason::Stepped);
            assert!(stepped, "{image}: {stop}");
        }
        let made = rounds(&mut debugger, image).await;
        assert!((1..100).contains(&made), "{image}: {made}");
        drop(debugger);
        match exit {
            Exit::Status(status) => match session.run_to_end(DEADLINE).await {
                // QEMU 7.2 takes the number of m68k's call for the status.
                Verdict::Exited { status: 0 } if image == "m68k" => {}
                Verdict::Exited { status: left } => assert_eq!(left, status, "{image}"),
                other => panic!("{image}: {other}"),
            },
            Exit::None => {
                let mut debugger = session.debugger().await.unwrap();
                let stop = debugger
                    .run_until([Until::reaches("leave")], DEADLINE)
                    .await
                    .unwrap();
                assert!(
                    matches!(stop.reason, StopReason::Reached { .. }),
                    "{image}: {stop}"
                );
                assert_eq!(rounds(&mut debugger, image).await, 1000, "{image}");
            }
        }
    }
}

/// Its stub describes no registers, and in 7.2 has neither `p` nor `P`: they are those that gdb has
/// built in.
#[tokio::test]
async fn a_mips_core_has_registers_and_steps_over_calls() {
    let [call, behind] = [0x8010_0070, 0x8010_0078];
    let session = start("mips", "mips", "malta", Some("24Kf"), Exit::Status(7)).await;
    let mut debugger = session.debugger().await.unwrap();
    debugger.run_to(call, DEADLINE).await.unwrap();
    let registers = debugger.read_registers().await.unwrap();
    assert_eq!(registers.get("pc"), Some(call));
    assert_eq!(registers.get("s0"), Some(0x8011_0000));
    assert_eq!(registers.get("ra"), debugger.read_register("ra").await.ok());
    let stop = debugger.step_over(DEADLINE).await.unwrap();
    assert_eq!(stop.pc, Some(behind), "{stop}");
    // In the next round the return address is the one of the round before.
    debugger.run_to(call - 4, DEADLINE).await.unwrap();
    let stop = debugger.step_over(DEADLINE).await.unwrap();
    assert_eq!(stop.pc, Some(call), "{stop}");
    let stop = debugger.step_over(DEADLINE).await.unwrap();
    assert_eq!(stop.pc, Some(behind), "{stop}");
    let add = debugger.run_until([Until::reaches("add")], DEADLINE).await;
    assert!(matches!(add.unwrap().reason, StopReason::Reached { .. }));
    assert_eq!(debugger.read_register("ra").await.unwrap(), behind);
    let stop = debugger.finish(DEADLINE).await.unwrap();
    assert_eq!(stop.pc, Some(behind), "{stop}");
    let before = debugger.read_registers().await.unwrap();
    debugger.write_register("a0", 0x1234).await.unwrap();
    let after = debugger.read_registers().await.unwrap();
    for name in before.names() {
        let expected = if name == "a0" {
            Some(0x1234)
        } else {
            before.get(name)
        };
        assert_eq!(after.get(name), expected, "{name}");
    }
}
