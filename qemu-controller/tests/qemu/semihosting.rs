//! The firmware's semihosting calls, answered by the program.

use std::path::PathBuf;

use qemu_controller::debug::{Stop, StopReason};
use qemu_controller::qemu_launch::MachineSpec;
use qemu_controller::semihosting::{Call, Event, Host, HostError, Printed, Request};
use qemu_controller::{AfterLoad, QemuConfig, Semihosting, Session, Verdict};

use crate::support::{DEADLINE, image};

/// A machine that has not run an instruction, and no stub of its own.
fn config(firmware: PathBuf) -> QemuConfig {
    QemuConfig::default()
        .firmware(firmware)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(path)
}

async fn next_call(host: &mut Host) -> Call {
    match host.next(DEADLINE).await.unwrap() {
        Event::Call(call) => call,
        other => panic!("{other:?}"),
    }
}

/// Answers the console's calls until the firmware exits; what it printed on both streams, and its
/// status.
async fn run_to_exit(host: &mut Host) -> (String, String, u8) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let call = next_call(host).await;
        if let Request::Exit { status } = call.request {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            return (text(stdout), text(stderr), status);
        }
        match host.answer_console(&call).await.unwrap() {
            Printed::Stdout(bytes) => stdout.extend(bytes),
            Printed::Stderr(bytes) => stderr.extend(bytes),
            other => panic!("{other:?} to {call:?}"),
        }
    }
}

#[tokio::test]
async fn what_the_firmware_prints_and_its_exit_reach_the_program_alone() {
    // QEMU serves no semihosting at all.
    let session = Session::start(config(image("semihosting-print")))
        .await
        .unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let (stdout, stderr, status) = run_to_exit(&mut host).await;
    assert_eq!(
        (&*stdout, &*stderr, status),
        ("write0\noutput\n", "error.\n", 0)
    );
    // QEMU is there, and the firmware where it exited.
    assert!(!session.query_status().await.unwrap().running);
}

#[tokio::test]
async fn each_architecture_s_calls() {
    for (name, qemu, machine, cpu) in [
        ("arm", "qemu-system-arm", "virt", "cortex-a15"),
        ("aarch64", "qemu-system-aarch64", "virt", "cortex-a53"),
        ("riscv32", "qemu-system-riscv32", "virt", "rv32"),
    ] {
        let config = config(fixture(&format!("semihosting/{name}.elf")))
            .qemu(qemu)
            .machine(machine)
            .cpu(cpu)
            .memory("128M")
            .with_spec(|spec: MachineSpec| match name {
                // Not the firmware that QEMU brings along.
                "riscv32" => spec.bios("none"),
                _ => spec,
            });
        let session = Session::start(config).await.unwrap();
        let mut host = session.semihosting_host().await.unwrap();
        assert_eq!(host.sites().len(), 1, "{name}");
        let call = next_call(&mut host).await;
        assert!(
            matches!(call.request, Request::CommandLine { size: 80, .. }),
            "{name}: {call:?}"
        );
        host.answer_command_line(&call, "one two").await.unwrap();
        let call = next_call(&mut host).await;
        assert_eq!(call.request, Request::Print(b"one two".to_vec()), "{name}");
        host.answer(&call, 0).await.unwrap();
        for (mode, handle) in [(4, 9), (0, 8)] {
            let call = next_call(&mut host).await;
            let name = b":tt".to_vec();
            assert_eq!(call.request, Request::Open { name, mode });
            host.answer(&call, handle).await.unwrap();
        }
        let call = next_call(&mut host).await;
        assert!(
            matches!(
                call.request,
                Request::Read {
                    handle: 8,
                    size: 16,
                    ..
                }
            ),
            "{name}: {call:?}"
        );
        host.answer_read(&call, b"typed").await.unwrap();
        let call = next_call(&mut host).await;
        let bytes = b"typed".to_vec();
        assert_eq!(
            call.request,
            Request::Write {
                handle: 9,
                bytes,
                size: 5
            },
            "{name}"
        );
        host.answer(&call, 0).await.unwrap();
        let call = next_call(&mut host).await;
        assert_eq!(call.request, Request::Exit { status: 7 }, "{name}");
    }
}

#[tokio::test]
async fn a_call_is_answered_again_and_again_after_a_load() {
    let session = Session::start(config(image("semihosting-echo")))
        .await
        .unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let read = loop {
        let call = next_call(&mut host).await;
        match call.request {
            Request::Read { .. } => break call,
            _ => assert_ne!(
                host.answer_console(&call).await.unwrap(),
                Printed::NotConsole
            ),
        }
    };
    session.save_snapshot("asked").await.unwrap();
    for byte in *b"abc" {
        host.answer_read(&read, &[byte]).await.unwrap();
        let call = next_call(&mut host).await;
        assert_eq!(call.request, Request::Print(vec![byte]));
        session
            .load_snapshot("asked")
            .then(AfterLoad::Paused)
            .await
            .unwrap();
    }
    // The end of its input.
    host.answer_read(&read, b"").await.unwrap();
    let (_, _, status) = run_to_exit(&mut host).await;
    assert_eq!(status, 0);
}

/// What the firmware wants to have read cannot be written where it says: the call stays unanswered.
#[tokio::test]
async fn a_call_whose_buffer_is_no_memory_is_not_answered() {
    let session = Session::start(config(image("semihosting-echo")))
        .await
        .unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let call = loop {
        let call = next_call(&mut host).await;
        match call.request {
            Request::Read { .. } => break call,
            _ => _ = host.answer_console(&call).await.unwrap(),
        }
    };
    let here = session.look().await.pc;
    // Nothing is there; and a register of the UART that a write does not change.
    for address in [0xf000_0000, 0x4000_c018] {
        let mut elsewhere = call.clone();
        let Request::Read { buffer, .. } = &mut elsewhere.request else {
            unreachable!();
        };
        *buffer = address;
        match host.answer_read(&elsewhere, b"x").await {
            // QEMU 10.0 writes to a device.
            Ok(()) if address == 0x4000_c018 => return,
            answered => {
                let error = answered.unwrap_err().to_string();
                let words = format!("there is no memory at {address:#x} that can be written");
                assert!(error.contains(&words), "{error}");
            }
        }
        let place = session.look().await;
        assert_eq!(place.pc, here, "{place}");
    }
    host.answer_read(&call, b"x").await.unwrap();
    let said = next_call(&mut host).await;
    assert!(matches!(
        host.answer_console(&said).await.unwrap(),
        Printed::Stdout(bytes) if bytes == b"x"
    ));
}

#[tokio::test]
async fn what_is_not_answered_qemu_serves() {
    let served = config(image("semihosting-exit")).semihosting(Semihosting::console());
    let session = Session::start(served).await.unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let status = loop {
        match host.next(DEADLINE).await.unwrap() {
            Event::Call(Call {
                request: Request::Exit { status },
                ..
            }) => break status,
            Event::Call(_) => {}
            other => panic!("{other:?}"),
        }
    };
    match host.next(DEADLINE).await.unwrap() {
        Event::Stopped(Stop {
            reason: StopReason::Ended(verdict),
            ..
        }) => {
            assert!(
                matches!(*verdict, Verdict::Exited { status: s } if s == status),
                "{verdict}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_left_when_it_is_dropped() {
    let served = config(image("semihosting-echo")).semihosting(Semihosting::console());
    let session = Session::start(served).await.unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let call = next_call(&mut host).await;
    assert!(matches!(call.request, Request::Open { .. }), "{call:?}");
    drop(host);
    // QEMU's own console has it from here on.
    session.resume().await.unwrap();
    let console = session.semihosting().unwrap();
    console.expect_within("ready\n", DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_firmware_without_calls_and_a_command_line_without_room_are_refused() {
    let session = Session::start(config(image("wfi"))).await.unwrap();
    let error = session.semihosting_host().await.unwrap_err();
    assert!(matches!(error, HostError::NoCalls(_)), "{error}");
    let booted = config(fixture("embedded-test/outcomes.elf"));
    let session = Session::start(booted).await.unwrap();
    let mut host = session.semihosting_host().await.unwrap();
    let call = loop {
        let call = next_call(&mut host).await;
        match call.request {
            Request::CommandLine { .. } => break call,
            _ => assert_ne!(
                host.answer_console(&call).await.unwrap(),
                Printed::NotConsole
            ),
        }
    };
    let error = host
        .answer_command_line(&call, &"x".repeat(2000))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            HostError::CommandLine {
                room: 1023,
                length: 2000
            }
        ),
        "{error}"
    );
    host.answer_command_line(&call, "run_addr 12")
        .await
        .unwrap();
}
