//! The guest's serial port: nothing lost, nothing stalled.

use std::time::Duration;

use qemu_controller::{SERIAL_BUFFER_BYTES, SerialError, StoppedBy};

use crate::support::{DEADLINE, start};

#[tokio::test]
async fn what_is_sent_is_echoed() {
    let session = start("tick").await;
    let serial = session.serial(0).unwrap();
    serial.expect("boot", DEADLINE).await.unwrap();
    serial.write(b"<hello, guest>").await.unwrap();
    // A tick may fall between any two characters.
    let mut echoed = Vec::new();
    for byte in b"<hello, guest>" {
        serial.expect([*byte], DEADLINE).await.unwrap();
        echoed.push(*byte);
    }
    assert_eq!(echoed, b"<hello, guest>");
}

#[tokio::test]
async fn what_does_not_come_is_said_with_what_came() {
    let session = start("tick").await;
    let serial = session.serial(0).unwrap();
    serial.expect("tick 1", DEADLINE).await.unwrap();
    session.pause().await.unwrap();
    let error = serial.expect("never", Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(error, SerialError::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("'never'"), "{error}");
    session.stop().await.unwrap();
    let error = serial.expect("never", DEADLINE).await.unwrap_err();
    assert!(matches!(error, SerialError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_flood_that_nobody_reads_stalls_nothing() {
    let session = start("uart-flood").await;
    let serial = session.serial(0).unwrap();
    while serial.dropped() == 0 {
        session.query_status().await.unwrap();
        // Asked without a pause, QEMU has little time for its guest.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(serial.take().len(), SERIAL_BUFFER_BYTES);
    session.stop().await.unwrap();
}

/// A port that nobody drains any more is closed: an open one would stall QEMU, its monitor included.
#[test]
fn a_runtime_that_is_gone_stalls_no_guest() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let session = first.block_on(start("uart-flood"));
    drop(first);
    runtime().block_on(async {
        let error = session.serial(0).unwrap().expect("never", DEADLINE).await.unwrap_err();
        assert!(matches!(error, SerialError::Closed { .. }), "{error}");
        let stopped = session.stop().await.unwrap();
        assert_eq!(stopped.by, StoppedBy::Terminate, "{stopped}");
    });
}
