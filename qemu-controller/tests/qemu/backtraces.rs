//! How a core came to where it is, why it faulted, and what a run that is watched says of it.

use std::path::PathBuf;
use std::time::Duration;

use qemu_controller::debug::{DebugError, StopReason, Until};
use qemu_controller::firmware_info::{Backtrace, End};
use qemu_controller::{QemuConfig, Session, Verdict};

use crate::support::{DEADLINE, fault, image};

/// An image of firmware-info's, paused before its first instruction.
async fn start(fixture: &str, config: QemuConfig) -> Session {
    let folder = PathBuf::from("../firmware-info/fixtures");
    let config = config.firmware(folder.join(fixture)).start_paused(true);
    Session::start(config.start_deadline(DEADLINE))
        .await
        .unwrap()
}

fn names(backtrace: &Backtrace) -> Vec<String> {
    let functions = backtrace.frames.iter().flat_map(|frame| &frame.functions);
    functions.map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_backtrace_has_lines_and_inlined_functions_to_the_reset_handler() {
    let session = start("c/o2.elf", QemuConfig::default()).await;
    let mut debugger = session.debugger().await.unwrap();
    let until = [Until::reaches("hash").skip(3)];
    let stop = debugger.run_until(until, DEADLINE).await.unwrap();
    assert!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
    let backtrace = debugger.backtrace().await.unwrap();
    let names = names(&backtrace);
    assert!(
        names[0].starts_with("hash at /fixtures/c/main.c:"),
        "{backtrace}"
    );
    assert!(
        names.iter().any(|name| name.starts_with("main at ")),
        "{backtrace}"
    );
    assert!(backtrace.end.is_complete(), "{backtrace}");
    let reports = debugger.core_reports().await.unwrap();
    let [core] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert!(
        core.fault.is_none() && core.summary().starts_with("core 0 is in hash at "),
        "{core}"
    );
    let object = core.to_json();
    assert_eq!(object["backtrace"][0]["functions"][0]["function"], "hash");
    // The registers are asked for once more, and nothing has moved.
    assert_eq!(
        debugger.read_register("pc").await.unwrap(),
        stop.pc.unwrap()
    );
}

/// The same through the human monitor: nothing of a debugger is left.
#[tokio::test]
async fn a_look_says_where_each_core_is() {
    let session = start("c/o2.elf", QemuConfig::default()).await;
    let mut debugger = session.debugger().await.unwrap();
    let stop = debugger
        .run_until([Until::reaches("hash")], DEADLINE)
        .await
        .unwrap();
    assert!(stop.pc.is_some(), "{stop}");
    let by_debugger = debugger.backtrace().await.unwrap();
    drop(debugger);
    let hang = session.look().await;
    let [core] = &hang.cores[..] else {
        panic!("{hang:?}")
    };
    assert_eq!(names(&core.backtrace), names(&by_debugger));
}

/// mtvec is 0 and nothing is there: the fault is taken again and again.
#[tokio::test]
async fn a_fault_of_risc_v_without_a_handler_is_named_with_its_line() {
    let config = QemuConfig::default()
        .qemu("qemu-system-riscv32")
        .machine("virt")
        .extra_args(["-bios", "none"]);
    let session = start("riscv/debug.elf", config).await;
    let mut debugger = session.debugger().await.unwrap();
    let function = session.firmware_info().unwrap().symbol("weigh");
    let address = function.unwrap().address;
    debugger.write_memory(address, &[0; 4]).await.unwrap();
    drop(debugger);
    let report = session.run_watched(DEADLINE, || false).await;
    let Verdict::Faulted(core) = &report.verdict else {
        panic!("{report}")
    };
    let said = core.to_string();
    assert!(
        said.contains("(illegal instruction), in ") && said.contains("src/main.rs:"),
        "{said}"
    );
    let frame = &core.backtrace.frames[core.fault.as_ref().unwrap().culprit.unwrap()];
    assert_eq!(frame.pc, address, "{said}");
    assert!(core.backtrace.frames.len() > 2, "{said}");
}

/// QEMU 10.0 for 64 bit extends the sign of what a core of 32 bit has in its registers; before 9.1 it
/// has no such core.
#[tokio::test]
async fn a_32_bit_core_of_a_64_bit_qemu_is_where_its_symbols_are() {
    let config = QemuConfig::default()
        .qemu("qemu-system-riscv64")
        .machine("virt")
        .cpu("rv32")
        .extra_args(["-bios", "none"])
        .firmware("../firmware-info/fixtures/riscv/debug.elf")
        .start_paused(true);
    let session = match Session::start(config).await {
        Err(error) if error.to_string().contains("unable to find CPU model") => return,
        session => session.unwrap(),
    };
    let mut debugger = session.debugger().await.unwrap();
    let function = session.firmware_info().unwrap().symbol("weigh");
    let address = function.unwrap().address;
    debugger.write_memory(address, &[0; 4]).await.unwrap();
    let before = debugger.read_register("pc").await.unwrap();
    debugger.write_register("pc", address).await.unwrap();
    let hang = session.look().await;
    assert_eq!((hang.pc, hang.no_code), (Some(address), false), "{hang}");
    assert!(hang.to_string().ends_with("::weigh"), "{hang}");
    debugger.write_register("pc", before).await.unwrap();
    drop(debugger);
    let report = session.run_watched(DEADLINE, || false).await;
    let Verdict::Faulted(core) = &report.verdict else {
        panic!("{report}")
    };
    let frame = &core.backtrace.frames[core.fault.as_ref().unwrap().culprit.unwrap()];
    assert_eq!(frame.pc, address, "{report}");
    assert!(core.backtrace.frames.len() > 2, "{report}");
}

#[tokio::test]
async fn another_architecture_s_file_is_no_source() {
    let symbols = "../firmware-info/fixtures/riscv/release.elf";
    let paused = |config: QemuConfig| Session::start(config.start_paused(true));
    // The only file.
    let image = image("hardfault-loop");
    let kernel = ["-kernel", image.to_str().unwrap()];
    let only = QemuConfig::default().extra_args(kernel).symbols(symbols);
    let session = paused(only).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let error = debugger.backtrace().await.unwrap_err();
    assert!(matches!(error, DebugError::OtherArchitecture), "{error}");
    drop(debugger);
    let report = session.run_watched(Duration::from_secs(1), || false).await;
    let Verdict::TimedOut(hang) = &report.verdict else {
        panic!("{report}")
    };
    assert!(hang.cores.is_empty() && hang.in_fault_handler(), "{report}");
    // Where another one fits, that is asked.
    let both = QemuConfig::default().firmware(&image).symbols(symbols);
    let session = paused(both).await.unwrap();
    let report = session.run_watched(Duration::from_secs(1), || false).await;
    assert!(report.to_string().contains("in faulty"), "{report}");
}

/// The monitor does not tell a thread's stack pointer, QEMU's stub does since 8.1. The look leaves the
/// guest as it was.
#[tokio::test]
async fn what_an_exception_interrupted_on_a_thread_s_stack_is_looked_for() {
    let session = Session::start(fault("thread").start_paused(true)).await;
    let session = session.unwrap();
    let version = session.qemu_version();
    let is_told = (version.major, version.minor) >= (8, 1);
    let verdict = session.run_to_end(Duration::from_millis(200)).await;
    let Verdict::TimedOut(hang) = verdict else {
        panic!("{verdict}")
    };
    for hang in [hang, Box::new(session.look().await)] {
        assert!(hang.in_fault_handler(), "{hang}");
        let said = hang.cores[0].to_string();
        let is_there = said.contains("in_worker at /fixtures/faults/faults.c:");
        assert_eq!(is_there, is_told, "{said}");
        assert_eq!(said.contains("PSP is not known"), !is_told, "{said}");
        let status = session.query_status().await.unwrap();
        assert!(status.running, "{}", status.status);
    }
    session.pause().await.unwrap();
    let _ = session.look().await;
    assert!(!session.query_status().await.unwrap().running);
    // One who debugs it meanwhile is not disturbed.
    let debugger = session.debugger().await.unwrap();
    assert!(session.look().await.in_fault_handler());
    drop(debugger);
}

/// A loop that may wait for somebody to take what it prints tells nothing.
#[tokio::test]
async fn a_firmware_that_may_be_held_up_is_not_ended() {
    let config = QemuConfig::default().firmware(image("hardfault-loop"));
    let session = Session::start(config.start_paused(true)).await.unwrap();
    let report = session.run_watched(Duration::from_secs(1), || true).await;
    assert!(matches!(report.verdict, Verdict::TimedOut(_)), "{report}");
    let cause = report.cause.unwrap();
    assert!(cause.to_string().contains("in faulty"), "{cause}");
    assert_eq!(cause.backtrace.end, End::Outermost);
}

#[tokio::test]
async fn all_files_of_symbols_are_known() {
    // The first knows nothing of this machine, the second is no ELF file, and the firmware is last.
    let fixtures = PathBuf::from("../firmware-info/fixtures");
    let config = QemuConfig::default()
        .symbols(fixtures.join("profiles/arm.elf"))
        .symbols(fixtures.join("profiles/faults.c"));
    let session = start("c/o2.elf", config).await;
    let mut debugger = session.debugger().await.unwrap();
    let until = [Until::reaches("hash").skip(3), Until::panics()];
    let stop = debugger.run_until(until, DEADLINE).await.unwrap();
    assert_eq!(stop.place.unwrap().symbol.name, "hash");
    let backtrace = debugger.backtrace().await.unwrap();
    let of_firmware = names(&backtrace);
    assert!(
        of_firmware[0].starts_with("hash at /fixtures/c/main.c:"),
        "{backtrace}"
    );
    assert!(backtrace.end.is_complete(), "{backtrace}");
    // Of the first file, in memory that this machine has not.
    let error = debugger.run_until([Until::reaches("read_nothing")], DEADLINE);
    let error = error.await.unwrap_err();
    assert!(matches!(error, DebugError::NoMemory { .. }), "{error}");
    let error = session.read_u32("hasch").await.unwrap_err().to_string();
    assert!(error.contains("hasch"), "{error}");
    let Verdict::TimedOut(hang) = session.run_to_end(Duration::ZERO).await else {
        panic!("it has ended")
    };
    assert!(
        hang.cores[0].summary().contains(" at /fixtures/c/"),
        "{hang}"
    );
}
