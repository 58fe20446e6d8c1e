//! How a run of the firmware ended: every verdict from real QEMU, none taken for another.

use std::time::Duration;

use qemu_controller::{
    Address, Endpoint, Interruption, QemuConfig, RunState, Semihosting, Session, Verdict,
};
use qemu_launch::{Action, Monitor};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{DEADLINE, Held, config, counts, long, start};

async fn run(config: QemuConfig) -> (Session, Verdict) {
    let session = Session::start(config).await.unwrap();
    let verdict = session.run_to_end(DEADLINE).await;
    (session, verdict)
}

async fn semihosting_exit() {
    let (session, verdict) = run(config("semihosting-exit").semihosting(Semihosting::full())).await;
    assert!(
        matches!(verdict, Verdict::Exited { status: 7 }),
        "{verdict}"
    );
    assert_eq!(verdict.exit_code(), 7);
    let console = session.semihosting().unwrap();
    assert_eq!(
        console.take().escape_ascii().to_string(),
        "hello by semihosting\\n"
    );
}

async fn reset_request() {
    let (session, verdict) = run(config("reset-request").no_reboot(true)).await;
    assert!(matches!(verdict, Verdict::Reset), "{verdict}");
    assert_eq!(session.serial(0).unwrap().take(), b"boot\n");
    assert!(
        matches!(session.wait().await, Verdict::Reset),
        "asked again, it says the same"
    );
}

async fn lockup() {
    let (session, verdict) = run(config("lockup")).await;
    let Verdict::LockedUp { dump, place } = &verdict else {
        panic!("{verdict}")
    };
    assert!(dump.pc().is_some(), "{verdict}");
    assert_eq!(place.as_ref().unwrap().symbol.name, "hard_fault");
    assert_eq!(session.serial(0).unwrap().take(), b"boot\n");
}

/// Without a fault handler of its own that prints, a fault shows as a run that does not end.
async fn hardfault_loop() {
    let session = start("hardfault-loop").await;
    session
        .serial(0)
        .unwrap()
        .expect_within("hard fault\n", DEADLINE)
        .await
        .unwrap();
    let verdict = session.run_to_end(Duration::from_millis(20)).await;
    let Verdict::TimedOut(hang) = &verdict else {
        panic!("{verdict}")
    };
    assert!(hang.in_fault_handler(), "{verdict}");
    assert_eq!(hang.place.as_ref().unwrap().symbol.name, "hard_fault");
    assert_eq!(
        hang.exception.as_ref().unwrap().handler.as_deref(),
        Some("hard_fault")
    );
    assert_eq!(
        (hang.run_state.as_ref(), verdict.exit_code()),
        (Some(&RunState::Running), 124)
    );
    assert!(
        session.query_status().await.unwrap().running,
        "it is left as it was"
    );
}

async fn tick_times_out() {
    let session = start("tick").await;
    let verdict = session.run_to_end(Duration::from_millis(20)).await;
    let Verdict::TimedOut(hang) = &verdict else {
        panic!("{verdict}")
    };
    assert!(!hang.in_fault_handler(), "{verdict}");
    assert!(hang.place.is_some(), "{verdict}");
}

async fn stopped_by_us() {
    let session = start("tick").await;
    let (verdict, stopped) = tokio::join!(session.wait(), session.stop());
    stopped.unwrap();
    assert!(matches!(verdict, Verdict::Stopped), "{verdict}");
}

async fn signalled_by_us() {
    for kill in [false, true] {
        let session = start("tick").await;
        let process = session.process().unwrap();
        if kill {
            process.kill()
        } else {
            process.terminate()
        }
        let verdict = session.wait().await;
        assert!(matches!(verdict, Verdict::Stopped), "{verdict}");
    }
}

async fn signalled_from_outside(signal: Signal) {
    let session = start("tick").await;
    Held::of(session.pid().unwrap()).signal(signal).await;
    let verdict = session.wait().await;
    match (&verdict, signal) {
        (Verdict::Interrupted(Interruption::KilledBySignal(9)), Signal::KILL) => {
            assert_eq!(verdict.exit_code(), 137);
        }
        (Verdict::Interrupted(Interruption::AskedBySignal), Signal::TERM) => {}
        (Verdict::QemuFailed(exit), Signal::SEGV) => assert_eq!(exit.signal(), Some(11)),
        _ => panic!("{signal:?}: {verdict}"),
    }
}

async fn ended_by_another_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.sock");
    let second = Monitor::Qmp(Endpoint::Socket(path.clone()));
    let session = Session::start(config("tick").with_spec(|spec| spec.monitor(second)))
        .await
        .unwrap();
    let other = Session::attach(Address::Socket(path), DEADLINE)
        .await
        .unwrap();
    let (verdict, stopped) = tokio::join!(session.wait(), other.stop());
    stopped.unwrap();
    assert!(
        matches!(verdict, Verdict::Interrupted(Interruption::OtherClient)),
        "{verdict}"
    );
    let verdict = other.wait().await;
    assert!(matches!(verdict, Verdict::Stopped), "{verdict}");
}

#[tokio::test]
async fn each_verdict_is_told_from_the_others() {
    for _ in 0..if long() { 50 } else { 2 } {
        tokio::join!(
            semihosting_exit(),
            reset_request(),
            lockup(),
            hardfault_loop(),
            tick_times_out(),
            stopped_by_us(),
            signalled_by_us(),
            signalled_from_outside(Signal::TERM),
            signalled_from_outside(Signal::KILL),
            signalled_from_outside(Signal::SEGV),
            ended_by_another_client(),
        );
    }
}

#[tokio::test]
async fn a_guest_that_resets_itself_for_ever_is_counted() {
    let session = start("reset-request").await;
    for _ in 0..2 {
        session
            .wait_for_event("RESET", |event| event.name == "RESET")
            .await
            .unwrap();
    }
    let verdict = session.run_to_end(Duration::from_millis(50)).await;
    let Verdict::TimedOut(hang) = &verdict else {
        panic!("{verdict}")
    };
    assert!(hang.guest_resets.count > 1, "{verdict}");
}

#[tokio::test]
async fn a_machine_that_stays_after_its_shutdown_has_come_to_its_end() {
    let stay = Action::new().shutdown_on_reboot().pause_on_shutdown();
    let (session, verdict) = run(config("reset-request").with_spec(|spec| spec.action(stay))).await;
    assert!(matches!(verdict, Verdict::Reset), "{verdict}");
    assert_eq!(
        session.query_status().await.unwrap().status,
        RunState::Shutdown
    );
}

#[tokio::test]
async fn a_qemu_that_hangs_is_said_to() {
    let session = start("tick").await;
    let held = Held::of(session.pid().unwrap());
    held.signal(Signal::STOP).await;
    let verdict = session.run_to_end(Duration::from_millis(20)).await;
    let Verdict::TimedOut(hang) = &verdict else {
        panic!("{verdict}")
    };
    assert_eq!(
        (hang.run_state.as_ref(), hang.pc),
        (None, None),
        "{verdict}"
    );
    held.signal(Signal::CONT).await;
}

#[tokio::test]
async fn a_look_lets_no_guest_run_that_was_stopped() {
    let session = Session::start(config("tick").start_paused(true))
        .await
        .unwrap();
    let mut events = session.events();
    let found = session.look().await;
    assert_eq!(found.run_state, Some(RunState::Prelaunch));
    assert!(found.pc.is_some() && found.place.is_some(), "{found}");
    assert!(
        found
            .to_string()
            .starts_with("the guest is prelaunch at 0x")
    );
    session.resume().await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().name, "RESUME");

    let found = session.look().await;
    assert_eq!(found.run_state, Some(RunState::Running));
    assert!(counts(&session).await, "one that runs, runs on");
}

/// What a debugger does at its stub: `kill`, and `monitor system_reset` where that is the end.
#[tokio::test]
async fn a_debugger_ends_it() {
    for (does, packet) in [("kill", "$k#6b"), ("monitor system_reset", SYSTEM_RESET)] {
        let session = Session::start(config("tick").no_reboot(true))
            .await
            .unwrap();
        let Some(gdb_port::StubAddress::Tcp(address)) = session.gdb() else {
            panic!("no port")
        };
        let mut debugger = TcpStream::connect(address).await.unwrap();
        debugger.write_all(packet.as_bytes()).await.unwrap();
        let verdict = session.wait().await;
        assert!(
            matches!(verdict, Verdict::Interrupted(Interruption::Debugger)),
            "{does}: {verdict}"
        );
        assert_eq!(verdict.exit_code(), 143, "{does}");
    }
}

/// `qRcmd,` and `system_reset` in hexadecimal digits.
const SYSTEM_RESET: &str = "$qRcmd,73797374656d5f7265736574#86";

#[tokio::test]
async fn an_assertion_says_what_the_firmware_said() {
    let session = start("lockup").await;
    let report = session.report_of_run(DEADLINE).await;
    let text = format!("{report:?}");
    assert!(text.starts_with("the core locked up"), "{text}");
    assert!(
        text.contains("\nthe last lines on serial port 0:\n    boot"),
        "{text}"
    );
    assert!(text.contains("\nthe last lines on stderr:\n"), "{text}");
    let served = config("semihosting-exit").semihosting(Semihosting::full());
    let session = Session::start(served).await.unwrap();
    let asserting = tokio::spawn(async move { session.assert_success(DEADLINE).await });
    let panic = asserting.await.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(
        text.contains("semihosting:\n    hello by semihosting"),
        "{text}"
    );
    let session = start("tick").await;
    let report = session.report_of_run(Duration::from_millis(50)).await;
    assert!(matches!(report.verdict, Verdict::TimedOut(_)), "{report}");
}

/// On other cores than Cortex-M's the monitor tells what is handled, as far as it prints that.
#[tokio::test]
async fn a_mips_core_in_an_exception_is_told_in_words() {
    let config = QemuConfig::default()
        .qemu("qemu-system-mips")
        .machine("malta")
        .cpu("24Kf")
        .memory("128M")
        .firmware("../firmware-info/fixtures/same/mips.elf")
        .start_paused(true)
        .start_deadline(DEADLINE);
    let session = Session::start(config).await.unwrap();
    let main = session.firmware_info().unwrap().symbol("main").unwrap();
    // mtc0 zero, Status: the vectors are in RAM; lui t0, 0x8000; an unaligned lw t1, 1(t0)
    let code = [0x4080_6000_u32, 0, 0x3c08_8000, 0x8d09_0001, 0];
    // b .; nop
    let handler = [0x1000_ffff_u32, 0];
    for (address, words) in [(main.address, &code[..]), (0x8000_0180, &handler[..])] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        // The test protocol writes physical addresses.
        session
            .write_memory(address & 0x1fff_ffff, &bytes)
            .await
            .unwrap();
    }
    session.resume().await.unwrap();
    let verdict = session.run_to_end(Duration::from_millis(500)).await;
    let Verdict::TimedOut(hang) = &verdict else {
        panic!("{verdict}")
    };
    let at = main.address + 12;
    let words = format!(
        "in the handler of an exception: a read or fetch at an unaligned or forbidden address (AdEL), \
         taken at {at:#010x}"
    );
    assert!(verdict.to_string().contains(&words), "{verdict}");
    assert!(hang.in_fault_handler(), "{verdict}");
}
