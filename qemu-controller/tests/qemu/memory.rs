//! The guest's memory by symbol and address, while it runs.

use std::sync::Arc;
use std::time::Duration;

use qemu_controller::debug::{DebugError, Until};
use qemu_controller::{MemoryError, QemuConfig, Session, SessionEnd};
use rustix::process::Signal;
use tokio::sync::Notify;

use crate::support::{DEADLINE, Held, config, counts, fault, start, symbol};

#[tokio::test]
async fn it_is_read_by_name_while_the_guest_runs() {
    let session = start("tick").await;
    let (first, mut second) = (session.read_u32("counter").await.unwrap(), 0);
    while second <= first {
        second = session.read_u32("counter").await.unwrap();
    }
    assert!(session.query_status().await.unwrap().running);
    session.pause().await.unwrap();
    let word = session.read_u32("counter").await.unwrap();
    assert_eq!(
        session.read_memory("counter", 4).await.unwrap(),
        word.to_le_bytes()
    );
    assert_eq!(
        session.read_u16(symbol("tick", "counter")).await.unwrap(),
        word as u16
    );
    assert_eq!(session.read_u8("counter").await.unwrap(), word as u8);
    assert_eq!(session.read_u64("counter").await.unwrap() as u32, word);
    // The first word is the initial stack pointer, the second the reset vector with the bit that
    // says Thumb.
    let vectors = session.read_memory("vectors", 8).await.unwrap();
    assert_eq!(vectors[..4], 0x2001_0000_u32.to_le_bytes());
    let firmware = session.firmware_info().unwrap();
    let reset = firmware.symbol("reset").unwrap().address;
    assert_eq!(vectors[4..], (reset as u32 | 1).to_le_bytes());
    assert_eq!(
        firmware.symbol_at(reset + 2).unwrap().to_string(),
        "reset+0x2"
    );
}

#[tokio::test]
async fn a_rust_program_s_variables_have_the_source_s_names() {
    let image = "../firmware-info/fixtures/rust/release.elf";
    let config = QemuConfig::default().firmware(image).start_paused(true);
    let session = Session::start(config).await.unwrap();
    let firmware = session.firmware_info().unwrap();
    let ticks = firmware.symbol("calls::TICKS").unwrap();
    assert_ne!(ticks.raw_name, ticks.name);
    for name in ["calls::TICKS", "TICKS", &ticks.raw_name] {
        assert_eq!(session.read_u32(name).await.unwrap(), 0, "{name}");
    }
    let error = session.read_u32("calls::TICK").await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the firmware has no symbol 'calls::TICK'; similar ones: calls::TICKS"),
        "{error}"
    );
}

#[tokio::test]
async fn a_value_is_waited_for() {
    let session = start("tick").await;
    let first = session.read_u32("tick_count").await.unwrap();
    let reached = session
        .wait_for_value("tick_count", |ticks| ticks > u64::from(first))
        .await
        .unwrap();
    assert_eq!(reached, u64::from(first) + 1);
    let soon = session.with_deadline(Duration::from_millis(100));
    let error = soon
        .wait_for_value("tick_count", |ticks| ticks > 1_000_000)
        .await
        .unwrap_err();
    assert!(
        matches!(error, MemoryError::ValueDeadline { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("the value at tick_count was 0x"),
        "{error}"
    );
}

#[tokio::test]
async fn numbers_of_each_size_are_written() {
    let session = Session::start(config("wfi")).await.unwrap();
    let place = 0x2000_0100;
    for old in [[0_u8; 8], [1, 2, 3, 4, 5, 6, 7, 8]] {
        session.write_memory(place, old).await.unwrap();
        session
            .write_u64(place, 0x1122_3344_5566_7788)
            .await
            .unwrap();
        assert_eq!(
            session.read_u64(place).await.unwrap(),
            0x1122_3344_5566_7788
        );
        session.write_u32(place, 0x99aa_bbcc).await.unwrap();
        session.write_u16(place + 4, 0xddee).await.unwrap();
        session.write_u8(place + 6, 0xff).await.unwrap();
        assert_eq!(
            session.read_memory(place, 8).await.unwrap(),
            [0xcc, 0xbb, 0xaa, 0x99, 0xee, 0xdd, 0xff, 0x11]
        );
    }
}

#[tokio::test]
async fn what_is_no_memory_is_said() {
    let session = start("tick").await;
    assert_eq!(
        session
            .read_memory(0x2000_0000, 0x1_0000)
            .await
            .unwrap()
            .len(),
        0x1_0000
    );
    let error = session.read_memory(0x2000_fff8, 16).await.unwrap_err();
    assert!(
        matches!(
            error,
            MemoryError::Unmapped {
                address: 0x2001_0000
            }
        ),
        "{error}"
    );
    let error = session.read_memory(u64::MAX, 2).await.unwrap_err();
    assert!(matches!(error, MemoryError::OutOfRange { .. }), "{error}");
    let error = session.read_u32("Counter").await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("'Counter'; similar ones: counter"),
        "{error}"
    );
}

#[tokio::test]
async fn it_is_written_while_the_guest_runs() {
    let session = Session::start(config("wfi")).await.unwrap();
    session
        .serial(0)
        .unwrap()
        .expect_within("boot\n", DEADLINE)
        .await
        .unwrap();
    session.write_u32("wakeups", 0x0102_0304).await.unwrap();
    assert_eq!(session.read_u32("wakeups").await.unwrap(), 0x0102_0304);
    let bytes: Vec<_> = (0..10_000_u32).map(|at| (at ^ at >> 8) as u8).collect();
    session.write_memory(0x2000_1000, &bytes).await.unwrap();
    assert!(session.read_memory(0x2000_1000, 10_000).await.unwrap() == bytes);
    assert!(session.query_status().await.unwrap().running);
    let error = session.write_u32("vectors", 7).await.unwrap_err();
    assert!(
        matches!(error, MemoryError::ReadOnly { address: 0 }),
        "{error}"
    );
    let error = session.write_memory(0x2000_fffe, [0; 4]).await.unwrap_err();
    assert!(matches!(error, MemoryError::Unmapped { .. }), "{error}");
    session.stop().await.unwrap();
    assert!(session.write_u32("wakeups", 1).await.is_err());
}

/// Wherever in a write it ends: between the requests, or in the middle of one.
#[tokio::test]
async fn a_qemu_that_is_killed_meanwhile_is_told_with_how() {
    for micros in [0, 100, 300, 1000, 3000] {
        let session = Session::start(config("wfi")).await.unwrap();
        let begun = Arc::new(Notify::new());
        let writing = tokio::spawn({
            let (session, begun) = (session.clone(), Arc::clone(&begun));
            async move {
                loop {
                    if let Err(error) = session.write_memory(0x2000_1000, [0x5a; 0x8000]).await {
                        return error;
                    }
                    begun.notify_one();
                }
            }
        });
        begun.notified().await;
        tokio::time::sleep(Duration::from_micros(micros)).await;
        Held::of(session.pid().unwrap()).signal(Signal::KILL).await;
        let error = writing.await.unwrap();
        let MemoryError::Command(error) = &error else {
            panic!("after {micros} us: {error:?}")
        };
        let Some(SessionEnd::Exited(exit)) = error.ended() else {
            panic!("after {micros} us: {error:?}")
        };
        assert_eq!(exit.signal(), Some(Signal::KILL.as_raw()));
    }
}

#[tokio::test]
async fn a_counter_that_is_written_counts_on_from_there() {
    let session = Session::start(config("tick")).await.unwrap();
    session
        .serial(0)
        .unwrap()
        .expect_within("tick 1\n", DEADLINE)
        .await
        .unwrap();
    // While it runs, the guest may have read the counter and be about to store it.
    session.pause().await.unwrap();
    session.write_u32("counter", 0x8000_0000).await.unwrap();
    assert_eq!(session.read_u32("counter").await.unwrap(), 0x8000_0000);
    session.resume().await.unwrap();
    assert!(counts(&session).await);
    assert!(session.read_u32("counter").await.unwrap() >= 0x8000_0000);
}

/// QEMU 10.0 extends the sign of the address that its monitor's `x` gets on a 32-bit target.
#[tokio::test]
async fn it_is_found_in_the_upper_half_of_32_bits() {
    let config = QemuConfig::default()
        .machine("virt")
        .cpu("cortex-a15")
        .memory("2G")
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE);
    let session = Session::start(config).await.unwrap();
    let at = 0x8000_0ffd;
    let bytes: Vec<u8> = (1..=250).collect();
    session.write_memory(at, &bytes).await.unwrap();
    assert_eq!(session.read_memory(at, 250).await.unwrap(), bytes);
    assert_eq!(session.read_u8(at).await.unwrap(), 1);
    assert_eq!(session.read_u32(at).await.unwrap(), 0x0403_0201);
    assert_eq!(
        session.read_u64(at + 3).await.unwrap(),
        0x0b0a_0908_0706_0504
    );
    let end = 0xc000_0000;
    session.write_memory(end - 4, [1, 2, 3, 4]).await.unwrap();
    for (from, len) in [(end - 4, 8), (end, 1)] {
        let error = session.read_memory(from, len).await.unwrap_err();
        assert!(
            matches!(error, MemoryError::Unmapped { address } if address == end),
            "{error}"
        );
    }
}

/// A guard of the MPU begins the page that a thread's stack is in: QEMU refuses all of the page.
#[tokio::test]
async fn memory_behind_a_guard_of_the_mpu() {
    let session = Session::start(fault("guarded-thread").start_paused(true));
    let session = session.await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    let until = [Until::reaches("in_worker")];
    debugger.run_until(until, DEADLINE).await.unwrap();
    let firmware = session.firmware_info().unwrap();
    let stack = firmware.symbol("worker_stack").unwrap();
    let place = stack.address + 600;
    let word = 0x1234_5678_u32.to_le_bytes();
    let error = debugger.write_memory(place, &word).await.unwrap_err();
    assert!(
        matches!(error, DebugError::Guarded { address } if address == place),
        "{error}"
    );
    session.write_memory(place, word).await.unwrap();
    assert_eq!(session.read_memory(place, 4).await.unwrap(), word);
    assert_eq!(debugger.read_memory(place, 4).await.unwrap(), word);
    // Across packets, from the guard itself on.
    let whole = debugger.read_memory(stack.address, 4096).await.unwrap();
    assert_eq!(whole[600..604], word);
    // What is nowhere stays so, and its first address is told.
    let end = 0x2000_2000;
    let error = debugger.read_memory(end - 4, 8).await.unwrap_err();
    assert!(
        matches!(error, DebugError::NoMemory { address, .. } if address == end),
        "{error}"
    );
    let error = session.read_memory(end - 4, 8).await.unwrap_err();
    assert!(
        matches!(error, MemoryError::Unmapped { address } if address == end - 4),
        "{error}"
    );
}
