//! The guest's serial port and semihosting console: nothing lost, nothing stalled.

use std::time::Duration;

use qemu_controller::{
    QemuConfig, SERIAL_BUFFER_BYTES, Semihosting, SerialError, Session, StartError, StoppedBy,
    Verdict,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::support::{DEADLINE, config, long, start};

/// Every byte value, in an order that repeats late.
fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| ((at % 256) ^ (at / 256 % 256)) as u8)
        .collect()
}

#[tokio::test]
async fn input_of_64_kib_comes_back_whole() {
    let session = start("uart-echo").await;
    let serial = session.serial(0).unwrap();
    serial.expect_within("boot\n", DEADLINE).await.unwrap();
    let sent = bytes(64 * 1024);
    let mut echoed = vec![0; sent.len()];
    let mut reader = serial.stream();
    let (written, read) = tokio::join!(serial.write(&sent), reader.read_exact(&mut echoed));
    written.unwrap();
    read.unwrap();
    assert!(
        echoed == sent,
        "the first difference is at {:?}",
        first_difference(&echoed, &sent)
    );
    assert_eq!(serial.dropped(), 0);
}

/// Nothing but a wake makes QEMU look for it (see docs/qemu-notes.md).
#[tokio::test]
async fn input_from_before_the_uart_is_enabled_arrives() {
    let late = config("uart-late-mps2")
        .machine("mps2-an385")
        .start_paused(true);
    for paused in [true, false, true, false] {
        let session = Session::start(late.clone().start_paused(paused))
            .await
            .unwrap();
        let serial = session.serial(0).unwrap();
        serial.write_line("early").await.unwrap();
        // Nothing is asked of QEMU from here on.
        if paused {
            session.resume().await.unwrap();
        }
        serial.expect("boot\nearly\n").await.unwrap();
        serial.stream().write_all(b"later\n").await.unwrap();
        serial.expect("later\n").await.unwrap();
    }
}

#[tokio::test]
async fn standard_error_of_semihosting_is_the_firmware_s() {
    let config = config("semihosting-print").semihosting(Semihosting::console());
    let session = Session::start(config.start_paused(true)).await.unwrap();
    let mut stderr = session.stderr().unwrap();
    assert!(session.run_to_end(DEADLINE).await.success());
    let mut printed = Vec::new();
    while let Some(line) = stderr.next().await {
        if line.is_firmwares {
            printed.push(line.text);
        }
    }
    assert_eq!(printed, ["error."]);
}

#[tokio::test]
async fn a_second_port_and_the_default_deadline() {
    let config = config("tick")
        .add_serial()
        .command_deadline(Duration::from_millis(300));
    let session = Session::start(config).await.unwrap();
    let error = session.serial(1).unwrap().line().await.unwrap_err();
    assert!(
        matches!(error, SerialError::Deadline { deadline, .. } if deadline.as_millis() == 300),
        "{error}"
    );
    assert!(session.serial(2).is_none());
}

fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    left.iter()
        .zip(right)
        .position(|(left, right)| left != right)
}

#[tokio::test]
async fn as_streams_it_reads_lines_and_takes_writes() {
    let session = start("uart-echo").await;
    let mut lines = BufReader::new(session.serial(0).unwrap().stream()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("boot"));
    let mut writer = session.serial(0).unwrap().stream();
    writer.write_all(b"one\ntwo\n").await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("one"));
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("two"));
    session.stop().await.unwrap();
    assert_eq!(lines.next_line().await.unwrap(), None);
}

#[cfg(feature = "regex")]
#[tokio::test]
async fn a_regular_expression_matches_bytes() {
    use qemu_controller::regex::bytes::Regex;
    let session = start("uart-echo").await;
    let serial = session.serial(0).unwrap();
    serial.write(b"\0\xfftemperature 42 C\nrest").await.unwrap();
    let wanted = Regex::new(r"(\d+) C\n").unwrap();
    let seen = serial.expect_within(&wanted, DEADLINE).await.unwrap();
    assert_eq!(
        (&*seen.before, &*seen.matched),
        (&b"boot\n\0\xfftemperature "[..], &b"42 C\n"[..])
    );
    let error = serial
        .expect_within(wanted, Duration::from_millis(10))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(r"(\d+) C\n"), "{error}");
}

#[tokio::test]
async fn what_does_not_come_is_said_with_what_came() {
    let session = start("tick").await;
    let serial = session.serial(0).unwrap();
    serial.expect_within("tick 1\n", DEADLINE).await.unwrap();
    session.pause().await.unwrap();
    let error = serial
        .expect_within("never", Duration::from_millis(10))
        .await
        .unwrap_err();
    assert!(matches!(error, SerialError::Deadline { .. }), "{error}");
    // Read already, and shown all the same.
    let text = error.to_string();
    assert!(
        text.contains("'never'") && text.contains("\n  boot\n  tick 1"),
        "{text}"
    );
    session.stop().await.unwrap();
    let error = serial.expect_within("never", DEADLINE).await.unwrap_err();
    assert!(matches!(error, SerialError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_flood_that_nobody_reads_stalls_nothing() {
    // Ten megabytes take QEMU 15 s where it has a processor for itself.
    let flood = if long() { 10 << 20 } else { 1 << 20 };
    let session = start("uart-flood").await;
    let serial = session.serial(0).unwrap();
    while serial.dropped() < flood {
        session.query_status().await.unwrap();
        // Asked without a pause, QEMU has little time for its guest.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(serial.take().len(), SERIAL_BUFFER_BYTES);
    session.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_has_all_that_was_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uart.log");
    let session = Session::start(config("reset-request").no_reboot(true).serial_log(0, &path))
        .await
        .unwrap();
    session.wait().await;
    assert_eq!(std::fs::read(&path).unwrap(), b"boot\n");
    assert_eq!(
        session.serial(0).unwrap().take(),
        b"boot\n",
        "and the buffer has it too"
    );

    let refused = |config: QemuConfig| async { Session::start(config).await.unwrap_err() };
    let nowhere = folder.path().join("missing/uart.log");
    let error = refused(config("tick").serial_log(0, nowhere)).await;
    assert!(matches!(error, StartError::Log { .. }), "{error}");
    let error = refused(config("tick").serial_log(1, path)).await;
    assert!(error.to_string().contains("serial port 1"), "{error}");
}

/// Whichever way it prints: QEMU has its console for the one, and its stdout for the other.
#[tokio::test]
async fn the_semihosting_console_has_what_the_guest_prints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.log");
    let config = config("semihosting-print")
        .semihosting(Semihosting::full())
        .semihosting_log(&path);
    let session = Session::start(config).await.unwrap();
    let console = session.semihosting().unwrap().clone();
    let verdict = session.run_to_end(DEADLINE).await;
    assert!(
        matches!(verdict, Verdict::Exited { status: 0 }),
        "{verdict}"
    );
    let mut lines: Vec<_> = vec![
        console.line_within(DEADLINE).await.unwrap(),
        console.line_within(DEADLINE).await.unwrap(),
    ];
    lines.sort();
    assert_eq!(
        lines,
        ["output", "write0"],
        "of the two ways, each in its own order"
    );
    assert_eq!(
        std::fs::read(&path).unwrap().len(),
        14,
        "and all is in the log"
    );
    let stderr = session.process().unwrap().stderr_tail().to_string_lossy();
    assert!(stderr.contains("error.\n"), "{stderr}");
}

/// A port that nobody drains any more is closed: an open one would stall QEMU, its monitor
/// included.
#[test]
fn a_runtime_that_is_gone_stalls_no_guest() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let session = first.block_on(start("uart-flood"));
    drop(first);
    runtime().block_on(async {
        let error = session
            .serial(0)
            .unwrap()
            .expect_within("never", DEADLINE)
            .await
            .unwrap_err();
        assert!(matches!(error, SerialError::Closed { .. }), "{error}");
        let stopped = session.stop().await.unwrap();
        assert_eq!(stopped.by, StoppedBy::Terminate, "{stopped}");
    });
}
